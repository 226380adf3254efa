"""sign-subtree: what it signs, each refusal, and its own rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.merkle import trees
from tests.witness.support import ORIGIN, WITNESS_VKEYS, SomeLog, a_witness, flip, leaves
from tlog.notes import Note, Subtree, parse_note, verify_subtree_cosignature
from tlog.witness import (
    BadRequest,
    BadSignature,
    Refusal,
    TooManyRequests,
    UnknownOrigin,
    Unprocessable,
)

LOG = SomeLog()
FORK = SomeLog(forked_at=4)


async def test_sign_subtree(tmp_path: Path) -> None:
    async with a_witness(tmp_path) as witness:
        cosignatures = await witness.add_checkpoint(*LOG.request(0, 14))
        full = LOG.note(14) + b"".join(s.encode() for s in cosignatures)
        bare = Note(parse_note(full).text, tuple(cosignatures)).encode()
        only_ed = Note(parse_note(full).text, (cosignatures[0],)).encode()

        def request(
            start: int, end: int, note: bytes
        ) -> tuple[int, int, bytes, list[bytes], bytes]:
            root = trees.mth(leaves("main", 14)[start:end])
            return (
                start,
                end,
                root,
                trees.subtree_subproof(start, end, leaves("main", 14), True),
                note,
            )

        for note in (full, bare, only_ed):
            for start, end in ((8, 13), (0, 14), (0, 5), (13, 14), (8, 14)):
                (cosignature,) = await witness.sign_subtree(*request(start, end, note))
                subtree = Subtree(ORIGIN, start, end, request(start, end, note)[2])
                assert verify_subtree_cosignature(subtree, WITNESS_VKEYS[1], cosignature) == 0

        async def subtree_refused(kind: type[Refusal], status: int, *request: object) -> None:
            with pytest.raises(kind) as caught:
                await witness.sign_subtree(*request)  # type: ignore[arg-type]
            assert caught.value.status == status
            assert "\n" not in str(caught.value)

        start, end, root, proof, _ = request(8, 13, bare)
        for bad in ((7, 13), (13, 8), (8, 8), (0, 0), (8, 15), (-1, 8), (8, 1 << 63)):
            await subtree_refused(BadRequest, 400, *bad, root, proof, bare)
        await subtree_refused(BadRequest, 400, start, end, root[1:], proof, bare)
        await subtree_refused(BadRequest, 400, start, end, root, [bytes(32)] * 64, bare)
        await subtree_refused(BadRequest, 400, start, end, root, proof, bare[:-1])
        await subtree_refused(Unprocessable, 422, start, end, root, proof[:-1], bare)
        await subtree_refused(Unprocessable, 422, start, end, bytes(32), proof, bare)
        stranger = bare.replace(b"log.example", b"log.elsewhere", 1)
        await subtree_refused(UnknownOrigin, 404, start, end, root, proof, stranger)
        await subtree_refused(BadSignature, 403, start, end, root, proof, LOG.note(14))
        await subtree_refused(BadSignature, 403, start, end, root, proof, flip(bare))
        # A tree that it never saw, with a cosignature of another tree.
        forged = Note(FORK.checkpoint(14).body(), tuple(cosignatures)).encode()
        fork = FORK.leaves(14)
        await subtree_refused(
            BadSignature, 403, 8, 13, trees.mth(fork[8:13]),
            trees.subtree_subproof(8, 13, fork, True), forged,
        )  # fmt: skip


async def test_sign_subtree_has_its_own_rate(tmp_path: Path) -> None:
    async with a_witness(tmp_path, rate=1, burst=2) as witness:
        cosignatures = await witness.add_checkpoint(*LOG.request(0, 4))
        note = Note(LOG.checkpoint(4).body(), tuple(cosignatures)).encode()
        for _ in range(2):
            await witness.sign_subtree(0, 4, LOG.root(4), [], note)
        with pytest.raises(TooManyRequests):
            await witness.sign_subtree(0, 4, LOG.root(4), [], note)
        await witness.add_checkpoint(*LOG.request(4, 5))
