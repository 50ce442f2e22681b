"""Addresses of databases: what is told of them, and that no password is."""

import pytest

from storage.database import StorageError
from storage.postgres_address import address_of, is_address


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:secret@h:5432/db", "postgresql://u@h:5432/db"),
        ("postgres://u:se%40cret@[::1]/db?sslmode=require", "postgresql://u@[::1]/db"),
        ("postgresql://h/db?password=secret&user=u", "postgresql://h/db"),
        ("postgresql:///db?host=/run/pg", "postgresql:///db?host=/run/pg"),
        ("postgresql://u:secret@/db?host=/run/pg", "postgresql://u@/db?host=/run/pg"),
    ],
)
def test_what_is_shown_of_an_address_has_no_password(url: str, place: str) -> None:
    address = address_of(url)
    assert (address.url, address.place) == (url, place)
    assert "secret" not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "mysql://u:secret@h/db",
            "postgresql://u:1@secret/x@h/db",
            "postgresql://u:s#secret@h/db",
        ),
        *("postgresql://u:secret?@h/db", "postgresql://u@h:secret/db", "postgresql://[secret/db"),
    ],
)
def test_what_is_no_address_is_not_repeated(url: str) -> None:
    with pytest.raises(StorageError) as told:
        address_of(url)
    assert "secret" not in str(told.value)
    assert told.value.__cause__ is None


def test_a_path_is_no_address() -> None:
    assert is_address("postgresql://h/db")
    assert is_address("postgres://h/db")
    assert not is_address("postgresql.db")
    assert not is_address("/data/postgres://x")
