"""Stamps in evidence, whatever becomes of their authority.

Apart from `test_collecting`: `evidence` opens a log when it is imported. Processes that are to
be killed are forked from one that imports `test_collecting` and has opened nothing: see `dying`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import structlog

from tests.audit.approvers import governed
from tests.audit.authority import Station
from tests.audit.evidence import resting_stamper, stamp
from tests.audit.producer import received, signed
from tests.audit.tenant import LOG, indices, opened
from tests.audit.test_collecting import packed
from tlog.client import Verifier


async def test_stamps_of_an_authority_that_was_taken_out_of_the_settings(tmp_path: Path) -> None:
    one, two, three = (Station(tmp_path / name, name=name) for name in ("one", "two", "three"))
    async with governed(tmp_path) as records:
        assert indices(await records.accept([signed(received(), 1)])) == [4]
        with resting_stamper(records, tmp_path, one, two) as (stamper, store):
            await stamp(records, store, one, two)
            before = {each.authority for each in await stamper.around([4])}
        (tmp_path / "one" / "tsa.pem").unlink()  # its files are gone, too
        with resting_stamper(records, tmp_path, two, three) as (stamper, store):
            assert list(stamper.status) == ["two", "three"]  # those that are asked
            package = await packed(records, 4, stamper=stamper)
            vkeys = records.log.vkeys
    roots = [each.root.certificate for each in (one, two)]
    verdict = Verifier.with_vkeys(vkeys).evidence(package, service=LOG.vkey, tsa_roots=roots)
    times = {each.authority: each.trusted for each in verdict.chosen()[0].times}
    assert times == dict.fromkeys(before, True) == {"one": True, "two": True}
    # Of those of an earlier release no certificates were kept: that is told.
    async with opened(tmp_path) as records:
        with contextlib.closing(sqlite3.connect(tmp_path / "log" / "stamps.db")) as database:
            database.executescript("DROP TABLE authorities; PRAGMA user_version = 1")
        with (
            structlog.testing.capture_logs() as logs,
            resting_stamper(records, tmp_path, two, three) as (stamper, _),
        ):
            assert {each.authority for each in await stamper.around([4])} == {"two"}
    (told,) = (each for each in logs if each["event"] == "time-stamps in no evidence")
    assert told["reason"].startswith("one: taken out of timestamps.toml before")
