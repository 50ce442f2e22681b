"""What recording lost: counted for ever, said for a while, logged at most once a minute."""

import logging

import pytest

from proxy import losses
from proxy.losses import Counters, Losses


def test_a_loss_is_counted_and_recent_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Losses()
    assert not lost.are_recent
    lost.add(bodies=2)
    lost.add(records=1, unreadable=1)
    assert lost.are_recent
    monkeypatch.setattr(losses, "DEGRADED_S", 0.0)
    assert not lost.are_recent
    assert lost.counters == Counters(dropped_bodies=2, dropped_records=1, unreadable_records=1)


def test_a_second_complaint_within_a_minute_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost = Losses()
    with caplog.at_level(logging.ERROR, logger="traceway"):
        lost.complain("the disk is full")
        lost.complain("the disk is full")
        assert len(caplog.records) == 1
        monkeypatch.setattr(losses, "LOG_EVERY_S", 0.0)
        lost.complain("the disk is still full", OSError("no space"))
    assert [record.message for record in caplog.records] == [
        f"the disk is full ({lost.counters})",
        f"the disk is still full ({lost.counters})",
    ]


def test_a_commit_that_is_tried_again_is_complained_of_and_one_that_is_refused_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = Losses()
    lost.failed(OSError("refused"), is_final=True)
    assert caplog.records == []
    lost.failed(OSError("away"), is_final=False)
    assert "recording waits for the database: away" in caplog.text
    assert lost.counters.failed_commits == 2
    assert not lost.are_recent
