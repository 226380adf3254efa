"""Producers: what stands in the clear, sequences without gaps, operations, threads, kills."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.audit.producer import ALICE, CATALOGUE, SHOP, TENANT
from tests.client.audit_server import AuditDouble, key_file, producer, served
from tests.client.spools import left_on_disk
from tlog.audit import Catalogue, Event, EventRefused, open_event
from tlog.client import Declined, Producer, Recorded, SpoolError, SpoolFull, StateError
from tlog.notes import Algorithm, Signer, save_signer


class Taker:
    """A sink that verifies and keeps, or blocks."""

    def __init__(self, catalogue: Catalogue = CATALOGUE) -> None:
        self.catalogue = catalogue
        self.events: list[Event] = []
        self.open = threading.Event()
        self.open.set()

    def deliver(self, events: Any) -> list[Recorded | Declined]:
        self.open.wait()
        start = len(self.events)
        self.events += [
            open_event(event, SHOP.vkey, tenant=TENANT, catalogue=self.catalogue)
            for event in events
        ]
        return [Recorded(index) for index in range(start, len(self.events))]

    def close(self) -> None:
        self.open.set()


RECEIVED: dict[str, Any] = {"request_id": "R-1", "request_type": "delete", "channel": "webform"}
READ: dict[str, Any] = {"purpose": "support"}
EAST = timezone(timedelta(hours=10))


class Vague(tzinfo):
    """A time zone that does not know its offset: such a datetime is a naive one."""

    def utcoffset(self, dt: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


def disclosed(part: Any) -> dict[str, Any]:
    return {each.name: each.value for each in part}


@pytest.fixture
def taker() -> Taker:
    return Taker()


def test_what_is_not_declared_public_is_personal(tmp_path: Path, taker: Taker) -> None:
    when = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    with producer(taker, tmp_path) as shop:
        kept = shop.record(
            "request.received",
            subject={"id": ALICE, "name": "Alice"},
            subjects=["bob@example.com"],
            occurred_at=when,
            **RECEIVED,
            actor={"ip": "192.0.2.1"},
            favourite_colour="green",
            denial_basis="other",  # public in another type, not in this one
        )
        assert shop.flush(10)
    (event,) = taker.events
    assert (kept.seq, event.seq) == (1, 1)
    assert event.claims["event_id"] == kept.event_id
    assert event.occurred_at == when
    assert disclosed(event.shared) == {
        "actor": {"ip": "192.0.2.1"},
        "favourite_colour": "green",
        "denial_basis": "other",
    }
    assert [disclosed(part) for part in event.subjects] == [
        {"id": ALICE, "name": "Alice"},
        {"id": "bob@example.com"},
    ]
    assert RECEIVED.items() <= event.claims.items()
    signed = event.jws.payload()
    assert not [word for word in (b"lice", b"bob", b"192", b"green", b"colour") if word in signed]


def test_the_hour_that_comes_twice(tmp_path: Path, taker: Taker) -> None:
    """Two times an hour apart are equal to Python when clocks of their zone show the same."""
    first = datetime(2026, 11, 1, 1, 30, tzinfo=ZoneInfo("America/Los_Angeles"))
    with producer(taker, tmp_path) as made:
        for when in (first, first.replace(fold=1)):
            made.record("access.read", occurred_at=when, **READ)
        assert made.flush(10)
    assert [event.occurred_at.hour for event in taker.events] == [8, 9]


def test_what_waits_in_the_spool_when_its_type_gets_a_new_version_is_taken(tmp_path: Path) -> None:
    block = '[[types."order.placed"]]\nretention = "access"\n'
    before = CATALOGUE.extended(f"version = 1\n{block}")
    after = CATALOGUE.extended(f'version = 1\n{block}{block}version = 2\nrequired = ["purpose"]')
    with producer("127.0.0.1:1", tmp_path, catalogue=before) as shop:
        shop.record("order.placed")
    taker = Taker(after)
    with producer(taker, tmp_path, catalogue=after) as shop:
        shop.record("order.placed", **READ)
        with pytest.raises(EventRefused, match=r"order\.placed requires it"):
            shop.record("order.placed")
        assert shop.flush(10)
    versions = [(event.seq, event.claims["schema_version"]) for event in taker.events]
    assert versions == [(1, 1), (2, 2)]


def test_decoys_for_all_that_it_records(tmp_path: Path, taker: Taker) -> None:
    with producer(taker, tmp_path, decoys=4) as shop:
        shop.record("access.read", subject=ALICE, **READ)
        with shop.operation("access.read", subject={"id": ALICE, "name": "Alice"}, **READ):
            pass
        shop.record("access.read", **READ, actor="eve", details={"a": 1})
        assert shop.flush(10)
    shapes = [
        [len(part["_sd"]) for part in (event.claims, *event.claims.get("subjects", []))]
        for event in taker.events
    ]
    assert shapes == [[4, 4], [4, 4], [4]]
    assert [disclosed(event.shared) for event in taker.events] == [
        {},
        {},
        {"actor": "eve", "details": {"a": 1}},
    ]
    with pytest.raises(EventRefused, match="decoys"):
        producer(taker, tmp_path, decoys=33)


@pytest.mark.parametrize(
    ("type_name", "claims", "field"),
    [
        ("request.recieved", RECEIVED, "type"),
        ("request.received", RECEIVED, "subjects"),
        ("request.received", {"subject": ALICE, "request_id": "R-1"}, "channel"),
        ("access.read", {"purpose": f"asked by {ALICE}"}, "purpose"),
        ("access.read", {"purpose": 7}, "purpose"),
        ("access.read", READ | {"tenant": "other"}, "tenant"),
        ("access.read", READ | {"type": "access.search"}, "type"),
        ("access.read", READ | {"producer_seq": 7}, "producer_seq"),
        ("access.read", READ | {"schema_version": 2}, "schema_version"),
        ("access.read", READ | {"details": object()}, ""),
        ("access.read", READ | {"details": float("nan")}, ""),
        ("access.read", READ | {"occurred_at": datetime(2026, 1, 1)}, "occurred_at"),
        (
            "access.read",
            READ | {"occurred_at": datetime(2026, 1, 1, tzinfo=Vague())},
            "occurred_at",
        ),
        ("access.read", READ | {"occurred_at": datetime(1, 1, 1, tzinfo=EAST)}, "occurred_at"),
        ("access.read", READ | {"occurred_at": "2026-01-01T00:00:00Z"}, "occurred_at"),
        ("access.read", READ | {"event_id": "7"}, "event_id"),
        ("access.read", READ | {"subject": {"name": "Alice"}}, "subjects[0].id"),
        ("access.read", READ | {"details": "x" * 70_000}, "disclosures[0]"),
    ],
)
def test_refused_at_the_call_and_no_number_is_missing(
    tmp_path: Path, taker: Taker, type_name: str, claims: dict[str, Any], field: str
) -> None:
    with producer(taker, tmp_path) as shop:
        before = [file.read_bytes() for file in sorted((tmp_path / "spool").iterdir())]
        with pytest.raises(EventRefused) as refused:
            shop.record(type_name, **claims)
        assert refused.value.field == field
        assert [file.read_bytes() for file in sorted((tmp_path / "spool").iterdir())] == before
        assert shop.record("access.read", **READ).seq == 1


def test_sequence_goes_on_after_a_restart(tmp_path: Path, taker: Taker) -> None:
    for start in (1, 3, 5):
        with producer(taker, tmp_path) as shop:
            assert [shop.record("access.read", **READ).seq for _ in range(2)] == [start, start + 1]
            assert shop.flush(10)
            shop.spool.tidy()
    assert [event.seq for event in taker.events] == [1, 2, 3, 4, 5, 6]


def test_a_spool_is_for_one_producer(tmp_path: Path, taker: Taker) -> None:
    with (
        producer(taker, tmp_path),
        pytest.raises(StateError, match="a producer and a spool of its own"),
    ):
        producer(taker, tmp_path)
    with pytest.raises(SpoolError, match="is that of acme/shop: give beta/shop another"):
        producer(taker, tmp_path, tenant="beta")
    path = tmp_path / "post-quantum.key"
    save_signer(path, Signer.generate("shop", Algorithm.MLDSA44), passphrase=None)
    with pytest.raises(SpoolError, match="signed with Ed25519"):
        producer(taker, tmp_path, key=path)


def test_threads(tmp_path: Path, taker: Taker) -> None:
    made: list[tuple[int, str]] = []

    def run(shop: Producer) -> None:
        for _ in range(25):
            kept = shop.record("access.read", **READ)
            made.append((kept.seq, kept.event_id))

    with producer(taker, tmp_path) as shop:
        threads = [threading.Thread(target=run, args=(shop,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shop.flush(20)
    got = [(event.seq, event.claims["event_id"]) for event in taker.events]
    assert got == sorted(made)
    assert [seq for seq, _ in got] == list(range(1, 151))


def test_a_child_of_a_fork_is_told(tmp_path: Path, taker: Taker) -> None:
    def told(call: Any) -> bool:
        try:
            call()
        except SpoolError as error:
            return "fork" in str(error)
        return False

    with producer(taker, tmp_path) as shop:
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with shop.spool._changed:
                held.set()
                done.wait()

        # Another thread is recording at that moment: in the child, its lock is never let go.
        other = threading.Thread(target=hold)
        other.start()
        held.wait()
        child = os.fork()
        if not child:
            threading.Timer(10, os._exit, [3]).start()
            calls = [
                lambda: shop.record("access.read", **READ),
                lambda: shop.operation("access.read", **READ).__enter__(),
                shop.flush,
            ]
            worked = [told(call) for call in calls]
            shop.close()
            os._exit(42 if all(worked) else 2)
        done.set()
        other.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
        assert shop.record("access.read", **READ).seq == 1


def test_operation_and_its_outcomes(tmp_path: Path, taker: Taker) -> None:
    with producer(taker, tmp_path) as shop:
        with shop.operation("access.read", subject=ALICE, **READ) as operation:
            operation.claims["count"] = 3
            operation.subjects.append("bob@example.com")
            assert not taker.events
        with shop.operation("access.read", **READ) as operation:
            operation.outcome = "partial"
        for error in (KeyError(ALICE), PermissionError("no"), KeyboardInterrupt()):
            with (
                pytest.raises(type(error)) as raised,
                shop.operation("access.read", **READ, details={"query": "q"}),
            ):
                raise error
            assert raised.value is error
        with (
            pytest.raises(EventRefused, match="catalogue"),
            shop.operation("access.raed", **READ),
        ):
            pytest.fail("it was entered")
        assert shop.flush(10)
    outcomes = [event.claims["outcome"] for event in taker.events]
    assert outcomes == ["success", "partial", "failure", "denied", "unknown"]
    assert taker.events[0].claims["count"] == 3
    assert taker.events[0].subject_ids() == [ALICE, "bob@example.com"]
    details = [disclosed(event.shared).get("details") for event in taker.events[2:]]
    assert [each["error"] for each in details if each] == [
        "KeyError",
        "PermissionError",
        "KeyboardInterrupt",
    ]
    assert all(each and each["query"] == "q" for each in details)


def test_an_operation_that_cannot_be_recorded(tmp_path: Path, taker: Taker) -> None:
    shop = producer(taker, tmp_path)
    with pytest.raises(EventRefused) as refused, shop.operation("access.read"):
        raise KeyError("the block's own")
    assert isinstance(refused.value.__context__, KeyError)
    shop.close()
    with pytest.raises(SpoolError, match="closed"), shop.operation("access.read", **READ):
        pytest.fail("it was entered")


def test_a_full_spool_says_so(tmp_path: Path, taker: Taker) -> None:
    taker.open.clear()
    with producer(taker, tmp_path, max_bytes=4 << 20) as shop:
        kept = 0
        with pytest.raises(SpoolFull, match="Bring the server back"):
            while True:
                kept = shop.record("access.read", **READ, details="x" * 40_000).seq
        with pytest.raises(SpoolFull), shop.operation("access.read", **READ):
            for _ in range(10):
                shop.record("access.read", **READ, details="x" * 5000)
        taker.open.set()
        assert shop.flush(20)
        again = shop.record("access.read", **READ)
        assert shop.flush(20)
    assert again.seq > kept > 50
    assert [event.seq for event in taker.events] == list(range(1, again.seq + 1))


def test_decorator(tmp_path: Path, taker: Taker) -> None:
    with producer(taker, tmp_path) as shop:

        @shop.recorded("access.read", subject=lambda who, **_: who, **READ)
        def show(who: str, *, fail: bool = False) -> str:
            if fail:
                raise ValueError(who)
            return who.upper()

        assert show(ALICE) == ALICE.upper()
        assert show.__name__ == "show"
        with pytest.raises(ValueError, match=ALICE):
            show(ALICE, fail=True)

        with pytest.raises(TypeError, match="generator"):

            @shop.recorded("access.read", **READ)
            def pages() -> Any:
                yield 1

        assert shop.flush(10)
    assert [event.claims["outcome"] for event in taker.events] == ["success", "failure"]
    assert [event.subject_ids() for event in taker.events] == [[ALICE], [ALICE]]


def test_what_is_yet_to_run_is_no_success(tmp_path: Path, taker: Taker) -> None:
    async def denied() -> None:
        raise PermissionError

    def wrapped() -> Any:  # as many decorators do
        return denied()

    def pages() -> Any:
        return (number for number in range(3))

    with producer(taker, tmp_path) as shop:
        for later in (wrapped, pages):
            with pytest.raises(TypeError, match="yet to run"):
                shop.recorded("access.read", **READ)(later)()
        assert shop.flush(10)
    assert [event.claims["outcome"] for event in taker.events] == ["failure"] * 2


async def test_coroutines_do_not_block_the_loop(
    tmp_path: Path, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdatasync
    loop_thread = threading.get_ident()
    syncing: list[int] = []

    def sync(handle: int) -> None:
        syncing.append(threading.get_ident())
        real(handle)

    monkeypatch.setattr(os, "fdatasync", sync)
    with producer(taker, tmp_path) as shop:

        @shop.recorded("access.read", **READ)
        async def show(seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

        assert await show(0) == 0
        async with shop.operation("access.read", **READ) as operation:
            operation.outcome = "partial"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await show(60)
        await asyncio.to_thread(shop.flush, 10)
    assert [event.claims["outcome"] for event in taker.events] == ["success", "partial", "unknown"]
    assert syncing
    assert loop_thread not in syncing


def test_over_grpc(tmp_path: Path) -> None:
    double = AuditDouble()
    with served(double) as target, producer(target, tmp_path) as shop:
        shop.record("request.received", subject=ALICE, **RECEIVED)
        assert shop.flush(10)
        assert double.seqs() == [1]
        assert double.events[0].subject_ids() == [ALICE]
        assert not shop.problem


APPLICATION = """
import sys
from tlog.client import Producer
shop = Producer(sys.argv[1], key=sys.argv[2], tenant="acme", spool=sys.argv[3])
while True:
    kept = shop.record("access.read", subject="alice@example.com", purpose="support")
    print(kept.seq, flush=True)
"""


def test_kill_of_the_application_loses_nothing(tmp_path: Path) -> None:
    """With a server that comes and goes: all that was recorded comes, once each, without a gap."""
    double = AuditDouble()
    key = key_file(tmp_path)
    answered = 0
    port = 0
    for round_ in range(4):
        with served(double, port) as target:
            port = int(target.rpartition(":")[2])
        command = [sys.executable, "-c", APPLICATION, target, str(key), str(tmp_path / "spool")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as application:
            assert application.stdout is not None
            lines = [application.stdout.readline()]
            if round_ % 2:
                time.sleep(random.uniform(0, 0.1))
            else:
                with served(double, port):
                    time.sleep(random.uniform(0, 0.2))
            application.send_signal(signal.SIGKILL)
            lines += application.stdout.read().splitlines(True)
        answered = max([answered, *(int(line) for line in lines if line.endswith("\n"))])
    with served(double, port) as target, producer(target, tmp_path) as shop:
        assert shop.flush(30)
        last = shop.spool.next_number - 1
    assert left_on_disk(tmp_path / "spool") == set()
    assert last >= answered > 4
    assert double.seqs() == list(range(1, last + 1))
