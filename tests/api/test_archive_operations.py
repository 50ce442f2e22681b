"""The operations of archives say of each what the server does."""

import pytest

from proxy.access import ADMIN, READ
from proxy.api.archive import DEFAULT_FORMAT, FORMATS, Archive
from proxy.api.archive_operations import OPERATIONS
from tests.running import Running


def test_who_reads_may_export_and_only_an_admin_imports() -> None:
    needs = {(one.method, one.need) for one in OPERATIONS}
    assert needs == {("GET", READ), ("POST", ADMIN)}


def test_the_archive_itself_is_what_one_gets_unasked() -> None:
    assert FORMATS[0] == DEFAULT_FORMAT == "jsonl"


async def test_formats_that_are_not_described_are_a_mistake_at_the_start(tw: Running) -> None:
    with pytest.raises(ValueError, match="not those that are described"):
        Archive(tw.database, tw.server.recorder, {})
