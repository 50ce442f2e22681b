"""A target gives an upstream's name and the bytes behind it, and can name nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.target import PREFIX, BadTarget, proxied


@pytest.mark.parametrize(
    ("target", "upstream", "path", "query"),
    [
        (b"openai/v1/models", "openai", b"/v1/models", None),
        (b"openai/v1/models?", "openai", b"/v1/models", b""),
        (b"openai/v1/models?a=/../b", "openai", b"/v1/models", b"a=/../b"),
        (b"openai", "openai", b"", None),
        (b"openai?a=b", "openai", b"", b"a=b"),
        (b"openai/", "openai", b"/", None),
        (b"openai//x", "openai", b"//x", None),
        (b"openai/a%2Fb;c/...", "openai", b"/a%2Fb;c/...", None),
        (b"/x", "", b"/x", None),
        (b"a@b:80/x", "a@b:80", b"/x", None),
        (b"\xff/x", "\ufffd", b"/x", None),
    ],
)
def test_a_target_is_split_and_its_bytes_stay(
    target: bytes, upstream: str, path: bytes, query: bytes | None
) -> None:
    found = proxied(PREFIX + target)
    assert (found.upstream, found.path, found.query) == (upstream, path, query)


@pytest.mark.parametrize(
    "rest",
    [b"/..", b"/.", b"/a/../b", b"/%2e%2E", b"/a%2f..", b"/..%5c", b"/\\", b"/a#b", b"?a#b"],
)
def test_a_dot_segment_a_fragment_or_a_backslash_is_refused(rest: bytes) -> None:
    with pytest.raises(BadTarget):
        proxied(PREFIX + b"openai" + rest)


@given(st.binary(max_size=60))
def test_what_passes_is_put_together_from_the_bytes_that_came(rest: bytes) -> None:
    try:
        target = proxied(PREFIX + b"openai/" + rest)
    except BadTarget:
        return
    assert target.upstream == "openai"
    assert target.raw == b"/" + rest
    path = target.path.replace(b"\\", b"/")
    assert not any(segment in (b".", b"..") for segment in path.split(b"/"))
