"""The whole table of status codes, request by request, against both faces."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import pytest

from tests.serve.witness.faces import Face, Reply, served
from tests.serve.witness.transcripts import ADD, FIRST, LOG, SIZE, Exchange, subtrees
from tests.witness.support import (
    ORIGIN,
    WITNESS_VKEYS,
    Clock,
    SomeLog,
    a_witness,
    times_of,
)
from tlog.notes import (
    Subtree,
    open_checkpoint,
    parse_signatures,
    parse_unverified,
    verify_subtree_cosignature,
)
from tlog.witness import AddCheckpoint, FreezeReason, SignSubtree, freeze, hash_origin


async def check(face: Face, exchange: Exchange) -> Reply:
    reply = await face.send(exchange.request)
    where = f"{type(face).__name__}, {exchange.name}: {reply}"
    assert reply.status == exchange.status, where
    assert exchange.says in reply.body.decode(), where
    assert (reply.size is not None) == (exchange.status == 409), where
    return reply


async def test_refusals_change_nothing(tmp_path: Path) -> None:
    async with a_witness(tmp_path) as witness, served(witness) as faces:
        for face in faces:
            for exchange in FIRST:
                await check(face, exchange)
            missing = await face.checkpoint(hash_origin(ORIGIN))
            assert missing.status == 404
        await faces.http.send(AddCheckpoint(0, (), LOG.note(SIZE)))
        before = list(witness.checkpoints())
        for face in faces:
            for exchange in (*ADD, *subtrees(before[0])):
                reply = await check(face, exchange)
                if exchange.status == 409:
                    assert reply.size == SIZE
                    assert face is faces.grpc or reply.body == b"5\n"
        assert list(witness.checkpoints()) == before


@pytest.mark.parametrize("name", ["http", "grpc"])
async def test_200(tmp_path: Path, name: str) -> None:
    clock = Clock()
    async with a_witness(tmp_path, clock=clock) as witness, served(witness) as faces:
        face: Face = getattr(faces, name)
        old = 0
        for new in (0, 0, 1, 5, 5, 8, 300):
            clock.now += 2
            size, proof, note = LOG.request(old, new)
            reply = await face.send(AddCheckpoint(size, tuple(proof), note))
            assert reply.status == 200, reply
            assert times_of(note, parse_signatures(reply.body)) == {int(clock.now)}
            for other in faces:
                shown = await other.checkpoint(hash_origin(ORIGIN))
                assert shown.body == note + reply.body
            old = new


async def test_subtrees(tmp_path: Path) -> None:
    async with a_witness(tmp_path) as witness, served(witness) as faces:
        await witness.add_checkpoint(*LOG.request(0, SIZE))
        cosigned = witness.checkpoint(hash_origin(ORIGIN))
        request = SignSubtree(0, 4, LOG.root(4), tuple(LOG.proof(4, 5)), cosigned)
        for face in faces:
            reply = await face.send(request)
            assert reply.status == 200, reply
            (signature,) = parse_signatures(reply.body)
            subtree = Subtree(ORIGIN, 0, 4, LOG.root(4))
            assert verify_subtree_cosignature(subtree, WITNESS_VKEYS[1], signature) == 0


async def test_429_says_when(tmp_path: Path) -> None:
    monotonic = Clock()
    async with (
        a_witness(tmp_path, monotonic=monotonic, rate=0.4, burst=1) as witness,
        served(witness) as faces,
    ):
        await witness.add_checkpoint(*LOG.request(0, SIZE))
        request = AddCheckpoint(SIZE, tuple(LOG.proof(SIZE, 8)), LOG.note(8))
        http, grpc = [await face.send(request) for face in faces]
        assert (http.status, http.retry_after) == (429, 3)
        assert (grpc.status, grpc.retry_after) == (429, 2.5)
        assert "2.5 s" in http.body.decode()


async def test_frozen_and_closed(tmp_path: Path) -> None:
    monotonic = Clock()
    async with a_witness(tmp_path, monotonic=monotonic) as witness, served(witness) as faces:
        await witness.add_checkpoint(*LOG.request(0, SIZE))
        freeze(tmp_path, ORIGIN, reason=FreezeReason.CONFLICT)
        monotonic.now += 2
        request = AddCheckpoint(SIZE, (), LOG.note(SIZE))
        for face in faces:
            reply = await face.send(request)
            assert reply.status == 403
            assert b"contradict" in reply.body
        page = (await faces.http.client.get("/metrics")).text
        assert 'tlog_witness_frozen_logs{reason="conflict"} 1.0' in page
        await witness.close()
        for face in faces:
            assert (await face.send(request)).status == 503


async def test_many_logs_do_not_mix(tmp_path: Path) -> None:
    logs = [SomeLog(f"log.example/{number}") for number in range(5)]
    async with a_witness(tmp_path, *logs) as witness, served(witness) as faces:
        for number, log in enumerate(logs):
            size, proof, note = log.request(0, number + 1)
            await faces.http.send(AddCheckpoint(size, tuple(proof), note))
        for number, log in enumerate(logs):
            for face in faces:
                reply = await face.checkpoint(hashlib.sha256(log.origin.encode()).digest())
                verified = open_checkpoint(reply.body, [log.signers[0].vkey], origin=log.origin)
                assert verified.checkpoint.size == number + 1


async def test_a_hundred_at_once_over_both_faces(tmp_path: Path) -> None:
    """Of a log that forks, each over one of the faces: one history is cosigned, and only grows."""
    logs = [LOG, SomeLog(forked_at=0), SomeLog(forked_at=20)]
    choose = random.Random(7)
    cosigned: list[tuple[int, bytes]] = []

    async def ask(face: Face, log: SomeLog, size: int) -> None:
        old = 0
        for _ in range(6):
            request = AddCheckpoint(old, tuple(log.proof(old, size)), log.note(size))
            reply = await face.send(request)
            if reply.status == 200:
                times_of(log.note(size), parse_signatures(reply.body))
                cosigned.append((size, log.root(size)))
            if reply.status != 409 or reply.size is None or reply.size > size:
                assert reply.status in {200, 409, 422, 429}, reply
                return
            old = reply.size

    async with a_witness(tmp_path) as witness, served(witness) as faces:
        both = list(faces)
        asked = [
            (choose.choice(both), choose.choice(logs), choose.randint(1, 40)) for _ in "x" * 100
        ]
        await asyncio.gather(*(ask(*one) for one in asked))
        (note,) = witness.checkpoints()
        last = parse_unverified(note).checkpoint
        assert (last.size, last.root_hash) == max(cosigned)
        assert any(all(log.root(size) == root for size, root in cosigned) for log in logs)
