from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.witness.support import START, WITNESS_VKEYS, SomeLog, signer
from tlog.merkle import EMPTY_ROOT
from tlog.notes import Algorithm, Checkpoint, Note, parse_note
from tlog.notes.note import sign_text
from tlog.witness.conflict import (
    MAX_CONFLICT_SIZE,
    Conflict,
    ConflictError,
    ConflictKind,
    parse_conflict,
    prefix_root,
    verify_conflict,
)

BOTH = (Algorithm.ED25519, Algorithm.MLDSA44)
LOG, FORK = SomeLog(), SomeLog(forked_at=3)
VKEYS = [s.vkey for s in LOG.signers]


def anything(origin: str, size: int, root: bytes) -> bytes:
    """A log that signs what `sign_checkpoint` refuses."""
    body = Checkpoint(origin, size, root).body()
    return Note(body, (sign_text(body, signer(origin, Algorithm.ED25519)),)).encode()


def same_size() -> Conflict:
    return Conflict.between(LOG.note(7), FORK.note(7))


def inconsistent(old: int = 5, new: int = 9) -> Conflict:
    proof = FORK.proof(old, new)
    return Conflict.inconsistent(LOG.note(old), FORK.note(new), root=FORK.root(old), proof=proof)


def empty_tree() -> Conflict:
    head = anything(LOG.origin, 0, b"\1" * 32)
    return Conflict.between(LOG.note(7), head)


KINDS = [same_size, inconsistent, empty_tree]


@pytest.mark.parametrize("make", KINDS)
def test_a_conflict_is_verified_with_the_keys_of_the_log_alone(make) -> None:  # type: ignore[no-untyped-def]
    conflict = make()
    data = conflict.encode()
    assert verify_conflict(data, VKEYS) == conflict == parse_conflict(data)
    assert verify_conflict(data, VKEYS).encode() == data
    assert "\n" not in conflict.summary
    assert LOG.origin in conflict.summary
    assert conflict.origin == LOG.origin


@pytest.mark.parametrize("make", KINDS)
def test_every_bit_counts(make) -> None:  # type: ignore[no-untyped-def]
    data = make().encode()
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises(ConflictError):
                verify_conflict(bytes(flipped), VKEYS)


@pytest.mark.parametrize("make", KINDS)
def test_every_cut_and_every_surplus_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    data = make().encode()
    for end in range(len(data)):
        with pytest.raises(ConflictError):
            verify_conflict(data[:end], VKEYS)
    for surplus in (b"\n", b"x", b"\n\n", b"\n" + LOG.note(3), data, b"\0"):
        for whole in (data + surplus, surplus + data):
            with pytest.raises(ConflictError):
                verify_conflict(whole, VKEYS)


def test_an_honest_log_cannot_be_accused_by_any_sizes() -> None:
    for old in range(1, 10):
        for new in range(old, 10):
            for kind in ConflictKind:
                heads = tuple(sorted((LOG.note(old), LOG.note(new))))
                for root in (None, LOG.root(old), FORK.root(old)):
                    for proof in (LOG.proof(old, new), FORK.proof(old, new)):
                        data = Conflict(kind, heads, root, tuple(proof)).encode()
                        with pytest.raises(ConflictError):
                            verify_conflict(data, VKEYS)


def test_a_proof_that_fails_accuses_nobody() -> None:
    proof = [bytes(32) for _ in LOG.proof(5, 9)]
    with pytest.raises(ConflictError, match="proves nothing"):
        Conflict.inconsistent(LOG.note(5), LOG.note(9), root=b"\1" * 32, proof=proof)
    with pytest.raises(ConflictError, match="no contradiction"):
        Conflict.inconsistent(LOG.note(5), LOG.note(9), root=LOG.root(5), proof=LOG.proof(5, 9))


@pytest.mark.parametrize(("old", "new"), [(0, 9), (7, 7), (9, 5)])
def test_sizes_from_which_a_proof_shows_nothing(old: int, new: int) -> None:
    with pytest.raises(ConflictError):
        Conflict.inconsistent(LOG.note(old), FORK.note(new), root=b"\1" * 32, proof=[])


def test_heads_that_agree_are_no_conflict() -> None:
    for first, second in ((7, 7), (7, 8)):
        with pytest.raises(ConflictError):
            Conflict.between(LOG.note(first), LOG.note(second))
    with pytest.raises(ConflictError):
        Conflict.between(LOG.note(0), LOG.note(4))


def test_heads_of_two_logs_do_not_contradict_each_other() -> None:
    with pytest.raises(ConflictError, match="different logs"):
        Conflict.between(LOG.note(7), SomeLog("other.example", forked_at=3).note(7))


