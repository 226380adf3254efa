"""The records layer: signed events verified, sealed and put into the log, beside bare Ed25519."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tlog.audit import Draft, default_catalogue, sign_event
from tlog.audit.records import Recorded, Records
from tlog.audit.vault import Vault
from tlog.log import Log, LogConfig, create_log
from tlog.notes import Algorithm, Signer
from tools.bench.table import Row

BATCH = 1024
BATCHES = 8
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
async def opened(directory: Path, service: Signer) -> AsyncIterator[Records]:
    create_log(directory / "log", LogConfig(origin="example.com/bench", name="bench"))
    vault = Vault.create(directory / "vault", bytes(32))
    try:
        async with (
            Log.opened(directory / "log") as log,
            Records.opened(
                log, vault, service, tenant=TENANT, catalogue=default_catalogue()
            ) as records,
        ):
            yield records
    finally:
        vault.close()


def verifications_per_second(signer: Signer, count: int = 2000) -> float:
    """Bare Ed25519, in one thread, over messages as long as an event."""
    message = bytes(1000)
    signature = signer.sign(message)
    begin = time.perf_counter()
    for _ in range(count):
        signer.vkey.verifies(signature, message)
    return count / (time.perf_counter() - begin)


async def measure(directory: Path, rounds: int) -> list[Row]:
    service = Signer.generate("log", Algorithm.ED25519)
    rates, bases = [], []
    for turn in range(rounds):
        producer = Signer.generate(f"app{turn}", Algorithm.ED25519)
        signed = events(producer, BATCH * BATCHES)
        async with opened(directory / str(turn), service) as records:
            about = {"about_producer": producer.vkey.name, "vkey": str(producer.vkey)}
            await records.record(Draft("producer.registered", {**about, "roles": ["recorder"]}, {}))
            bases.append(verifications_per_second(producer))
            begin = time.perf_counter()
            for at in range(0, len(signed), BATCH):
                outcomes = await records.accept(signed[at : at + BATCH])
                if not all(isinstance(outcome, Recorded) for outcome in outcomes):
                    raise RuntimeError(f"refused: {outcomes[0]}")
            rates.append(len(signed) / (time.perf_counter() - begin))
            bases[-1] = (bases[-1] + verifications_per_second(producer)) / 2
    ratio = statistics.median(rate / base for rate, base in zip(rates, bases, strict=True))
    base, rate = statistics.median(bases), statistics.median(rates)
    return [
        Row("Ed25519 verification, one thread", base, "signatures/s", "1.00", ""),
        Row(
            f"records verified, sealed, stored and indexed, batches of {BATCH}",
            rate,
            "records/s",
            f"{ratio:.2f} of the verifications",
            "0.60",
        ),
    ]
