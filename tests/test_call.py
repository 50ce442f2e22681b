"""One call and the record that it leaves: its clock, its copies, its secrets, its checkpoints."""

import asyncio
import dataclasses
import pickle
import time
from typing import Any

import orjson
import pytest

from proxy.call import COMPLETE
from proxy.capture import Budget
from proxy.joining import Joining
from storage.records import Taken
from tests.calling import ANSWER, CHAT, CUT, DONE, EVENTS, JSON, QUESTION, a_call, answered, delta

KEY = b"sk-canary-0123456789"


def test_a_call_knows_at_its_start_what_its_head_says() -> None:
    call = a_call(target=CHAT + b"?beta=true&api_key=secret-0001", session="user:1")
    start = call.start
    assert (start.method, start.path, start.upstream) == ("POST", "/v1/chat/completions", "openai")
    assert start.query == "beta=true&api_key=[redacted]"
    assert (start.operation, start.name) == ("chat.completions", "chat.completions")
    assert (start.session_id, start.session_source) == ("user:1", "header")
    assert (len(start.trace_id), len(start.span_id)) == (16, 8)
    assert a_call().start.trace_id > start.trace_id  # ids made later sort later


def test_a_call_knows_its_caller_by_the_key_and_keeps_no_part_of_it() -> None:
    one, other, none = (
        a_call(headers=(*JSON, *key)).start.caller
        for key in [((b"Authorization", b"Bearer " + KEY),), ((b"x-api-key", b"sk-other"),), ()]
    )
    assert len({one, other}) == 2
    assert none is None
    assert one is not None
    assert one not in KEY


def test_a_key_that_is_sent_as_a_session_is_not_kept() -> None:
    key = (b"Authorization", b"Bearer " + KEY)
    start = a_call(headers=(*JSON, key), session=f"user {KEY.decode()}").start
    assert start.session_id == "user [redacted]"


def test_a_call_goes_with_its_projects_key_which_is_in_nothing_of_its_record() -> None:
    ours = (b"Authorization", b"Bearer tw_sk_abc")
    call = a_call(
        target=CHAT + b"?a=%b" % KEY,
        headers=(*JSON, ours, (b"Accept-Encoding", b"br"), (b"X-Else", KEY)),
        session=f"user {KEY.decode()}",
        provider_key=KEY,
    )
    assert (b"Authorization", b"Bearer " + KEY) in call.outgoing
    assert (b"Accept-Encoding", b"identity") in call.outgoing
    assert ours not in call.outgoing
    assert not call.lacks_key
    assert call.mask is not None
    assert call.mask.hidden(b"a " + KEY) == b"a " + b"*" * len(KEY)
    end = answered(call, ANSWER, headers=(*JSON, (b"Location", b"/" + KEY)))
    assert KEY.decode() not in repr(end)
    assert KEY.decode() not in str(dataclasses.asdict(end.request))
    assert KEY.decode() not in str(dataclasses.asdict(end.response))


def test_a_call_that_came_with_its_providers_key_goes_as_it_came() -> None:
    own = (*JSON, (b"Authorization", b"Bearer " + KEY), (b"Accept-Encoding", b"br"))
    call = a_call(headers=own)
    assert (call.outgoing, call.mask, call.lacks_key) == (own, None, False)
    assert a_call(headers=own, provider_key=b"").lacks_key


def test_an_unknown_operation_is_named_by_its_method_and_path() -> None:
    start = a_call(target=b"/api/proxy/openai/v1/new/thing", method="PATCH").start
    assert (start.operation, start.name) == (None, "PATCH /v1/new/thing")


def test_a_path_that_is_not_utf_8_is_named_all_the_same() -> None:
    assert a_call(target=b"/api/proxy/openai/v1/\xff").start.path == "/v1/\ufffd"


def test_durations_do_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    call = a_call()
    monkeypatch.setattr(time, "time_ns", lambda: 0)  # it jumps back to 1970
    end = answered(call, ANSWER)
    assert end.first_byte_us is not None
    assert 0 <= end.first_byte_us <= end.duration_us < 60_000_000


