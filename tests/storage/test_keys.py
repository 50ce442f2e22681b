"""The numbers that stand for sessions."""

from storage.keys import lone_key, session_key


def test_each_session_and_each_trace_without_one_has_a_number_of_its_own() -> None:
    numbers = [session_key(1, "a"), session_key(1, "b"), session_key(2, "a"), session_key(12, "")]
    numbers += [lone_key(1, b"a"), lone_key(2, b"a"), session_key(1, "é"), session_key(1, "2:")]
    assert len(set(numbers)) == len(numbers)


def test_a_number_fits_a_column_of_64_bits_and_never_changes() -> None:
    assert all(-(2**63) <= session_key(1, str(n)) < 2**63 for n in range(100))
    # It is stored: another would lose every session's messages.
    assert session_key(1, "s") == 1525404460156983207
    assert lone_key(1, bytes(16)) == 6367252717561987275
