"""The whole table of tlog-witness, each refusal with the requests that provoke it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.witness.support import (
    ORIGIN,
    START,
    WITNESS_SIGNERS,
    WITNESS_VKEYS,
    Clock,
    Evidence,
    SomeLog,
    a_witness,
    flip,
    signed,
    signer,
    times_of,
)
from tlog.notes import (
    Algorithm,
    Checkpoint,
    Note,
    NoteSignature,
    cosign,
    open_checkpoint,
    parse_note,
    parse_unverified,
    sign_checkpoint,
)
from tlog.witness import (
    BadRequest,
    BadSignature,
    FreezeReason,
    Frozen,
    Inconsistency,
    Refusal,
    SizeConflict,
    TooManyRequests,
    Unavailable,
    UnknownOrigin,
    Unprocessable,
    Witness,
    add_log,
    freeze,
    hash_origin,
    rekey,
    remove,
    unfreeze,
)

LOG = SomeLog()
FORK = SomeLog(forked_at=4)
BOTH = (Algorithm.ED25519, Algorithm.MLDSA44)


async def refused(witness: Witness, kind: type[Refusal], status: int, *request: object) -> Refusal:
    """The refusal of a request, which must change nothing."""
    before = list(witness.checkpoints())
    with pytest.raises(kind) as caught:
        await witness.add_checkpoint(*request)  # type: ignore[arg-type]
    assert caught.value.status == status
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(witness.checkpoints()) == before
    return caught.value


async def test_200_grows_and_is_shown(tmp_path: Path) -> None:
    log = SomeLog(algorithms=BOTH)
    clock = Clock()
    async with a_witness(tmp_path, log, clock=clock) as witness:
        old = 0
        for new in (0, 0, 1, 2, 7, 7, 8, 64, 65, 300):
            clock.now += 1.5
            request = log.request(old, new)
            cosignatures = await witness.add_checkpoint(*request)
            assert [(s.name, s.key_id) for s in cosignatures] == [
                (vkey.name, vkey.key_id) for vkey in WITNESS_VKEYS
            ]
            assert times_of(request[2], cosignatures) == {int(clock.now)}
            shown = parse_note(witness.checkpoint(hash_origin(ORIGIN)))
            assert shown.text == log.checkpoint(new).body()
            assert shown.signatures == (*parse_note(request[2]).signatures, *cosignatures)
            old = new


async def test_only_verified_signatures_are_kept(tmp_path: Path) -> None:
    note = LOG.note(3)
    others = [
        NoteSignature("somebody.example", 7, b"junk"),
        NoteSignature(ORIGIN, 7, bytes(64)),  # the log's name, another ID
        NoteSignature(
            "other.example", LOG.signers[0].vkey.key_id, bytes(64)
        ),  # the other way round
    ]
    note += b"".join(other.encode() for other in others)
    async with a_witness(tmp_path) as witness:
        cosignatures = await witness.add_checkpoint(0, [], note)
        shown = parse_note(witness.checkpoint(hash_origin(ORIGIN)))
        assert shown.signatures == (*parse_note(LOG.note(3)).signatures, *cosignatures)


@pytest.mark.parametrize(
    ("old", "proof", "note"),
    [
        (0, [], b""),
        (0, [], b"\xff\xfe\n\n"),
        (0, [], LOG.note(3)[:-1]),
        (0, [], LOG.note(3).replace(b"\n", b"\r\n")),
        (0, [], LOG.note(3).replace(b"\n3\n", b"\n03\n")),
        (0, [], LOG.note(3).replace(b"\n3\n", b"\n9223372036854775808\n")),
        (0, [], LOG.note(3).replace(b"log.example", b"log\x07example", 1)),
        (0, [], LOG.note(3) + b"x"),
        (0, [], LOG.note(3) + parse_note(LOG.note(3)).signatures[0].encode() * 64),
        (0, [], b"a" * (1 << 20)),
        (0, [bytes(32)] * 64, LOG.note(3)),
        (0, [bytes(31)], LOG.note(3)),
        (-1, [], LOG.note(3)),
        (1 << 63, [], LOG.note(3)),
        (4, [], LOG.note(3)),  # "The old size MUST be equal to or lower than the checkpoint size"
    ],
)
async def test_400(tmp_path: Path, old: int, proof: list[bytes], note: bytes) -> None:
    async with a_witness(tmp_path) as witness:
        await refused(witness, BadRequest, 400, old, proof, note)


async def test_404(tmp_path: Path) -> None:
    stranger = SomeLog("log.example/two")
    async with a_witness(tmp_path) as witness:
        await refused(witness, UnknownOrigin, 404, *stranger.request(0, 3))
        # Signed by a key that is known, for another log.
        checkpoint = replace(LOG.checkpoint(3), origin="log.example/other")
        await refused(witness, UnknownOrigin, 404, 0, [], signed(checkpoint))
        with pytest.raises(UnknownOrigin):
            witness.checkpoint(hash_origin(ORIGIN))
        with pytest.raises(BadRequest):
            witness.checkpoint(b"short")


async def test_unknown_origins_leave_nothing(tmp_path: Path) -> None:
    async with a_witness(tmp_path) as witness:
        for number in range(200):
            stranger = SomeLog(f"log.example/{number}")
            await refused(witness, UnknownOrigin, 404, 0, [], stranger.note(1))
            await refused(witness, BadSignature, 403, 0, [], flip(LOG.note(3)))
        assert len(witness.logs) == 1
        assert not witness._turns._queues
        assert not witness._head_rates._full_at
        assert not witness._running


async def test_403(tmp_path: Path) -> None:
    log = SomeLog(algorithms=BOTH)
    text = log.checkpoint(3).body()
    good = parse_note(log.note(3)).signatures
    colliding = replace(good[0], signature=bytes(64))
    async with a_witness(tmp_path, log) as witness:
        for note in (
            flip(log.note(3), 0),  # one of two trusted keys fails
            flip(log.note(3), 1),
            Note(text, (*good, colliding)).encode(),  # its name and ID once more, another signature
            Note(text, (colliding,)).encode(),
            Note(text, (replace(good[0], key_id=1),)).encode(),  # unknown key
            Note(text, (cosign(log.checkpoint(3), WITNESS_SIGNERS[0], timestamp=1),)).encode(),
            log.note(3).replace(b"\n3\n", b"\n4\n"),  # a signature of something else
        ):
            await refused(witness, BadSignature, 403, 0, [], note)


@pytest.mark.parametrize(
    "word", [f"{line}{bit}" for line in range(3) for bit in range(0, 8)], ids=str
)
async def test_every_flipped_bit_of_the_text_is_refused(tmp_path: Path, word: str) -> None:
    """Bit by bit over the first bytes of each line."""
    line, bit = int(word[0]), int(word[1])
    note = bytearray(LOG.note(3))
    start = 0
    for _ in range(line):
        start = note.index(b"\n", start) + 1
    note[start] ^= 1 << bit
    async with a_witness(tmp_path) as witness:
        with pytest.raises((BadRequest, UnknownOrigin, BadSignature)):
            await witness.add_checkpoint(0, [], bytes(note))


async def test_409_tells_the_size(tmp_path: Path) -> None:
    async with a_witness(tmp_path) as witness:
        # "(or zero if it never cosigned a checkpoint for that origin)"
        refusal = await refused(witness, SizeConflict, 409, *LOG.request(2, 5))
        assert isinstance(refusal, SizeConflict)
        assert refusal.size == 0
        await witness.add_checkpoint(*LOG.request(0, 5))
        for old, new in ((0, 5), (0, 9), (3, 5), (4, 9), (6, 9), (3, 4)):
            refusal = await refused(witness, SizeConflict, 409, *LOG.request(old, new))
            assert isinstance(refusal, SizeConflict)
            assert refusal.size == 5


async def test_422(tmp_path: Path) -> None:
    evidence = Evidence()
    async with a_witness(tmp_path, on_inconsistent=evidence) as witness:
        # "A checkpoint of size zero MUST have the root hash of the empty tree"
        wrong = signed(Checkpoint(ORIGIN, 0, bytes(32)))
        await refused(witness, Unprocessable, 422, 0, [], wrong)
        # "If the old size is zero, the consistency proof MUST be empty"
        await refused(witness, Unprocessable, 422, 0, [bytes(32)], LOG.note(5))
        assert not evidence.found
        await witness.add_checkpoint(*LOG.request(0, 5))
        proof = LOG.proof(5, 8)
        for bad in (
            [],
            proof[:-1],
            [*proof, bytes(32)],
            proof[::-1],
            [*proof[:-1], bytes(32)],
            LOG.proof(6, 8),
        ):
            await refused(witness, Unprocessable, 422, 5, bad, LOG.note(8))
        assert len(evidence.found) == 6
        assert not any(found.contradiction for found in evidence.found)
        evidence.found.clear()
        # A proof between equal sizes is empty.
        await refused(witness, Unprocessable, 422, 5, [bytes(32)], LOG.note(5))
        assert not evidence.found


async def test_a_split_view_is_handed_on(tmp_path: Path) -> None:
    evidence = Evidence()
    async with a_witness(tmp_path, on_inconsistent=evidence) as witness:
        await witness.add_checkpoint(*LOG.request(0, 5))
        await refused(witness, Unprocessable, 422, 5, [], FORK.note(5))
        # Also where the old size is wrong: what the log signed is what counts.
        await refused(witness, SizeConflict, 409, 0, [], FORK.note(5))
        stored = witness.checkpoint(hash_origin(ORIGIN))
        assert evidence.found == [Inconsistency(ORIGIN, stored, FORK.note(5), True)] * 2
        for text in (evidence.found[0].stored, evidence.found[0].submitted):
            open_checkpoint(text, [LOG.signers[0].vkey], origin=ORIGIN)
        evidence.found.clear()
        # Of another size: nobody can tell yet.
        await refused(witness, Unprocessable, 422, 5, FORK.proof(5, 8), FORK.note(8))
        assert evidence.found == [Inconsistency(ORIGIN, stored, FORK.note(8), False)]
        evidence.found.clear()
        # An empty tree that is not empty contradicts every head.
        await refused(witness, SizeConflict, 409, 0, [], signed(Checkpoint(ORIGIN, 0, bytes(32))))
        assert [found.contradiction for found in evidence.found] == [True]
        evidence.found.clear()
        # What strangers send is no evidence.
        await refused(witness, BadSignature, 403, 5, [], flip(FORK.note(5)))
        await refused(witness, SizeConflict, 409, 0, [], LOG.note(5))
        await refused(witness, SizeConflict, 409, 0, [], FORK.note(4))
        assert not evidence.found


async def test_evidence_can_freeze_the_log_at_once(tmp_path: Path) -> None:
    async def on_inconsistent(found: Inconsistency, /) -> None:
        await asyncio.sleep(0.01)
        freeze(tmp_path, found.origin, reason=FreezeReason.CONFLICT)
        witness.logs.refresh()

    async with a_witness(tmp_path, on_inconsistent=on_inconsistent) as witness:
        await witness.add_checkpoint(*LOG.request(0, 5))
        # The second waits for its turn while the conflict is found.
        first, second = await asyncio.gather(
            witness.add_checkpoint(5, [], FORK.note(5)),
            witness.add_checkpoint(*LOG.request(5, 8)),
            return_exceptions=True,
        )
        assert isinstance(first, Unprocessable)
        assert isinstance(second, Frozen)
        assert "contradict" in str(second)


async def test_failing_evidence_changes_no_answer(tmp_path: Path) -> None:
    async def on_inconsistent(found: Inconsistency, /) -> None:
        raise OSError("disk full")

    async with a_witness(tmp_path, on_inconsistent=on_inconsistent) as witness:
        await witness.add_checkpoint(*LOG.request(0, 5))
        await refused(witness, Unprocessable, 422, 5, [], FORK.note(5))
        await witness.add_checkpoint(*LOG.request(5, 8))


async def test_frozen_and_thawed_while_it_runs(tmp_path: Path) -> None:
    monotonic = Clock()
    async with a_witness(tmp_path, monotonic=monotonic) as witness:
        await witness.add_checkpoint(*LOG.request(0, 5))
        freeze(tmp_path, ORIGIN)
        monotonic.now += 1
        await refused(witness, Frozen, 403, *LOG.request(5, 6))
        with pytest.raises(Frozen):
            await witness.sign_subtree(
                0, 5, LOG.root(5), [], witness.checkpoint(hash_origin(ORIGIN))
            )
        # Nobody learns from a frozen log's state without its key.
        await refused(witness, BadSignature, 403, 5, [], flip(LOG.note(6)))
        unfreeze(tmp_path, ORIGIN)
        monotonic.now += 1
        await witness.add_checkpoint(*LOG.request(5, 6))


async def test_rotation_and_removal_while_it_runs(tmp_path: Path) -> None:
    monotonic = Clock()
    new = signer(ORIGIN, Algorithm.ED25519, 1)

    def by_new(size: int) -> bytes:
        return sign_checkpoint(LOG.checkpoint(size), [new], timestamp=1)

    async with a_witness(tmp_path, monotonic=monotonic) as witness:
        await witness.add_checkpoint(*LOG.request(0, 5))
        await refused(witness, BadSignature, 403, 5, LOG.proof(5, 6), by_new(6))
        add_log(tmp_path, [new.vkey])
        monotonic.now += 1
        await witness.add_checkpoint(5, LOG.proof(5, 6), by_new(6))
        await witness.add_checkpoint(*LOG.request(6, 7))
        rekey(tmp_path, ORIGIN, [new.vkey])
        monotonic.now += 1
        await refused(witness, BadSignature, 403, *LOG.request(7, 8))
        await witness.add_checkpoint(7, LOG.proof(7, 8), by_new(8))
        remove(tmp_path, ORIGIN)
        monotonic.now += 1
        await refused(witness, UnknownOrigin, 404, 8, LOG.proof(8, 9), by_new(9))
        # Added again, at once and from where it was.
        add_log(tmp_path, [new.vkey])
        refusal = await refused(witness, SizeConflict, 409, 0, [], by_new(9))
        assert isinstance(refusal, SizeConflict)
        assert refusal.size == 8


async def test_keys_may_be_named_otherwise(tmp_path: Path) -> None:
    origin = "a log, with spaces in its origin"
    async with a_witness(tmp_path) as witness:
        add_log(tmp_path, [LOG.signers[0].vkey], origin=origin)
        note = signed(replace(LOG.checkpoint(3), origin=origin))
        times_of(note, await witness.add_checkpoint(0, [], note))


async def test_429_is_for_new_heads_of_one_log(tmp_path: Path) -> None:
    monotonic = Clock()
    other = SomeLog("log.example/two")
    async with a_witness(tmp_path, LOG, other, monotonic=monotonic, rate=2, burst=3) as witness:
        for size in range(3):
            await witness.add_checkpoint(*LOG.request(max(0, size - 1), size))
        refusal = await refused(witness, TooManyRequests, 429, *LOG.request(2, 3))
        assert isinstance(refusal, TooManyRequests)
        assert refusal.retry_after == pytest.approx(0.5)
        await witness.add_checkpoint(*other.request(0, 3))
        # What anybody can replay, or get refused, takes nothing from the log.
        for _ in range(10):
            await witness.add_checkpoint(*LOG.request(2, 2))
            await refused(witness, BadSignature, 403, 2, [], flip(LOG.note(3)))
            await refused(witness, SizeConflict, 409, *LOG.request(0, 2))
            await refused(witness, Unprocessable, 422, 2, [], LOG.note(3))
        monotonic.now += 0.5
        await witness.add_checkpoint(*LOG.request(2, 3))
        await refused(witness, TooManyRequests, 429, *LOG.request(3, 4))


async def test_the_same_head_refreshes_the_time(tmp_path: Path) -> None:
    clock = Clock()
    async with a_witness(tmp_path, clock=clock) as witness:
        first = await witness.add_checkpoint(*LOG.request(0, 5))
        assert await witness.add_checkpoint(*LOG.request(5, 5)) == first
        clock.now += 60
        second = await witness.add_checkpoint(*LOG.request(5, 5))
        assert times_of(LOG.note(5), second) == {START + 60}
        # Never backwards, neither for the same head nor for the next.
        clock.now -= 3600
        assert await witness.add_checkpoint(*LOG.request(5, 5)) == second
        third = await witness.add_checkpoint(*LOG.request(5, 6))
        assert times_of(LOG.note(6), third) == {START + 60}


async def test_the_time_is_never_zero(tmp_path: Path) -> None:
    async with a_witness(tmp_path, clock=Clock(0)) as witness:
        assert times_of(LOG.note(5), await witness.add_checkpoint(*LOG.request(0, 5))) == {1}


async def test_resubmission_takes_no_signature_away(tmp_path: Path) -> None:
    log = SomeLog(algorithms=BOTH)
    clock = Clock()
    note = parse_note(log.note(5))
    async with a_witness(tmp_path, log, clock=clock) as witness:
        await witness.add_checkpoint(*log.request(0, 5))
        for index in (0, 1):
            clock.now += 1
            one = Note(note.text, (note.signatures[index],)).encode()
            cosignatures = await witness.add_checkpoint(5, [], one)
            shown = parse_note(witness.checkpoint(hash_origin(ORIGIN))).signatures
            assert set(shown) == {*note.signatures, *cosignatures}
            assert len(shown) == 4


async def test_extension_lines_are_cosigned_when_the_log_signed_them(tmp_path: Path) -> None:
    note = signed(LOG.checkpoint(5), extensions=("one", "two"))
    async with a_witness(tmp_path) as witness:
        assert times_of(note, await witness.add_checkpoint(0, [], note)) == {START}
        # Same tree, other lines, same second: a signature over other lines.
        other = signed(LOG.checkpoint(5), extensions=("three",))
        assert times_of(other, await witness.add_checkpoint(5, [], other)) == {START}
        assert times_of(LOG.note(5), await witness.add_checkpoint(5, [], LOG.note(5))) == {START}


async def test_extension_lines_that_nobody_signed_are_not_cosigned(tmp_path: Path) -> None:
    log = SomeLog(algorithms=(Algorithm.MLDSA44,))
    plain = parse_note(log.note(5))
    note = Note(plain.text + "smuggled\n", plain.signatures).encode()
    async with a_witness(tmp_path, log) as witness:
        (cosignature,) = await witness.add_checkpoint(0, [], note)
        assert cosignature.key_id == WITNESS_VKEYS[1].key_id
        assert b"smuggled" not in witness.checkpoint(hash_origin(ORIGIN))
        open_checkpoint(note + cosignature.encode(), WITNESS_VKEYS, origin=ORIGIN)
        # The plain one, in the same second, gets both.
        assert times_of(log.note(5), await witness.add_checkpoint(5, [], log.note(5))) == {START}


async def test_closed(tmp_path: Path) -> None:
    async with a_witness(tmp_path) as witness:
        begun = asyncio.create_task(witness.add_checkpoint(*LOG.request(0, 4)))
        await asyncio.sleep(0)
        await witness.close()
        times_of(LOG.note(4), await begun)
        await refused(witness, Unavailable, 503, *LOG.request(4, 5))


async def test_the_largest_sizes(tmp_path: Path) -> None:
    biggest = (1 << 63) - 1
    note = signed(Checkpoint(ORIGIN, biggest, hashlib.sha256(b"x").digest()))
    async with a_witness(tmp_path) as witness:
        times_of(note, await witness.add_checkpoint(0, [], note))
        refusal = await refused(witness, SizeConflict, 409, 0, [], note)
        assert isinstance(refusal, SizeConflict)
        assert refusal.size == biggest
        await witness.add_checkpoint(biggest, [], note)
        assert parse_unverified(witness.checkpoint(hash_origin(ORIGIN))).checkpoint.size == biggest
