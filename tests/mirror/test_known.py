"""Which checkpoints an upload may end at: the pending one, the mirror's, and those of tickets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.mirror.support import LOG, OTHER, SomeLog, a_mirror, mirrored, send
from tests.witness.support import START, Clock, signer
from tlog.merkle import EMPTY_ROOT
from tlog.mirror import Accepted, Mirror, Mirrored, Tickets, UploadConflict
from tlog.mirror.tickets import LIFETIME_SECONDS
from tlog.notes import Algorithm, Checkpoint, sign_checkpoint
from tlog.witness import Frozen, freeze, rekey


async def conflict(mirror: Mirror, body: bytes) -> UploadConflict:
    with pytest.raises(UploadConflict) as caught:
        await send(mirror, body)
    return caught.value


async def a_ticket(mirror: Mirror, log: SomeLog, size: int) -> bytes:
    """One that the mirror has issued for a pending checkpoint."""
    accepted = await send(mirror, log.upload(0, size, count=1))
    assert isinstance(accepted, Accepted)
    return accepted.info.ticket


def forged(log: SomeLog, size: int) -> bytes:
    """One that another mirror has issued."""
    other = signer("mirror.example/m2", Algorithm.ED25519_COSIGNATURE)
    return Tickets.of([other], clock=Clock()).issue(log.note(size))


async def test_a_ticket_is_good_for_its_log_and_its_size(tmp_path: Path) -> None:
    clock = Clock()
    async with a_mirror(tmp_path / "m", clock=clock) as mirror:
        await mirror.add_checkpoint(*OTHER.request(0, 300))
        await mirror.add_checkpoint(*LOG.request(0, 300))
        foreign = await a_ticket(mirror, OTHER, 300)
        good = await a_ticket(mirror, LOG, 300)
        await mirror.add_checkpoint(*LOG.request(300, 900))
        flipped = good[:-1] + bytes([good[-1] ^ 1])
        for bad in (b"", foreign, forged(LOG, 300), flipped, good[:-1], good + b"\0"):
            refused = await conflict(mirror, LOG.upload(256, 300, ticket=bad))
            assert refused.info.tree_size == 900
        # For another size than its own.
        assert (await conflict(mirror, LOG.upload(256, 301, ticket=good))).info.tree_size == 900
        clock.now = START + LIFETIME_SECONDS + 1
        await conflict(mirror, LOG.upload(256, 300, ticket=good))
        clock.now = START + LIFETIME_SECONDS
        assert isinstance(await send(mirror, LOG.upload(256, 300, ticket=good)), Mirrored)
        # Where it is not needed, it does no harm.
        assert isinstance(await send(mirror, LOG.upload(300, 900, ticket=foreign)), Mirrored)


async def test_an_upload_that_is_overtaken_rolls_nothing_back(tmp_path: Path) -> None:
    # "If `upload_end` was too small, the mirror MUST respond with a "409 Conflict""
    async with a_mirror(tmp_path / "m") as mirror:
        await mirror.add_checkpoint(*LOG.request(0, 300))
        go_on, paused = asyncio.Event(), asyncio.Event()
        whole, first = LOG.upload(0, 300), LOG.upload(0, 300, count=1)

        async def arriving() -> AsyncIterator[bytes]:
            yield first
            paused.set()
            await go_on.wait()
            yield whole[len(first) :]

        overtaken = asyncio.create_task(mirror.add_entries(arriving()))
        await paused.wait()
        await mirrored(mirror, 300, 900, start=256)
        go_on.set()
        with pytest.raises(UploadConflict) as caught:
            await overtaken
        assert (caught.value.info.tree_size, caught.value.info.next_entry) == (900, 900)
        assert [copy.size for copy in mirror.copies()] == [900]


async def test_a_ticket_outlives_a_restart(tmp_path: Path) -> None:
    async with a_mirror(tmp_path / "m") as mirror:
        await mirror.add_checkpoint(*LOG.request(0, 300))
        ticket = await a_ticket(mirror, LOG, 300)
    async with a_mirror(tmp_path / "m") as mirror:
        await mirror.add_checkpoint(*LOG.request(300, 900))
        assert isinstance(await send(mirror, LOG.upload(0, 300, ticket=ticket)), Mirrored)


async def test_a_ticket_ahead_of_what_is_pending_is_none(tmp_path: Path) -> None:
    # As after a mirror's heads were put back from an old copy.
    async with a_mirror(tmp_path / "old") as mirror:
        await mirrored(mirror, 0, 300)
        ahead = mirror._tickets.issue(LOG.note(900))
        assert (await conflict(mirror, LOG.upload(300, 900, ticket=ahead))).info.tree_size == 300


async def test_a_ticket_by_a_key_that_is_not_trusted_any_more_is_none(tmp_path: Path) -> None:
    async with a_mirror(tmp_path / "m") as mirror:
        await mirror.add_checkpoint(*LOG.request(0, 300))
        ticket = await a_ticket(mirror, LOG, 300)
        new = signer(LOG.origin, Algorithm.ED25519, 7)
        rekey(tmp_path / "m", LOG.origin, [new.vkey])
        mirror.logs.refresh()
        note = sign_checkpoint(LOG.checkpoint(900), [new], timestamp=START)
        await mirror.add_checkpoint(300, LOG.proof(300, 900), note)
        await conflict(mirror, LOG.upload(256, 300, ticket=ticket))
        assert isinstance(await send(mirror, LOG.upload(256, 900)), Mirrored)
    # The copy's head is signed by the new key; what is on the disk is the mirror's own word.
    async with a_mirror(tmp_path / "m") as mirror:
        assert [copy.size for copy in mirror.copies()] == [900]


async def test_a_frozen_log_is_not_taken(tmp_path: Path) -> None:
    async with a_mirror(tmp_path / "m") as mirror:
        await mirrored(mirror, 0, 300)
        freeze(tmp_path / "m", LOG.origin)
        mirror.logs.refresh()
        with pytest.raises(Frozen, match="operator of this mirror"):
            await send(mirror, LOG.upload(300, 300))


async def test_an_empty_tree_is_mirrored(tmp_path: Path) -> None:
    async with a_mirror(tmp_path / "m") as mirror:
        await mirrored(mirror, 0, 0)
        (copy,) = mirror.copies()
        assert copy.published.checkpoint == Checkpoint(LOG.origin, 0, EMPTY_ROOT)
        await mirrored(mirror, 0, 1)
