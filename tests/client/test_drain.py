"""The drain against servers that are away, slow, busy, wrong, or refuse."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.audit.producer import signer_of
from tests.client import audit_server as double_server
from tests.client.audit_server import AuditDouble, key_file, producer, served, until
from tests.client.spools import left_on_disk
from tlog.client import AuditServiceSink, Producer, Refusal, SpoolError, sealed, segments
from tlog.client import drain as drains
from tlog.v1 import audit_pb2 as pb

READ: dict[str, Any] = {"purpose": "support"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(drains, "TIDY_SECONDS", 0.05)


def hasty(target: str) -> AuditServiceSink:
    """It gives a delivery up soon: of one that is answered at once, or never."""
    return AuditServiceSink(target, timeout=1)


def record(shop: Producer, count: int = 1) -> None:
    for _ in range(count):
        shop.record("access.read", **READ)


@pytest.mark.parametrize("trick", ["away", "lost", "busy", "slow", "short", "empty"])
def test_each_event_comes_once_and_in_order(tmp_path: Path, trick: str) -> None:
    double = AuditDouble()
    double.tricks.extend([getattr(double_server, trick)] * 3)
    with served(double) as target, producer(target, tmp_path) as shop:
        record(shop, 20)
        assert shop.flush(20)
        record(shop, 2)
        assert shop.flush(20)
        until(lambda: not shop.problem)
    assert double.seqs() == list(range(1, 23))
    assert not double.tricks


def test_a_server_that_comes_and_goes(tmp_path: Path) -> None:
    double = AuditDouble()
    with served(double) as target:
        port = int(target.rpartition(":")[2])
    with producer(target, tmp_path) as shop:
        record(shop, 3)
        until(lambda: "nothing listens" in shop.problem)
        assert not shop.flush(0.01)
        for _ in range(2):
            with served(double, port):
                assert shop.flush(20)
                until(lambda: not shop.problem)
            record(shop, 3)
        assert shop.spool.waiting == 3
    with served(double, port) as target, producer(target, tmp_path) as shop:
        assert shop.flush(20)
    assert double.seqs() == list(range(1, 10))


def test_what_is_refused_is_set_aside_and_told(tmp_path: Path) -> None:
    double = AuditDouble()
    double.poisoned = {"log.heartbeat"}
    told: list[Refusal] = []
    with served(double) as target, producer(target, tmp_path, on_refused=told.append) as shop:
        for number in range(6):
            if number % 3 == 1:
                shop.record("log.heartbeat")
            else:
                record(shop)
        assert shop.flush(20)
        until(lambda: len(told) == 2)
    assert double.seqs() == [1, 3, 4, 6]
    assert [(each.seq, each.declined.field) for each in told] == [(2, "type"), (5, "type")]
    path = tmp_path / "spool" / "refused.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["seq"], line["reason"]) for line in lines] == [
        (2, "type: not here"),
        (5, "type: not here"),
    ]
    assert lines[0]["event"].endswith("~")
    assert path.stat().st_mode & 0o777 == 0o600


def test_each_is_told_in_the_log_even_if_the_application_fails_to_listen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def listen(refusal: Refusal) -> None:
        raise KeyError(refusal.seq)

    double = AuditDouble()
    double.poisoned = {"log.heartbeat"}
    with producer("127.0.0.1:1", tmp_path) as shop:
        for _ in range(3):
            shop.record("log.heartbeat")
        record(shop)
    with served(double) as target, producer(target, tmp_path, on_refused=listen) as shop:
        assert shop.flush(20)
    lines = [line for line in caplog.records if line.name == "tlog.client.drain"]
    told = [line.getMessage() for line in lines if line.levelno == logging.ERROR]
    kept = tmp_path / "spool" / "refused.jsonl"
    assert told == [f"event {seq} is refused: type: not here. It is in {kept}" for seq in (1, 2, 3)]
    assert double.seqs() == [4]


APPLICATION = """
import sys, time
from tlog.client import Producer
with Producer(sys.argv[1], key=sys.argv[2], tenant="acme", spool=sys.argv[3]) as shop:
    shop.record("log.heartbeat")
    while not shop.problem:
        time.sleep(0.01)
    print("its own")
