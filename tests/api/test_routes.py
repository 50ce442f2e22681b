"""The list of routes: what a path may be, and that each method has what it needs."""

from urllib.parse import quote

from tests.api.asking import ask
from tests.running import Running
from tests.table import table


async def test_what_a_list_is_summed_up_by_is_no_session_and_no_trace(tw: Running) -> None:
    for rows in ("sessions", "traces"):
        assert (await ask(tw, f"/api/{rows}/totals")).status == 200
        assert (await ask(tw, f"/api/{rows}/totals", "DELETE")).error[0] == 405
        assert (await ask(tw, f"/api/{rows}/totals2")).status == 404


async def test_an_id_may_have_anything_in_it_but_a_slash_that_is_not_encoded(tw: Running) -> None:
    for name in ("a/b", "{x}", "a\nb", "é", "50%"):
        reply = await ask(tw, f"/api/sessions/{quote(name, safe='')}")
        assert reply.error == (404, "not_found")
        assert "session" in reply.body["error"]["message"]


async def test_what_hands_in_needs_a_key_that_writes(tw: Running) -> None:
    found = {
        row.path for row in table(tw) if row.method == "POST" and row.need == {"write", "admin"}
    }
    assert {
        "/api/traces",
        "/api/traces/{id}/end",
        "/api/spans",
        "/api/spans/{id}/complete",
        "/api/spans/{id}/fail",
        "/api/batch",
    } <= found