def test_the_record_of_a_call_holds_both_bodies_and_how_it_ended() -> None:
    end = answered(a_call(), ANSWER[:20], ANSWER[20:], status=201)
    assert (end.request.body.head, end.response.body.head) == (QUESTION, ANSWER)
    assert (end.status, end.ending, end.stream) == (201, COMPLETE, None)
    assert (end.request.content_type, end.response.content_type) == ("application/json",) * 2


def test_a_call_that_was_never_answered_has_a_record_too() -> None:
    call = a_call()
    call.relayed(b"too early", b"too early")
    assert not call.at_its_end
    end = call.finish(CUT)
    assert (end.status, end.first_byte_us, end.response.body.size) == (None, None, 0)
    assert call.finished


def test_the_record_could_cross_a_process_border() -> None:
    end = answered(a_call(), delta("Hi"), DONE, headers=EVENTS)
    assert pickle.loads(pickle.dumps(end)) == end  # noqa: S301 (we wrote it a moment ago)
    with pytest.raises(dataclasses.FrozenInstanceError):
        end.status = 500  # type: ignore[misc]


def test_a_stream_has_the_time_of_its_first_token_and_its_facts() -> None:
    call = a_call()
    call.answered(200, EVENTS, edited=False)
    call.relayed(b": waiting\n\n", b": waiting\n\n")
    call.relayed(delta("Hi"), delta("Hi"))
    call.relayed(DONE, DONE)
    assert call.at_its_end
    end = call.finish(COMPLETE)
    assert end.stream is not None
    assert end.stream.state == "completed"
    assert end.first_byte_us is not None
    assert end.first_token_us is not None
    assert end.first_byte_us <= end.first_token_us <= end.duration_us


def test_an_edited_answer_is_kept_as_the_client_got_it_which_is_plain() -> None:
    call = a_call()
    call.answered(200, (*EVENTS, (b"Content-Encoding", b"gzip")), edited=True)
    call.relayed(b"", delta("Hi"))
    end = call.finish(COMPLETE)
    assert (end.response.content_encoding, end.response.body.head) == ("", delta("Hi"))


SECRET_HEADERS = [
    (b"Authorization", b"Bearer %b", KEY),
    (b"authorization", b"Basic %b", KEY),
    (b"api-key", b"%b", KEY),
    (b"X-Api-Key", b"%b", KEY),
    (b"x-goog-api-key", b"%b", KEY),
    (b"Cookie", b"theme=dark; session=%b; lang=en", KEY),
]


@pytest.mark.parametrize(("name", "value", "secret"), SECRET_HEADERS)
def test_a_credential_is_in_no_header_of_the_record_and_known_as_a_secret(
    name: bytes, value: bytes, secret: bytes
) -> None:
    headers = (*JSON, (name, value % secret), (b"X-Echo", b"it is " + secret))
    end = answered(a_call(headers=headers), ANSWER, headers=((b"X-Back", b"<%b>" % secret),))
    assert secret in end.secrets
    assert end.request.headers is not None
    kept = orjson.loads(end.request.headers)
    assert [name.decode(), "[redacted]"] in kept
    assert ["X-Echo", "it is [redacted]"] in kept
    assert end.response.headers == '[["X-Back","<[redacted]>"]]'


def test_a_cookie_that_the_upstream_sets_is_a_secret_from_then_on() -> None:
    end = answered(a_call(), KEY, headers=((b"Set-Cookie", b"sid=%b; Path=/; Secure" % KEY),))
    assert KEY in end.secrets
    assert b"/" not in end.secrets
    assert end.response.headers == '[["Set-Cookie","[redacted]"]]'


def test_secrets_are_not_shown_where_a_record_is_printed() -> None:
    end = answered(a_call(headers=((b"Authorization", b"Bearer " + KEY),)), ANSWER)
    assert KEY.decode() not in repr(end)


# Checkpoints.


def streaming(budget: Budget | None = None, **how: Any) -> Any:
    call = a_call(budget, **how)
    call.answered(200, EVENTS, edited=False)
    return call


def show(call: Any, event: bytes) -> None:
    call.relayed(event, event)


def test_a_stream_that_grew_has_a_checkpoint_and_one_that_did_not_has_none() -> None:
    call = streaming()
    assert call.progress() is None
    show(call, delta("Hi"))
    first = call.progress()
    assert first.response.body.head == delta("Hi")
    assert 0 <= first.first_byte_us <= first.first_token_us <= first.elapsed_us
    assert call.progress() is None
    show(call, delta(" you"))
    assert call.progress().response.body.head == delta("Hi") + delta(" you")


