"""A tenant with a log, a vault and two producers."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.audit.producer import CATALOGUE, SHOP, TENANT, signer_of
from tlog.audit import Draft
from tlog.audit.indexer import indexing
from tlog.audit.intake import Outcome, Recorded
from tlog.audit.records import Records
from tlog.audit.survey import claims_at
from tlog.audit.vault import Vault
from tlog.log import Log, LogConfig, create_log
from tlog.notes import Signer

LOG = signer_of("log", 9)
TILL = signer_of("till", 3)
TENANT_KEY = b"tenant key of 32 bytes, in tests"


def create(directory: Path, **settings: Any) -> None:
    """A fresh tenant, with no producer but the log itself. Those of one process have one key."""
    made = _made(tuple(sorted(settings.items())))
    shutil.copytree(made.name, directory, dirs_exist_ok=True)


@functools.cache
def _made(settings: tuple[tuple[str, Any], ...]) -> tempfile.TemporaryDirectory[str]:
    """One to copy: to make it, the disk is waited for some sixty times."""
    made = tempfile.TemporaryDirectory()
    usual = {"origin": "example.com/records", "name": "records", "checkpoint_interval": 0}
    create_log(Path(made.name, "log"), LogConfig(**{**usual, **dict(settings)}))
    Vault.create(Path(made.name, "vault"), TENANT_KEY).close()
    return made


@contextlib.asynccontextmanager
async def opened(directory: Path, **settings: Any) -> AsyncIterator[Records]:
    vault = Vault.open(directory / "vault", TENANT_KEY)
    try:
        async with (
            Log.opened(directory / "log") as log,
            Records.opened(
                log, vault, LOG, **{"tenant": TENANT, "catalogue": CATALOGUE, **settings}
            ) as records,
            indexing(directory / "log", records),
        ):
            yield records
    finally:
        vault.close()


def registration(signer: Signer, *roles: str) -> Draft:
    about = {
        "about_producer": signer.vkey.name,
        "vkey": str(signer.vkey),
        "roles": list(roles) or ["recorder"],
    }
    return Draft("producer.registered", about, {})


@contextlib.asynccontextmanager
async def tenant(directory: Path, **settings: Any) -> AsyncIterator[Records]:
    """A tenant whose entry 0 registers the shop, and entry 1 the till."""
    create(directory)
    async with opened(directory, **settings) as records:
        for index, signer in enumerate((SHOP, TILL)):
            assert await records.record(registration(signer)) == Recorded(index)
        yield records


def indices(outcomes: list[Outcome]) -> list[int]:
    assert all(isinstance(outcome, Recorded) for outcome in outcomes), outcomes
    return [outcome.index for outcome in outcomes if isinstance(outcome, Recorded)]


def types(records: Records, start: int = 0) -> list[str]:
    """The types of all records from an index on."""
    size = records.log.sequencer.edge.size
    return [str(records.read(index).payload["type"]) for index in range(start, size)]


def values(records: Records, index: int) -> list[dict[str, Any]]:
    """What each part of a record says, as far as it opens."""
    return [{d.name: d.value for d in p.disclosures} for p in records.read(index).parts]


class Reading:
    """Which records a module reads: how many, and how many while nobody else may record."""

    def __init__(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = self.alone = 0

        def read(records: Records, index: int) -> Any:
            self.total += 1
            self.alone += records._exclusive.locked()
            return claims_at(records, index)

        monkeypatch.setattr(module, "claims_at", read)


NOW = datetime(2026, 1, 31, 17, 30, tzinfo=UTC)
