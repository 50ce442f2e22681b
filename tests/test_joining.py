"""Which trace a call names: our headers exactly or not at all, `traceparent` where it is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.joining import NOWHERE, BadTrace, Joining, resolve, traceparent

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
UUID = b"4bf92f35-77b3-4da6-a3ce-929d0e0e4736"
IDS = (bytes.fromhex(TRACE.decode()), bytes.fromhex(SPAN.decode()))

ours = st.sampled_from([TRACE, SPAN, UUID, b"", b"0", b"-", b" ", b"\xff", b"F", b"\t"])
pieces = st.sampled_from([TRACE, SPAN, b"00", b"01", b"ff", b"-", b"0" * 16, b" ", b"\xff", b"g"])


def asked(trace: bytes | None = None, parent: bytes | None = None) -> Joining:
    given = {b"x-traceway-trace-id": trace, b"x-traceway-parent-span-id": parent}
    return resolve({name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize("trace", [TRACE, TRACE.upper(), UUID, UUID.upper(), b" %b\t" % TRACE])
def test_a_trace_is_named_by_32_digits_or_as_a_uuid(trace: bytes) -> None:
    assert asked(trace) == Joining(trace_id=IDS[0])
    assert asked(trace, SPAN) == Joining(trace_id=IDS[0], parent_id=IDS[1])
    assert asked(trace).names_a_trace


@pytest.mark.parametrize(
    "trace",
    [
        *(TRACE[:-1], TRACE + b"0", b"0" * 32, b"g" * 32, b"0x" + TRACE[2:], TRACE + b"\n"),
        *(b"00000000-0000-0000-0000-000000000000", UUID[:-1], UUID.replace(b"-", b"", 1)),
        *(b"{%b}" % UUID, b"4bf9-" + UUID[5:], b"\xff" * 32, TRACE + b"," + TRACE, b"null"),
    ],
)
def test_a_trace_that_is_none_is_refused_and_the_message_says_what_one_is(trace: bytes) -> None:
    with pytest.raises(BadTrace, match="X-Traceway-Trace-Id is 32 hexadecimal digits"):
        asked(trace)


@pytest.mark.parametrize("span", [SPAN[:-1], SPAN + b"0", b"0" * 16, b"g" * 16, b"\xff" * 16, b"-"])
def test_a_parent_that_is_no_span_is_refused(span: bytes) -> None:
    with pytest.raises(BadTrace, match="X-Traceway-Parent-Span-Id is 16 hexadecimal digits"):
        asked(TRACE, span)


@pytest.mark.parametrize("trace", [None, b"", b" "])
def test_a_parent_without_its_trace_is_refused(trace: bytes | None) -> None:
    with pytest.raises(BadTrace, match="send X-Traceway-Trace-Id with it"):
        asked(trace, SPAN)


def test_who_sends_nothing_or_something_empty_joins_nothing() -> None:
    assert asked() is NOWHERE
    assert asked(b"") == asked(b" ", b"") == NOWHERE
    assert not NOWHERE.names_a_trace
    assert asked(TRACE, b"") == Joining(trace_id=IDS[0])


@given(st.lists(ours, max_size=4).map(b"".join), st.none() | st.lists(ours).map(b"".join))
def test_whatever_our_headers_say_it_is_two_ids_or_refused(
    trace: bytes, parent: bytes | None
) -> None:
    try:
        found = asked(trace, parent)
    except BadTrace:
        return
    for said, read in ((trace, found.trace_id), (parent or b"", found.parent_id)):
        plain = said.strip(b" \t").replace(b"-", b"").lower().decode()
        assert plain == (b"" if read is None else read).hex()
    assert found.parent_id is None or found.trace_id is not None


def test_a_traceparent_names_the_trace_of_the_caller() -> None:
    assert traceparent(b"00-%b-%b-01" % (TRACE, SPAN)) == IDS
    assert traceparent(b" 00-%b-%b-00\t" % (TRACE, SPAN)) == IDS
    # A version to come may have more fields, and is read as far as we know it.
    assert traceparent(b"01-%b-%b-01-more" % (TRACE, SPAN)) == IDS
    assert traceparent(b"cc-%b-%b-01" % (TRACE, SPAN)) == IDS
    found = resolve({b"traceparent": b"00-%b-%b-01" % (TRACE, SPAN)})
    assert found == Joining(external_trace_id=IDS[0], external_parent_id=IDS[1])
    assert found.names_a_trace


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"00", b"00-%b-%b" % (TRACE, SPAN), b"00-%b-%b-01" % (TRACE[:-1], SPAN)),
        *(b"00-%b-%b-01" % (TRACE, SPAN[:-1]), b"00-%b-%b-01" % (TRACE.upper(), SPAN)),
        *(b"00-%b-%b-01" % (b"g" * 32, SPAN), b"00-%b-%b-01" % (TRACE, b"\xff" * 16)),
        *(b"00-%b-%b-01" % (b"0" * 32, SPAN), b"00-%b-%b-01" % (TRACE, b"0" * 16)),
        *(b"ff-%b-%b-01" % (TRACE, SPAN), b"00-%b-%b-01-more" % (TRACE, SPAN)),
        *(b"0-%b-%b-01" % (TRACE, SPAN), b"00-%b-%b-1" % (TRACE, SPAN)),
        *(b"01-%b-%b-01more" % (TRACE, SPAN), b"00-%b-%b-01," % (TRACE, SPAN)),
    ],
)
def test_a_traceparent_that_is_none_is_left_out_whole(value: bytes) -> None:
    assert traceparent(value) == (None, None)
    assert resolve({b"traceparent": value}) == NOWHERE


@given(st.binary(max_size=80) | st.lists(pieces, max_size=9).map(b"".join))
def test_any_traceparent_gives_two_ids_or_none(value: bytes) -> None:
    trace, parent = traceparent(value)
    assert (trace is None) is (parent is None)
    if trace is not None and parent is not None:
        assert (len(trace), len(parent)) == (16, 8)
        assert any(trace)
        assert any(parent)
        assert b"-%b-%b-" % (trace.hex().encode(), parent.hex().encode()) in value
        assert not value.strip().startswith(b"ff")


def test_a_malformed_traceparent_does_not_spoil_our_headers() -> None:
    index = {b"x-traceway-trace-id": TRACE, b"traceparent": b"00-nothing"}
    assert resolve(index) == Joining(trace_id=IDS[0])
