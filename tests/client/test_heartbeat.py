"""Heartbeats: only in silence, through the spool, and no thread is left behind."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.client.audit_server import AuditDouble, producer, served, until
from tlog.client import Producer, SpoolError, SpoolFull
from tlog.client.heartbeat import Heartbeat

READ: dict[str, Any] = {"purpose": "support"}
SECONDS = 0.05


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "tlog-heartbeat"]


def waiting(shop: Producer) -> int:
    return shop.spool.waiting


def test_a_beat_comes_in_silence_only() -> None:
    noted = time.monotonic()
    beats: list[float] = []
    heart = Heartbeat(lambda: beats.append(time.monotonic() - noted), SECONDS)
    for _ in range(20):
        time.sleep(random.uniform(0, SECONDS / 2))
        heart.note()
        noted = time.monotonic()
    until(lambda: len(beats) > 2)
    assert all(silence >= SECONDS for silence in beats), beats
    heart.close()
    heart.close()
    assert not threads()
    count = len(beats)
    time.sleep(2 * SECONDS)
    assert len(beats) == count


def test_it_is_recorded_through_outage_and_restart(tmp_path: Path) -> None:
    double = AuditDouble()
    with producer("127.0.0.1:1", tmp_path, heartbeat=SECONDS) as shop:
        assert shop.record("access.read", **READ).seq == 1
        until(lambda: waiting(shop) > 3)
    assert not threads()
    with served(double) as target:
        with producer(target, tmp_path) as shop:
            last = shop.record("access.read", **READ).seq
            assert shop.flush(20)
        assert not threads()
        with producer(target, tmp_path, heartbeat=SECONDS) as shop:
            until(lambda: len(double.events) > last + 1)
    assert double.seqs() == list(range(1, len(double.events) + 1))
    kinds = [(event.type.name, event.claims.get("interval_seconds")) for event in double.events]
    beat, read = ("log.heartbeat", 1), ("access.read", None)
    assert kinds == [
        read,
        *[beat] * (last - 2),
        read,
        *[beat] * (len(kinds) - last),
    ]


def test_what_room_is_left_is_for_what_happened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with producer("127.0.0.1:1", tmp_path, max_bytes=4 << 20, heartbeat=SECONDS) as shop:
        while shop.spool.used_bytes <= shop.spool.max_bytes // 2:
            shop.record("access.read", **READ, details="x" * 40_000)
        heart = shop._heartbeat
        assert heart is not None
        until(lambda: "what room is left is for others" in heart._problem)
        before = shop.spool.next_number
        time.sleep(3 * SECONDS)
        assert shop.spool.next_number == before
        with pytest.raises(SpoolFull):
            while True:
                shop.record("access.read", **READ, details="x" * 40_000)
    told = [each.getMessage() for each in caplog.records if each.name.endswith(".heartbeat")]
    assert len(told) == 1
    assert told[0].startswith("no heartbeat: ")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 86_401])
def test_what_is_no_interval_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(SpoolError, match="above 0"):
        producer("127.0.0.1:1", tmp_path, heartbeat=seconds)
    assert not (tmp_path / "spool").exists()
    assert not threads()
