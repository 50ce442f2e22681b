"""A call as a command: what a shell makes of it, for any body."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.ui.curl import command

URL = "http://127.0.0.1:3000/api/proxy/openai/v1/chat/completions"
BODY_URL = "http://127.0.0.1:3000/api/spans/00/request"


def words(body: bytes | None, *, keys_are_on: bool = False, **given: str) -> list[str]:
    """Give the words that a shell sees."""
    asked = {"method": "POST", "url": URL, "content_type": "application/json", **given}
    return shlex.split(
        command(body=body, body_url=BODY_URL, keys_are_on=keys_are_on, **asked).replace("\\\n", "")
    )


def test_it_makes_the_call_again_with_a_key_from_the_environment() -> None:
    assert words(b'{"a":"it\'s $HOME `x`"}') == [
        *("curl", URL, "-X", "POST", "-H", "Authorization: Bearer $OPENAI_API_KEY"),
        *("-H", "Content-Type: application/json"),
        *("--data-binary", '{"a":"it\'s $HOME `x`"}'),
    ]
    assert words(None)[-2:] == ["-H", "Content-Type: application/json"]


def test_with_keys_on_it_takes_ours_from_the_environment() -> None:
    own = "Authorization: Bearer $TRACEWAY_API_KEY"
    assert words(b"{}", keys_are_on=True)[4:6] == ["-H", own]
    assert "Authorization: Bearer $OPENAI_API_KEY" not in words(b"{}", keys_are_on=True)
    # The body needs one as well.
    assert words(b"\xff", keys_are_on=True)[:6] == ["curl", "-s", "-H", own, BODY_URL, "|"]


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1))
def test_any_text_is_one_word(text: str) -> None:
    if not text.startswith("@"):
        assert words(text.encode())[-2:] == ["--data-binary", text]
    assert words(b"x", content_type=text)[7] == f"Content-Type: {text}"


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a\0b", b"\x1b[201~rm -rf ~\n", b"@/etc/passwd"])
def test_a_body_that_cannot_be_pasted_is_fetched(body: bytes) -> None:
    found = words(body)
    assert found[:4] == ["curl", "-s", BODY_URL, "|"]
    assert found[-2:] == ["--data-binary", "@-"]


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
def test_no_control_character_reaches_the_terminal(method: str, url: str, kind: str) -> None:
    text = command(method, url, kind, b"x", BODY_URL, keys_are_on=True)
    assert not {c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)} - {"\t"}
