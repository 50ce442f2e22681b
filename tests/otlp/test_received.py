"""What makes an id one, and a number finite."""

import pytest

from proxy.otlp.received import finite, id_of, parent_of


def test_an_id_has_its_size_and_is_not_zero() -> None:
    assert id_of(b"12345678", 8, "span id") == b"12345678"
    for wrong in (b"", b"1234567", bytes(8)):
        with pytest.raises(ValueError, match="a span id must have 8 bytes"):
            id_of(wrong, 8, "span id")


def test_no_parent_and_a_parent_of_zeros_are_a_root() -> None:
    assert parent_of(b"") is None
    assert parent_of(bytes(8)) is None
    assert parent_of(b"12345678") == b"12345678"


def test_what_is_no_number_becomes_a_word() -> None:
    assert finite(0.5) == 0.5
    assert finite(float("inf")) == "inf"
