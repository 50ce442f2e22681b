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
