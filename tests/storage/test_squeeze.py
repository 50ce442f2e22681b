"""Headers and envelopes, squeezed: smaller in the file, and the same when they are read."""

import hashlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from storage.database import DatabaseCorrupt
from storage.squeeze import _DICTIONARY, MARK, expand, expanded_size, squeeze

HEADERS = (
    b'[["Host","127.0.0.1:3000"],["Accept-Encoding","gzip, deflate"],["Connection","keep-alive"],'
    b'["Accept","application/json"],["User-Agent","OpenAI/Python 3.55.1"],["X-Mine","yes"]]'
)


@given(st.binary(max_size=2000))
def test_what_is_squeezed_expands_to_what_it_was(data: bytes) -> None:
    assert expand(squeeze(data)) == data


def test_bytes_that_begin_like_squeezed_ones_expand_to_themselves() -> None:
    assert expand(squeeze(MARK + b"no frame")) == MARK + b"no frame"


def test_the_headers_of_a_common_client_are_left_at_a_third() -> None:
    assert len(squeeze(HEADERS)) < len(HEADERS) / 3


def test_what_does_not_get_smaller_is_kept_as_it_is() -> None:
    assert squeeze(b"[]") == b"[]"


def test_the_dictionary_is_the_one_with_which_databases_were_written() -> None:
    # Another can only be added, with a mark of its own: what is stored needs this one.
    digest = hashlib.sha256(_DICTIONARY.as_bytes()).hexdigest()
    assert digest == "b813e6f4de96269f6b710c69215f6fa79e4f9b6b66411e4bc54f85bc6137bb08"


def test_a_damaged_value_is_told_from_an_intact_one() -> None:
    with pytest.raises(DatabaseCorrupt, match="does not expand"):
        expand(squeeze(HEADERS)[:-1])


def test_a_value_that_claims_to_be_huge_is_refused_before_it_is_expanded() -> None:
    bomb = zstandard.ZstdCompressor(level=1, dict_data=_DICTIONARY).compress(bytes(2 * 1024 * 1024))
    for read in (expand, expanded_size):
        with pytest.raises(DatabaseCorrupt, match="larger than any"):
            read(bomb)


@given(st.binary(max_size=2000))
def test_how_large_it_is_is_known_before_it_is_expanded(data: bytes) -> None:
    assert expanded_size(squeeze(data)) == len(data)


def test_what_does_not_say_how_large_it_is_is_damaged() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1000)
    for read in (expand, expanded_size):
        for data in (frame, MARK):
            with pytest.raises(DatabaseCorrupt, match="does not expand"):
                read(data)