def test_a_stream_has_a_checkpoint_so_long_after_its_first_byte_or_after_the_last() -> None:
    call = streaming()
    call._began_ns -= 60 * 10**9  # it thought for a minute
    call.answered(200, EVENTS, edited=False)
    show(call, delta("Hi"))
    assert call.progress(after_s=60) is None
    call._began_ns -= 60 * 10**9
    assert call.progress(after_s=60) is not None
    show(call, delta(" you"))
    assert call.progress(after_s=60) is None
    call._began_ns -= 60 * 10**9
    assert call.progress(after_s=60) is not None


async def test_there_is_no_checkpoint_while_the_last_one_waits() -> None:
    call = streaming()
    show(call, delta("Hi"))
    call.checkpoint = asyncio.get_running_loop().create_future()
    assert call.progress() is None
    call.checkpoint.set_result(None)
    assert call.progress() is not None


def test_what_is_no_stream_or_not_answered_or_over_has_no_checkpoint() -> None:
    silent = a_call()
    assert silent.progress() is None
    plain = a_call()
    plain.answered(200, JSON, edited=False)
    show(plain, ANSWER)
    assert plain.progress() is None
    over = streaming()
    show(over, delta("Hi"))
    over.finish(COMPLETE)
    assert over.progress() is None


def test_a_checkpoint_that_has_no_room_is_left_out_and_the_next_one_is_made() -> None:
    budget = Budget(3000)
    call = streaming(budget)
    show(call, b"x" * 2000)
    assert call.progress() is None
    budget.limit_bytes = 30_000
    checkpoint = call.progress()
    assert checkpoint.held_bytes == 2000
    assert budget.used_bytes == len(QUESTION) + 2000 + 2000


def test_a_stream_past_its_cap_is_not_saved_again_and_again() -> None:
    call = streaming(body_bytes=1000)
    show(call, b"x" * 2000)
    assert call.progress() is not None
    show(call, b"y" * 2000)
    assert call.progress() is None


def test_what_a_record_holds_is_what_its_call_took() -> None:
    budget = Budget(8 << 20)
    call = streaming(budget, body_bytes=1000)
    show(call, b"x" * 5000)
    checkpoint = call.progress()
    end = call.finish(COMPLETE)
    assert checkpoint.held_bytes + end.held_bytes == budget.used_bytes


def test_calls_that_begin_at_once_have_spans_with_ids_of_their_own() -> None:
    starts = [a_call().start for _ in range(2000)]
    assert len({start.span_id for start in starts}) == len(starts)
    assert {len(start.span_id) for start in starts} == {8}
    assert sorted(starts, key=lambda start: start.span_id[:4]) == starts


# Where it is recorded.


def test_a_call_is_where_it_says_until_its_record_says_better() -> None:
    trace = b"t" * 16
    joining = Joining(trace_id=trace, parent_id=b"p" * 8)
    call = a_call(joining=joining, session="s", source="helicone")
    assert (call.start.joins, call.start.parent_id) == (trace, b"p" * 8)
    assert call.joins_others
    assert call.place == Taken(trace, "s", "helicone")
    # One that names its session may stay out of the trace.
    call = a_call(joining=joining, session="s")
    assert call.place == Taken(call.start.trace_id, "s", "header")
    assert not a_call().joins_others


async def test_a_call_learns_from_its_ticket_where_it_is() -> None:
    call = a_call(joining=Joining(trace_id=b"t" * 16))
    tickets = [asyncio.get_running_loop().create_future() for _ in range(4)]
    call.recorded(tickets[0])
    tickets[1].cancel()
    call.recorded(tickets[1])
    assert call.place == Taken(b"t" * 16, None, None)
    tickets[2].set_result(Taken(b"u" * 16, "s", "api"))
    call.recorded(tickets[2])
    assert call.place == Taken(b"u" * 16, "s", "api")
    tickets[3].set_result(None)
    call.recorded(tickets[3])
    assert call.place == Taken(call.start.trace_id, None, None)