def test_a_key_that_signs_for_two_logs_is_not_a_split_view() -> None:
    other = anything(LOG.origin, 7, b"\2" * 32).replace(LOG.origin.encode() + b"\n7", b"x\n7")
    with pytest.raises(ConflictError, match="different logs"):
        Conflict.between(LOG.note(7), other)


def test_other_keys_prove_nothing() -> None:
    data = same_size().encode()
    stranger = signer("stranger.example", Algorithm.ED25519).vkey
    for vkeys in ([], [stranger], [signer(LOG.origin, Algorithm.ED25519, 1).vkey]):
        with pytest.raises(ConflictError, match="not signed by the log"):
            verify_conflict(data, vkeys)
    with pytest.raises(ConflictError, match="key of a witness"):
        verify_conflict(data, [*VKEYS, WITNESS_VKEYS[0]])
    with pytest.raises(ConflictError, match="head 1"):
        verify_conflict(data, VKEYS, origin="another.example")


def test_one_head_of_the_log_and_one_of_a_forger() -> None:
    forged = FORK.note(7).replace(b"\n7\n", b"\n8\n")
    data = Conflict(ConflictKind.SAME_SIZE, tuple(sorted((LOG.note(8), forged)))).encode()
    with pytest.raises(ConflictError):
        verify_conflict(data, VKEYS)


def test_signatures_of_strangers_are_taken_off() -> None:
    note = parse_note(LOG.note(7))
    stranger = sign_text(note.text, signer("stranger.example", Algorithm.ED25519))
    longer = Note(note.text, (stranger, *note.signatures)).encode()
    conflict = Conflict.between(longer, FORK.note(7))
    verified = verify_conflict(conflict.encode(), VKEYS)
    assert verified == same_size()
    assert conflict.digest == verified.digest


def test_mldsa_logs_and_logs_whose_keys_have_other_names() -> None:
    log, fork = SomeLog(algorithms=BOTH), SomeLog(algorithms=BOTH, forked_at=2)
    data = Conflict.between(log.note(6), fork.note(6)).encode()
    for vkey in (s.vkey for s in log.signers):
        assert verify_conflict(data, [vkey]).kind is ConflictKind.SAME_SIZE
    assert START  # both notes are of one time: the timestamps are not what differs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.replace(b"@v1", b"@v2"), "line 1"),
        (lambda d: d.replace(b"inconsistent", b"inconvenient"), "line 2"),
        (lambda d: d.replace(b"inconsistent", b"same-size"), "belong to"),
        (lambda d: d.replace(b"root ", b"hash "), "line 3"),
        (lambda d: d.replace(b"\n", b"\r\n"), "not a conflict"),
        (lambda d: b"\xff" + d, "UTF-8"),
        (lambda d: d.ljust(MAX_CONFLICT_SIZE + 1, b"\n"), "limit"),
        (lambda d: b"", "needs a header"),
        (lambda d: d.replace(b"\n\n", b"\n" + b"A" * 43 + b"=\n", 1), "needs a header"),
        (
            lambda d: d.replace(b"\n\n", b"".join([b"\n" + b"A" * 43 + b"="] * 70) + b"\n\n", 1),
            "limit",
        ),
    ],
)
def test_what_is_wrong_is_said(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConflictError, match=message):
        parse_conflict(change(inconsistent().encode()))


def test_the_order_of_the_heads_is_fixed() -> None:
    conflict = same_size()
    swapped = Conflict(conflict.kind, conflict.heads[::-1])
    with pytest.raises(ConflictError, match="not in order"):
        parse_conflict(swapped.encode())
    assert Conflict.between(FORK.note(7), LOG.note(7)) == conflict


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    for whole in (data, b"tlog-conflict@v1\nsame-size\n\n" + data):
        with pytest.raises(ConflictError):
            parse_conflict(whole)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_a_proof_shows_the_true_root_of_a_prefix_or_none(prefix: int, old: int, new: int) -> None:
    if not prefix <= new or not old <= new:
        return
    root = prefix_root(prefix, old, new, LOG.proof(old, new))
    assert root in (None, LOG.root(prefix))
    if prefix == old and old & (old - 1) and old < new:
        assert root is not None
    if old == prefix - 1 > 1 and prefix & old == 0:
        assert root is not None


def test_a_proof_of_the_wrong_length_shows_nothing() -> None:
    proof = LOG.proof(5, 9)
    for bad in (proof[1:], [*proof, bytes(32)], [b"", *proof[1:]], []):
        assert prefix_root(5, 5, 9, bad) is None
    assert prefix_root(9, 9, 5, proof) is None
    assert EMPTY_ROOT not in proof