"""


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("", True),
        ("import logging; logging.getLogger('tlog').addHandler(logging.NullHandler())", False),
        ("import logging; logging.getLogger('tlog').setLevel(logging.CRITICAL)", False),
    ],
)
def test_standard_output_is_the_applications(tmp_path: Path, setting: str, said: bool) -> None:
    """A pipe, or CGI, is spoiled by any line of ours; what becomes of them is for it to say."""
    key = key_file(tmp_path)
    with producer("127.0.0.1:1", tmp_path) as shop:
        record(shop)
    (torn,) = (tmp_path / "spool").glob("*.segment")
    with torn.open("ab") as file:
        file.write(b"torn")
    arguments = ["127.0.0.1:1", str(key), str(tmp_path / "spool")]
    command = [sys.executable, "-c", setting + APPLICATION, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "its own\n"
    for line in (f"{torn}: a torn tail of 4 bytes is cut\n", "2 events wait in the spool: "):
        assert (line in ran.stderr) == said


def test_a_producer_that_is_not_known_waits_until_it_is(tmp_path: Path) -> None:
    double = AuditDouble()
    double.registered = False
    with served(double) as target, producer(target, tmp_path) as shop:
        record(shop, 5)
        until(lambda: "register it first. The events wait in the spool" in shop.problem)
        assert not double.seqs()
        double.registered = True
        assert shop.flush(20)
    assert double.seqs() == [1, 2, 3, 4, 5]
    assert not (tmp_path / "spool" / "refused.jsonl").exists()


def test_what_an_old_key_signed_too_late_does_not_hold_back_the_new_one(tmp_path: Path) -> None:
    with producer("127.0.0.1:1", tmp_path) as shop:
        record(shop, 3)
    rotated = signer_of(seed=2)
    (tmp_path / "new").mkdir()
    key = key_file(tmp_path / "new", rotated)
    double = AuditDouble(rotated.vkey)
    with served(double) as target, producer(target, tmp_path, key=key) as shop:
        record(shop, 2)
        assert shop.flush(20)
    assert double.seqs() == [4, 5]
    lines = (tmp_path / "spool" / "refused.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]


def test_batches_that_are_too_large_are_halved(tmp_path: Path) -> None:
    double = AuditDouble()
    with producer("127.0.0.1:1", tmp_path) as shop:
        record(shop, 20)
    double.most = 3
    with served(double) as target, producer(target, tmp_path) as shop:
        assert shop.flush(20)
    assert double.seqs() == list(range(1, 21))
    assert double.calls[:4] == [20, 10, 5, 2]


def test_delivered_events_leave_the_disk(tmp_path: Path) -> None:
    double = AuditDouble()
    with served(double) as target, producer(target, tmp_path) as shop:
        shop.record("access.read", subject="alice@example.com", **READ)
        assert shop.flush(20)
        until(lambda: shop.spool.used_bytes == 0)
        assert left_on_disk(tmp_path / "spool") == set()
        assert shop.record("access.read", **READ).seq == 2
        assert shop.flush(20)


def test_they_leave_it_though_others_always_follow(tmp_path: Path) -> None:
    double = AuditDouble()
    with served(double) as target, producer(target, tmp_path) as shop:
        record(shop)

        def gone() -> bool:
            record(shop)
            return 1 not in left_on_disk(tmp_path / "spool")

        until(gone)


def test_they_leave_it_though_the_server_is_away_before_the_others_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drains, "BATCH_EVENTS", 2)
    double = AuditDouble()
    with producer("127.0.0.1:1", tmp_path) as shop:
        record(shop, 5)
    double.tricks.append(lambda double, request, _: double.take(request))
    double.tricks.extend([double_server.away] * 1000)
    with served(double) as target, producer(hasty(target), tmp_path) as shop:
        until(lambda: left_on_disk(tmp_path / "spool") == {3, 4, 5})
        double.tricks.clear()
        assert shop.flush(20)
    assert double.seqs() == [1, 2, 3, 4, 5]


def test_a_disk_that_is_full_stops_no_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server was away, and so the disk is full: what waits has no room for a copy of it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # As after a longest pause: it is time to tidy at each step.
    monkeypatch.setattr(drains, "TIDY_SECONDS", 0)
    monkeypatch.setattr(drains, "BATCH_EVENTS", 2)
    double = AuditDouble()
    with producer("127.0.0.1:1", tmp_path) as shop:
        record(shop, 9)
    with monkeypatch.context() as patch:
        patch.setattr(segments, "replace_file", full)
        double.tricks.append(lambda double, request, _: double.take(request))
        double.tricks.extend([double_server.away] * 1000)
        with served(double) as target:
            shop = producer(hasty(target), tmp_path)
            until(lambda: shop.spool.waiting == 7 and shop.problem)
            with pytest.raises(SpoolError, match="delivered records stay"):
                shop.close()
            assert left_on_disk(tmp_path / "spool") == set(range(1, 10))
            shop = producer(hasty(target), tmp_path)  # it opens, and records
            record(shop)
            until(lambda: "No space left on device: delivered records stay" in caplog.text)
            double.tricks.clear()
            assert shop.flush(20)
            until(lambda: not shop.problem)
            shop.close()
    told = [each.getMessage() for each in caplog.records if "stay in the" in each.getMessage()]
    assert len(told) == 2  # once by each of the two
    assert double.seqs() == list(range(1, 11))
    assert left_on_disk(tmp_path / "spool") == set()


def test_a_disk_without_a_byte_left_slows_no_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is delivered cannot even be written down: it may come again, and what waits goes."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(drains, "FIRST_PAUSE", 3600)
    monkeypatch.setattr(drains, "BATCH_EVENTS", 2)
    with producer("127.0.0.1:1", tmp_path) as shop:
        record(shop, 9)
    double = AuditDouble()
    hold = threading.Event()

    def held(_: AuditDouble, request: pb.RecordRequest, context: Any) -> pb.RecordResponse:
        assert hold.wait(60)
        return double.take(request)

    double.tricks.append(held)
    with served(double) as target, producer(target, tmp_path) as shop:
        with monkeypatch.context() as patch:
            patch.setattr(sealed, "replace_file", full)
            patch.setattr(segments, "replace_file", full)
            hold.set()
            assert shop.flush(20)
        until(lambda: "spool.json cannot be written: No space left" in caplog.text)
        assert not shop.problem
    assert double.seqs() == list(range(1, 10))
    assert left_on_disk(tmp_path / "spool") == set()


def test_nothing_delivered_is_left_by_one_that_closes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drains, "TIDY_SECONDS", 60)
    double = AuditDouble()
    with served(double) as target:
        with producer(target, tmp_path) as shop:
            until(lambda: shop._drain._tidy_at > 0)
            shop.record("access.read", subject="alice@example.com", **READ)
            assert shop.flush(20)
            assert left_on_disk(tmp_path / "spool") == {1}
        assert left_on_disk(tmp_path / "spool") == set()
        with producer(target, tmp_path) as shop:
            assert shop.record("access.read", **READ).seq == 2


def test_close_does_not_wait_for_a_server_that_hangs(tmp_path: Path) -> None:
    double = AuditDouble()
    hanging = threading.Event()

    def hang(_: AuditDouble, request: pb.RecordRequest, context: Any) -> pb.RecordResponse:
        assert hanging.wait(60)
        return double.take(request)

    double.tricks.append(hang)
    with served(double) as target:
        shop = producer(target, tmp_path)
        record(shop)
        until(lambda: double.calls)
        shop.close()
        hanging.set()
        with producer(target, tmp_path) as shop:
            assert shop.flush(20)
    assert double.seqs() == [1]
