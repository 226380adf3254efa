import base64
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.notes.keyring import (
    HEAD,
    LOG_ED,
    LOG_PQ,
    TIME,
    W_ED,
    W_PQ,
    checkpoints,
    hashes,
    integers,
    signer,
)
from tests.notes.vectors import COSIGNED, ORIGIN, ROOT, SIZE, WITNESS_MESSAGE, WITNESS_TIMESTAMP
from tlog.notes import (
    Algorithm,
    Checkpoint,
    NoteError,
    NoteSignature,
    Signer,
    Subtree,
    cosign,
    cosign_subtree,
    parse_note,
    verify_cosignature,
    verify_subtree_cosignature,
)

EXAMPLE = Checkpoint(ORIGIN, SIZE, base64.b64decode(ROOT))


def with_timestamp(signature: NoteSignature, timestamp: int) -> NoteSignature:
    return replace(signature, signature=timestamp.to_bytes(8, "big") + signature.signature[8:])


def test_the_example_of_the_specification() -> None:
    signature = parse_note(COSIGNED).signatures[1]
    assert (signature.name, signature.key_id) == ("witness.example.com/w1", 0x8D66CF3F)
    # The specification gives no public key for it: only its form can be checked.
    assert len(signature.signature) == 8 + 64
    assert int.from_bytes(signature.signature[:8], "big") == WITNESS_TIMESTAMP


def test_the_ed25519_message_is_the_one_of_the_specification() -> None:
    signature = cosign(EXAMPLE, W_ED, timestamp=WITNESS_TIMESTAMP)
    assert signature.signature[:8] == WITNESS_TIMESTAMP.to_bytes(8, "big")
    assert W_ED.vkey.verifies(signature.signature[8:], WITNESS_MESSAGE)
    assert verify_cosignature(EXAMPLE, W_ED.vkey, signature) == WITNESS_TIMESTAMP


def test_the_ml_dsa_message_is_the_struct_of_the_specification() -> None:
    signature = cosign(EXAMPLE, W_PQ, timestamp=WITNESS_TIMESTAMP)
    name = W_PQ.vkey.name.encode()
    message = (
        b"subtree/v1\n\x00"
        + struct.pack(">B", len(name)) + name
        + struct.pack(">Q", 1679315147)
        + struct.pack(">B", 27) + b"example.com/behind-the-sofa"
        + struct.pack(">QQ", 0, 20852163)
        + base64.b64decode(ROOT)
    )  # fmt: skip
    assert len(signature.signature) == 8 + 2420
    assert W_PQ.vkey.verifies(signature.signature[8:], message)
    assert verify_cosignature(EXAMPLE, W_PQ.vkey, signature) == WITNESS_TIMESTAMP


@settings(max_examples=30)
@given(checkpoints, st.integers(1, 2**63 - 1), st.sampled_from([W_ED, W_PQ]))
def test_round_trip(checkpoint: Checkpoint, timestamp: int, key: Signer) -> None:
    signature = cosign(checkpoint, key, timestamp=timestamp)
    assert verify_cosignature(checkpoint, key.vkey, signature) == timestamp


@settings(max_examples=20)
@given(integers, integers, hashes)
def test_subtree_round_trip(one: int, two: int, root: bytes) -> None:
    start, end = sorted((one, two))
    if start == end:
        return
    subtree = Subtree(ORIGIN, start, end, root)
    signature = cosign_subtree(subtree, W_PQ)
    assert verify_subtree_cosignature(subtree, W_PQ.vkey, signature) == 0


@pytest.mark.parametrize("key", [W_ED, W_PQ])
def test_every_flipped_byte_of_a_cosignature(key: Signer) -> None:
    signature = cosign(HEAD, key, timestamp=TIME)
    for position in range(len(signature.signature)):
        flipped = bytearray(signature.signature)
        flipped[position] ^= 1 << (position % 8)
        with pytest.raises(NoteError):
            verify_cosignature(HEAD, key.vkey, replace(signature, signature=bytes(flipped)))


@pytest.mark.parametrize("key", [W_ED, W_PQ])
def test_every_length_but_the_right_one(key: Signer) -> None:
    signature = cosign(HEAD, key, timestamp=TIME)
    right = len(signature.signature)
    for size in {*range(1, 80), right - 1, right + 1, 8 + 64, 8 + 2420} - {right}:
        data = (signature.signature + bytes(3000))[:size]
        with pytest.raises(NoteError, match=f"has {size} bytes, not {right}"):
            verify_cosignature(HEAD, key.vkey, replace(signature, signature=data))


@pytest.mark.parametrize("key", [W_ED, W_PQ])
@pytest.mark.parametrize(
    "other",
    [
        replace(HEAD, origin="log.example/two"),
        replace(HEAD, size=HEAD.size + 1),
        replace(HEAD, root_hash=bytes(32)),
    ],
)
def test_it_covers_every_field(key: Signer, other: Checkpoint) -> None:
    with pytest.raises(NoteError, match="does not verify"):
        verify_cosignature(other, key.vkey, cosign(HEAD, key, timestamp=TIME))


