"""The records layer: signed events verified, sealed and put into the log, beside bare Ed25519."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tlog.audit import Draft, default_catalogue, sign_event
from tlog.audit.indexer import indexing
from tlog.audit.intake import Recorded
from tlog.audit.records import Records
from tlog.audit.vault import Vault
from tlog.audit.verifying import Verifiers
from tlog.cli.serving import spare_collector
from tlog.log import Log, LogConfig, create_log
from tlog.notes import Algorithm, Signer
from tools.bench.table import Row

BATCH = 1024
BATCHES = 8
IN_FLIGHT = 2
SUBJECTS = 500
TENANT = "bench"


def events(signer: Signer, count: int) -> list[str]:
    """Reads of personal data: five public claims, an actor, a resource, a subject."""
    catalogue = default_catalogue()
    return [
        sign_event(
            Draft(
                "access.read",
                {"purpose": "support ticket", "resource_type": "customers", "outcome": "success"},
                {"actor": "agent 17", "resource": f"customers/{seq}"},
                [{"id": f"user{seq % SUBJECTS}@example.com"}],
            ),
            signer,
            tenant=TENANT,
            seq=seq,
            catalogue=catalogue,
        )
        for seq in range(1, count + 1)
    ]


@asynccontextmanager
async def opened(
    directory: Path, service: Signer, verifiers: Verifiers | None
) -> AsyncIterator[Records]:
    create_log(directory / "log", LogConfig(origin="example.com/bench", name="bench"))
    vault = Vault.create(directory / "vault", bytes(32))
    try:
        async with (
            Log.opened(directory / "log") as log,
            Records.opened(
                log,
                vault,
                service,
                tenant=TENANT,
                catalogue=default_catalogue(),
                verifiers=verifiers,
            ) as records,
            indexing(directory / "log", records),
        ):
            yield records
    finally:
        vault.close()


async def indexed(records: Records) -> None:
    """Wait until all that is recorded can be found."""
    size = records.log.sequencer.edge.size
    if records.index is None or await records.index.caught_up(size, patience=60) < size:
        raise RuntimeError("not indexed within a minute")


def verifications_per_second(signer: Signer, count: int = 2000) -> float:
    """Bare Ed25519, in one thread, over messages as long as an event."""
    message = bytes(1000)
    signature = signer.sign(message)
    begin = time.perf_counter()
    for _ in range(count):
        signer.vkey.verifies(signature, message)
    return count / (time.perf_counter() - begin)


async def measure(directory: Path, rounds: int) -> list[Row]:
    base = Row("Ed25519 verification, one thread", 0, "signatures/s", "1.00", "")
    with Verifiers(1) as verifiers:
        alone = await _measure(directory / "alone", rounds, None)
        beside = await _measure(directory / "beside", rounds, verifiers)
    what = (
        f"records verified, sealed, stored and indexed, batches of {BATCH}, {IN_FLIGHT} in flight"
    )
    return [
        replace(base, rate=statistics.median(base for _, base in alone + beside)),
        _row(f"{what}, all in one process", alone, ""),
        _row(f"{what}, a second process verifies", beside, "0.60"),
    ]


async def _send(records: Records, batches: Iterator[list[str]]) -> None:
    """Send what batches are left, one after the other."""
    for batch in batches:
        outcomes = await records.accept(batch)
        if not all(isinstance(outcome, Recorded) for outcome in outcomes):
            raise RuntimeError(f"refused: {outcomes[0]}")


def _row(what: str, measured: list[tuple[float, float]], goal: str) -> Row:
    rate = statistics.median(rate for rate, _ in measured)
    ratio = statistics.median(rate / base for rate, base in measured)
    return Row(what, rate, "records/s", f"{ratio:.2f} of the verifications", goal)


async def _measure(
    directory: Path, rounds: int, verifiers: Verifiers | None
) -> list[tuple[float, float]]:
    """Records and bare verifications, each a second, in each round."""
    service = Signer.generate("log", Algorithm.ED25519)
    measured = []
    for turn in range(rounds):
        producer = Signer.generate(f"app{turn}", Algorithm.ED25519)
        about = {"about_producer": producer.vkey.name, "vkey": str(producer.vkey)}
        signed = events(producer, BATCH * (BATCHES + 1))
        async with opened(directory / str(turn), service, verifiers) as records:
            spare_collector()  # as `tlog serve` does when it is up
            await records.record(Draft("producer.registered", {**about, "roles": ["recorder"]}, {}))
            await records.accept(signed[:BATCH])  # all processes are up from here on
            before = verifications_per_second(producer)
            begin = time.perf_counter()
            rest = iter([signed[at : at + BATCH] for at in range(BATCH, len(signed), BATCH)])
            await asyncio.gather(*[_send(records, rest) for _ in range(IN_FLIGHT)])
            await indexed(records)
            rate = BATCH * BATCHES / (time.perf_counter() - begin)
            measured.append((rate, (before + verifications_per_second(producer)) / 2))
    return measured
