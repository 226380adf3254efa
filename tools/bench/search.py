"""Searching a million records: how long the first page of each kind of query takes."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tlog.audit import Draft, default_catalogue, sign_event
from tlog.audit.intake import Recorded
from tlog.audit.reading import Access, Caller
from tlog.audit.records import Records
from tlog.audit.search import Query, search
from tlog.audit.verifying import Verifiers
from tlog.cli.serving import spare_collector
from tlog.notes import Algorithm, Signer
from tools.bench.records import TENANT, indexed, opened
from tools.bench.table import Row

BATCH = 1024
QUERIES = 40
PEOPLE, ACTORS, PRODUCERS = 50_000, 200, 8
OUTCOMES = ("success", "failure", "denied", "partial")
KINDS = ("customers", "orders", "invoices", "sessions")
SPAN = timedelta(days=6)
ACCESS = Access(Caller("bench", "local_user"), "a measurement")


def drafted(dice: random.Random, now: datetime) -> Draft:
    """One record in ten is of a request, the others are reads."""
    when = now - SPAN * dice.random()
    subject = [{"id": f"user{dice.randrange(PEOPLE)}@example.com"}]
    actor = {"id": f"agent{dice.randrange(ACTORS)}"}
    request = f"R-{dice.randrange(PEOPLE)}"
    if dice.random() < 0.1:
        public: dict[str, Any] = {"request_type": "delete", "channel": "webform"}
        kind = "request.received"
        return Draft(
            kind, public | {"request_id": request}, {"actor": actor}, subject, occurred_at=when
        )
    table = dice.choice(KINDS)
    public = {
        "purpose": "support",
        "resource_type": table,
        "outcome": dice.choices(OUTCOMES, (90, 5, 4, 1))[0],
        "request_id": request,
    }
    personal = {"actor": actor, "resource": f"{table}/{dice.randrange(PEOPLE)}"}
    return Draft("access.read", public, personal, subject, occurred_at=when)


def queries(now: datetime) -> dict[str, Callable[[random.Random], Query]]:
    """Each kind of query, with a value that chance picks."""

    def past(dice: random.Random) -> datetime:
        return now - SPAN * dice.random()

    return {
        "subject": lambda dice: Query(subject=f"user{dice.randrange(PEOPLE)}@example.com"),
        "actor": lambda dice: Query(actor=f"agent{dice.randrange(ACTORS)}"),
        "type": lambda dice: Query(types=(dice.choice(("access.read", "request.received")),)),
        "request": lambda dice: Query(request_id=f"R-{dice.randrange(PEOPLE)}"),
        "resource": lambda dice: Query(resource=f"{dice.choice(KINDS)}/{dice.randrange(PEOPLE)}"),
        "resource of a subject": lambda dice: Query(
            subject=f"user{dice.randrange(PEOPLE)}@example.com", resource=f"{dice.choice(KINDS)}/1"
        ),
        "resource type": lambda dice: Query(resource_type=dice.choice(KINDS)),
        "outcome": lambda dice: Query(outcome=dice.choice(OUTCOMES)),
        "producer": lambda dice: Query(producer=f"app{dice.randrange(PRODUCERS)}"),
        "time": lambda dice: Query(since=(at := past(dice)), until=at + timedelta(minutes=5)),
        "actor, outcome and time": lambda dice: Query(
            actor=f"agent{dice.randrange(ACTORS)}", outcome="denied", since=past(dice)
        ),
        "type and outcome, never together": lambda dice: Query(
            types=("request.received",), outcome=dice.choice(OUTCOMES)
        ),
        "type and resource type, never together": lambda dice: Query(
            types=("request.received",), resource_type=dice.choice(KINDS)
        ),
        "nothing but the newest": lambda _: Query(newest_first=True),
    }


async def measure(directory: Path, count: int) -> list[Row]:
    """Record so many, then search."""
    dice, service = random.Random(1), Signer.generate("log", Algorithm.ED25519)
    now = datetime.now(UTC)
    with Verifiers(1) as verifiers:
        async with opened(directory, service, verifiers) as records:
            spare_collector()  # as `tlog serve` does when it is up
            begin = time.monotonic()
            for batch in signed(dice, records, now, count):
                for draft in batch[0]:
                    await records.record(draft)
                outcomes = await records.accept(batch[1])
                if not all(isinstance(outcome, Recorded) for outcome in outcomes):
                    raise RuntimeError(f"refused: {outcomes[0]}")
            await indexed(records)
            rate = count / (time.monotonic() - begin)
            rows = [
                Row(f"{count:,} records, signed, recorded and indexed", rate, "records/s", "", "")
            ]
            for what, make in queries(now).items():
                rows.append(await _row(what, records, [make(dice) for _ in range(QUERIES)]))
            return rows


def signed(
    dice: random.Random, records: Records, now: datetime, count: int
) -> Iterator[tuple[list[Draft], list[str]]]:
    """Batches of events, and before them what registers their producers."""
    signers = [Signer.generate(f"app{number}", Algorithm.ED25519) for number in range(PRODUCERS)]
    about = [
        {"about_producer": each.vkey.name, "vkey": str(each.vkey), "roles": ["recorder"]}
        for each in signers
    ]
    registrations = [Draft("producer.registered", each, {}) for each in about]
    catalogue = default_catalogue()
    for number in range(-(-count // BATCH)):
        signer, before = signers[number % PRODUCERS], number // PRODUCERS * BATCH
        yield (
            registrations if number == 0 else [],
            [
                sign_event(drafted(dice, now), signer, tenant=TENANT, seq=seq, catalogue=catalogue)
                for seq in range(before + 1, before + BATCH + 1)
            ],
        )
        print(f"\r{(number + 1) * BATCH:,} of {count:,} records", end="", file=sys.stderr)
    print(file=sys.stderr)


async def _row(what: str, records: Records, asked: list[Query]) -> Row:
    took, found = [], 0
    for query in asked:
        begin = time.perf_counter()
        page = await search(records, ACCESS, query)
        took.append(1000 * (time.perf_counter() - begin))
        found += len(page.records)
    worst = f"worst of {QUERIES}: {max(took):.0f} ms; {found / QUERIES:.0f} records"
    return Row(f"first page by {what}", statistics.median(took), "ms", worst, "50 ms")