def test_extension_lines_are_covered_by_ed25519_only() -> None:
    extended = replace(HEAD, extensions=("x",))
    with pytest.raises(NoteError, match="does not verify"):
        verify_cosignature(extended, W_ED.vkey, cosign(HEAD, W_ED, timestamp=TIME))
    assert verify_cosignature(extended, W_PQ.vkey, cosign(HEAD, W_PQ, timestamp=TIME)) == TIME


def test_ml_dsa_covers_the_name_of_the_cosigner() -> None:
    renamed = Signer.from_seed("witness.example/other", Algorithm.MLDSA44, W_PQ.seed)
    signature = cosign(HEAD, W_PQ, timestamp=TIME)
    forged = replace(signature, name=renamed.vkey.name, key_id=renamed.vkey.key_id)
    with pytest.raises(NoteError, match="does not verify"):
        verify_cosignature(HEAD, renamed.vkey, forged)


def test_a_signature_of_somebody_else() -> None:
    signature = cosign(HEAD, W_PQ, timestamp=TIME)
    with pytest.raises(NoteError, match="not of log"):
        verify_cosignature(HEAD, LOG_PQ.vkey, signature)


@pytest.mark.parametrize("key", [W_ED, W_PQ])
@pytest.mark.parametrize("timestamp", [0, -1, 2**63, 2**64])
def test_timestamps_that_are_not_signed(key: Signer, timestamp: int) -> None:
    with pytest.raises(NoteError, match="timestamp"):
        cosign(HEAD, key, timestamp=timestamp)


@pytest.mark.parametrize("key", [W_ED, W_PQ])
def test_timestamps_beyond_the_bound_are_refused_though_signed(key: Signer) -> None:
    signature = with_timestamp(cosign(HEAD, key, timestamp=TIME), 2**63)
    with pytest.raises(NoteError, match="outside 0 to"):
        verify_cosignature(HEAD, key.vkey, signature)


def test_plain_ed25519_keys_do_not_cosign() -> None:
    with pytest.raises(NoteError, match="cannot sign this"):
        cosign(HEAD, LOG_ED, timestamp=TIME)
    with pytest.raises(NoteError, match="cannot sign this"):
        verify_cosignature(
            HEAD, LOG_ED.vkey, NoteSignature(LOG_ED.vkey.name, LOG_ED.vkey.key_id, bytes(72))
        )


# Subtrees

TREE = Subtree(HEAD.origin, 0, HEAD.size, HEAD.root_hash)
MIDDLE = Subtree(HEAD.origin, 256, 512, HEAD.root_hash)


def test_a_subtree_from_zero_without_time_is_a_checkpoint_cosignature_of_time_zero() -> None:
    assert verify_cosignature(HEAD, W_PQ.vkey, cosign_subtree(TREE, W_PQ)) == 0


def test_subtree_and_checkpoint_of_one_time_are_one_statement() -> None:
    signature = cosign_subtree(TREE, W_PQ, timestamp=TIME)
    assert verify_cosignature(HEAD, W_PQ.vkey, signature) == TIME
    signature = cosign(HEAD, W_PQ, timestamp=TIME)
    assert verify_subtree_cosignature(TREE, W_PQ.vkey, signature) == TIME


def test_a_subtree_that_does_not_start_at_zero_has_no_time() -> None:
    with pytest.raises(NoteError, match="must be 0"):
        cosign_subtree(MIDDLE, W_PQ, timestamp=TIME)
    stamped = with_timestamp(cosign_subtree(MIDDLE, W_PQ), TIME)
    with pytest.raises(NoteError, match="must be 0"):
        verify_subtree_cosignature(MIDDLE, W_PQ.vkey, stamped)


def test_subtree_cosignatures_cover_every_field() -> None:
    signature = cosign_subtree(MIDDLE, W_PQ)
    changes: list[dict[str, object]] = [
        {"origin": "log.example/two"},
        {"start": 255},
        {"end": 513},
        {"root_hash": bytes(32)},
    ]
    for change in changes:
        with pytest.raises(NoteError, match="does not verify"):
            verify_subtree_cosignature(replace(MIDDLE, **change), W_PQ.vkey, signature)  # type: ignore[arg-type]


def test_only_ml_dsa_signs_subtrees() -> None:
    for key in (W_ED, LOG_ED):
        with pytest.raises(NoteError, match="cannot sign this"):
            cosign_subtree(MIDDLE, key)


@pytest.mark.parametrize(
    ("start", "end"), [(-1, 1), (1, 1), (2, 1), (0, -1), (0, 2**63), (2**63, 2**63 + 1)]
)
def test_ranges_no_subtree_has(start: int, end: int) -> None:
    with pytest.raises(NoteError):
        Subtree(ORIGIN, start, end, bytes(32))


def test_origins_and_hashes_no_subtree_has() -> None:
    for origin in ("", "o" * 256, "a\nb"):
        with pytest.raises(NoteError, match="origin"):
            Subtree(origin, 0, 1, bytes(32))
    with pytest.raises(NoteError, match="31 bytes"):
        Subtree(ORIGIN, 0, 1, bytes(31))


def test_the_longest_names() -> None:
    key = signer("n" * 255, Algorithm.MLDSA44)
    head = replace(HEAD, origin="o" * 255)
    assert verify_cosignature(head, key.vkey, cosign(head, key, timestamp=TIME)) == TIME
