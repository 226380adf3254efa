"""Signatures verified in another process: the same answers, whatever becomes of that process."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.audit.producer import CATALOGUE, SHOP, TENANT, access, signed, signer_of
from tests.audit.tenant import LOG, TILL, opened, tenant
from tlog.audit import Draft, EventRefused, sign_event
from tlog.audit.intake import Outcome, Recorded
from tlog.audit.jws import parse_jws
from tlog.audit.sdjwt import join, split
from tlog.audit.verifying import CHUNK, Claim, Verifiers

COUNT = 2 * CHUNK + 40
PATIENCE = 20.0


@pytest.fixture(scope="module")
def verifiers() -> Iterator[Verifiers]:
    with Verifiers(1) as verifiers:
        yield verifiers


def spoiled(event: str) -> str:
    """The same with the signature of another event of the same length."""
    jws, encoded = split(event)
    other, _ = split(signed(access(), 99))
    return join(f"{jws.rpartition('.')[0]}.{other.rpartition('.')[2]}", encoded)


def said(outcomes: list[Outcome]) -> list[str]:
    return [o.field if isinstance(o, EventRefused) else "recorded" for o in outcomes]


async def test_wrong_signatures_are_found_wherever_they_stand(
    tmp_path: Path, verifiers: Verifiers
) -> None:
    chance = random.Random(7)
    bad = {0, CHUNK - 1, CHUNK, COUNT - 1, *chance.sample(range(COUNT), 30)}
    strange = {3, CHUNK + 3}
    events, wanted, seq = [], [], 0
    for i in range(COUNT):
        if i in strange:
            # Nothing to verify: what comes after must not be taken for what came before.
            events.append(chance.choice(["x~", signed(access(), 1, signer_of("shop", 77))]))
            wanted.append("jws" if events[-1] == "x~" else "jws.header.kid")
            continue
        good = i not in bad
        seq += good
        event = signed(access(), seq or 1)
        events.append(event if good else spoiled(event))
        wanted.append("recorded" if good else "jws.signature")
    async with tenant(tmp_path / "beside", verifiers=verifiers) as records:
        assert said(await records.accept(events)) == wanted
        assert verifiers._pool is not None
    async with tenant(tmp_path / "alone") as records:
        assert said(await records.accept(events)) == wanted


async def test_a_key_that_is_revoked_in_between_is_revoked(
    tmp_path: Path, verifiers: Verifiers
) -> None:
    events = [signed(access(), seq, TILL) for seq in range(1, COUNT)]
    claims = {"about_producer": "till", "old_vkey": str(TILL.vkey), "reason": "stolen"}
    revocation = sign_event(
        Draft("producer.key_revoked", claims, {}), LOG, tenant=TENANT, seq=3, catalogue=CATALOGUE
    )
    events.insert(100, revocation)
    async with tenant(tmp_path, verifiers=verifiers) as records:
        outcomes = await records.accept(events)
    assert said(outcomes) == ["recorded"] * 101 + ["jws.header.kid"] * (COUNT - 101)


async def test_a_process_that_dies_takes_nothing_with_it(tmp_path: Path) -> None:
    with Verifiers(1) as mortal:
        async with tenant(tmp_path, verifiers=mortal) as records:
            events = [signed(access(), seq) for seq in range(1, COUNT + 1)]
            assert said(await records.accept(events[:20])) == ["recorded"] * 20
            assert mortal._pool is not None
            for process in list(mortal._pool._processes.values()):
                process.kill()
            assert said(await records.accept(events[20:])) == ["recorded"] * (COUNT - 20)
            wrong = spoiled(signed(access(), COUNT + 1))
            assert said(await records.accept([wrong] * 20)) == ["jws.signature"] * 20
    async with opened(tmp_path, verifiers=mortal) as records:
        # Closed, it says nothing of anybody.
        again = await records.accept(events[:20])
        assert again == [Recorded(2 + i, duplicate=True) for i in range(20)]


async def test_a_process_that_dies_leaves_nobody_waiting() -> None:
    """A pool that broke, before Python 3.12.1, gave up at the first work that was taken from it."""
    (jws, _), key = split(signed(access())), SHOP.vkey
    parsed = parse_jws(jws)
    claim = Claim(key.name, key.public_key, parsed.signature, parsed.signing_input)
    with Verifiers(1) as mortal:
        process = await mortal.run(os.getpid)
        busy = asyncio.ensure_future(mortal.run(partial(time.sleep, 0.5)))
        await asyncio.sleep(0)
        checks = mortal.start([claim] * 8 * CHUNK)
        right = asyncio.ensure_future(checks.right(0))
        index = asyncio.ensure_future(mortal.run(os.getpid))
        while not checks._taken:
            await asyncio.sleep(0)
        os.kill(process, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            assert not await right
            assert await checks.right(8 * CHUNK - 1), "who waited did that one"
            assert await index == os.getpid()
            await busy


async def test_ctrl_c_while_a_process_starts_is_not_for_it() -> None:
    before = set(multiprocessing.active_children())
    with Verifiers(1) as verifiers:
        working = asyncio.create_task(verifiers.run(os.getpid))
        await asyncio.sleep(0)
        (child,) = set(multiprocessing.active_children()) - before
        assert child.pid is not None
        os.kill(child.pid, signal.SIGINT)
        # Had it died, the work would be done here.
        assert await working == child.pid
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
