import base64
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.notes.keyring import LOG, LOG_ED, LOG_PQ, TIME, W_ED, signer
from tests.notes.vectors import CHECKPOINT, PROOF_AS_PRINTED
from tlog.notes import (
    Algorithm,
    Checkpoint,
    NoteError,
    TlogProof,
    check_inclusion,
    cosign,
    parse_proof,
    sign_checkpoint,
    verify_proof,
    verify_proof_hash,
)
from tlog.notes.proof import MAX_EXTRA_SIZE, MAX_PROOF_SIZE

VKEYS = [LOG_ED.vkey, LOG_PQ.vkey]


def leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def split(leaves: list[bytes]) -> int:
    return 1 << (len(leaves) - 1).bit_length() - 1


def root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there: a second opinion."""
    if len(leaves) == 1:
        return leaves[0]
    k = split(leaves)
    return hashlib.sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:])).digest()


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(leaves)
    if index < k:
        return [*path(index, leaves[:k]), root(leaves[k:])]
    return [*path(index - k, leaves[k:]), root(leaves[:k])]


def entry(index: int) -> bytes:
    return b"entry %d" % index


def prove(index: int, size: int, extra: bytes | None = None) -> TlogProof:
    leaves = [leaf(entry(i)) for i in range(size)]
    note = sign_checkpoint(Checkpoint(LOG, size, root(leaves)), [LOG_ED], timestamp=TIME)
    return TlogProof(index, tuple(path(index, leaves)), note, extra)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 21])
def test_every_entry_of_a_tree(size: int) -> None:
    for index in range(size):
        proof = parse_proof(prove(index, size).encode())
        assert verify_proof(proof, entry(index), VKEYS).checkpoint.size == size
        assert verify_proof_hash(proof, leaf(entry(index)), VKEYS, origin=LOG)
        with pytest.raises(NoteError, match="not proven"):
            verify_proof(proof, entry(index) + b"x", VKEYS)
        # An inner node is not an entry, and an entry's hash is not the entry.
        with pytest.raises(NoteError, match="not proven"):
            verify_proof(proof, leaf(entry(index)), VKEYS)


def test_the_printed_example_with_its_gaps_filled() -> None:
    with pytest.raises(NoteError, match=r"line 5: 'hI2DJw\[...\]1roloI=' is not"):
        parse_proof(PROOF_AS_PRINTED.encode())  # its signatures are elided
    whole = [
        f"{line.rpartition(' ')[0]} {base64.b64encode(bytes(68)).decode()}"
        if line.startswith("—")
        else line
        for line in PROOF_AS_PRINTED.split("\n")
    ]
    data = "\n".join(whole).encode()
    proof = parse_proof(data)
    assert proof.extra is not None
    assert proof.extra.startswith(b"age-v1.2.1-darwin-arm64.tar.gz")
    assert (proof.index, len(proof.hashes)) == (73894, 5)
    assert proof.checkpoint.startswith(b"example.com/fancylog\n109482\n")
    assert proof.encode() == data


@settings(max_examples=50)
@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple),
    st.none() | st.binary(max_size=100),
)
def test_round_trip(index: int, hashes: tuple[bytes, ...], extra: bytes | None) -> None:
    proof = TlogProof(index, hashes, CHECKPOINT, extra)
    assert parse_proof(proof.encode()) == proof


def test_every_flipped_bit_is_refused_or_in_the_extra_data() -> None:
    proof = prove(5, 11, extra=b"not authenticated")
    data = proof.encode()
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            try:
                read = parse_proof(bytes(flipped))
                verify_proof(read, entry(5), VKEYS)
            except NoteError:
                continue
            assert read.extra != proof.extra
            assert replace(read, extra=proof.extra) == proof


def test_truncated_anywhere() -> None:
    data = prove(5, 11, extra=b"x").encode()
    for length in range(len(data)):
        with pytest.raises(NoteError):
            parse_proof(data[:length])


def test_the_checkpoint_is_kept_byte_for_byte() -> None:
    proof = prove(0, 2)
    checkpoint = proof.checkpoint + "— stranger AAAAAAA=\n".encode()
    data = replace(proof, checkpoint=checkpoint).encode()
    assert data.endswith(checkpoint)
    assert parse_proof(data).checkpoint == checkpoint
    assert verify_proof(parse_proof(data), entry(0), VKEYS)


PROOF = prove(2, 5)


@pytest.mark.parametrize("index", [0, 1, 3, 4, 5, 6, 2**63 - 1])
def test_another_index(index: int) -> None:
    with pytest.raises(NoteError):
        verify_proof(replace(PROOF, index=index), entry(2), VKEYS)


def test_index_beyond_the_tree() -> None:
    with pytest.raises(NoteError, match="index 5 is not in a tree of 5 entries"):
        verify_proof(replace(PROOF, index=5), entry(2), VKEYS)
    empty = Checkpoint(LOG, 0, hashlib.sha256(b"").digest())
    note = sign_checkpoint(empty, [LOG_ED], timestamp=TIME)
    with pytest.raises(NoteError, match="not in a tree of 0"):
        verify_proof(TlogProof(0, (), note), b"", VKEYS)


def test_swapped_missing_and_added_hashes() -> None:
    hashes = PROOF.hashes
    for changed in (hashes[::-1], hashes[:-1], hashes[1:], (), (*hashes, bytes(32)), hashes * 2):
        with pytest.raises(NoteError, match="not proven"):
            verify_proof(replace(PROOF, hashes=changed), entry(2), VKEYS)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_leaf_hash_of_another_size(size: int) -> None:
    with pytest.raises(NoteError, match="not proven"):
        verify_proof_hash(PROOF, bytes(size), VKEYS)


def test_the_checkpoint_must_be_of_the_log() -> None:
    with pytest.raises(NoteError, match="known key"):
        verify_proof(PROOF, entry(2), [signer(LOG, Algorithm.ED25519, 1).vkey])
    with pytest.raises(NoteError, match="wanted one of"):
        verify_proof(PROOF, entry(2), VKEYS, origin="log.example/two")
    other = prove(2, 6)
    with pytest.raises(NoteError, match="not proven"):
        verify_proof(replace(PROOF, checkpoint=other.checkpoint), entry(2), VKEYS)


def test_check_inclusion_against_a_checkpoint_verified_otherwise() -> None:
    verified = verify_proof(PROOF, entry(2), VKEYS)
    check_inclusion(PROOF, leaf(entry(2)), verified.checkpoint)
    line = cosign(verified.checkpoint, W_ED, timestamp=TIME).encode()
    cosigned = replace(PROOF, checkpoint=PROOF.checkpoint + line)
    assert len(verify_proof(cosigned, entry(2), [*VKEYS, W_ED.vkey]).signed_by) == 2


H = base64.b64encode(bytes(32)).decode()
TAIL = "\n" + CHECKPOINT.decode()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("", "line 1"),
        ("c2sp.org/tlog-proof@v2\nindex 0\n", "line 1"),
        ("c2sp.org/tlog-proof@v1 \nindex 0\n", "line 1"),
        ("c2sp.org/tlog-proof@v1\r\nindex 0\n", "line 1"),
        ("\nc2sp.org/tlog-proof@v1\nindex 0\n", "line 1"),
        ("c2sp.org/tlog-proof@v1\n", "line 2: expected `index`"),
        ("c2sp.org/tlog-proof@v1\nextra AA==\n", "line 3: expected `index`"),
        ("c2sp.org/tlog-proof@v1\nindex 0\nextra AA==\n", "line 3"),
        ("c2sp.org/tlog-proof@v1\nextra AA==\nextra AA==\nindex 0\n", "line 3"),
        ("c2sp.org/tlog-proof@v1\nextra AB==\nindex 0\n", "line 2: .*canonical"),
        ("c2sp.org/tlog-proof@v1\nextra AA\nindex 0\n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nextra\nindex 0\n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nindex\n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nindex \n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nindex  0\n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nindex 00\n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nindex 01\n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nindex -1\n", "line 2"),
        (f"c2sp.org/tlog-proof@v1\nindex {2**63}\n", "line 2"),
        (f"c2sp.org/tlog-proof@v1\nIndex 0\n{H}\n", "line 2"),
        (f"c2sp.org/tlog-proof@v1\nindex 0\n{H}\n{H[:-1]}\n", "line 4"),
        (f"c2sp.org/tlog-proof@v1\nindex 0\n {H}\n", "line 3"),
        (f"c2sp.org/tlog-proof@v1\nindex 0\n{H}\r\n", "line 3"),
        (f"c2sp.org/tlog-proof@v1\nindex 0\n{base64.b64encode(bytes(31)).decode()}\n", "31 bytes"),
        (f"c2sp.org/tlog-proof@v1\nindex 0\n{H}\n" + f"{H}\n" * 63, "limit is 63"),
        (f"c2sp.org/tlog-proof@v1\nindex 0\n{H}\n" + f"{H}\n" * 64, "more than 63"),
        (f"c2sp.org/tlog-proof@v1\nindex 0\n\n{H}\n", "at least three lines"),
    ],
)
def test_bad_files(head: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        parse_proof((head + TAIL).encode())


def test_other_bad_files() -> None:
    head = b"c2sp.org/tlog-proof@v1\nindex 0\n"
    for tail in (b"", b"\n", b"\nnot a checkpoint\n", b"\n\n" + CHECKPOINT, TAIL.encode() + b"\n"):
        with pytest.raises(NoteError):
            parse_proof(head + tail)
    with pytest.raises(NoteError, match="UTF-8"):
        parse_proof(b"c2sp.org/tlog-proof@v1\xff\n\n" + CHECKPOINT)
    with pytest.raises(NoteError, match=f"limit is {MAX_PROOF_SIZE}"):
        parse_proof(bytes(MAX_PROOF_SIZE + 1))


def test_extra_data() -> None:
    for extra in (None, b"", b"\x00\n", bytes(MAX_EXTRA_SIZE)):
        proof = replace(PROOF, extra=extra)
        assert parse_proof(proof.encode()) == proof
    with pytest.raises(NoteError, match="limit is 65536"):
        replace(PROOF, extra=bytes(MAX_EXTRA_SIZE + 1))
    line = b"extra " + base64.b64encode(bytes(MAX_EXTRA_SIZE + 1)) + b"\n"
    with pytest.raises(NoteError, match="limit is 65536"):
        parse_proof(b"c2sp.org/tlog-proof@v1\n" + line + b"index 0\n\n" + CHECKPOINT)


def test_the_largest_proof() -> None:
    proof = TlogProof(2**63 - 1, (bytes(32),) * 63, CHECKPOINT, bytes(MAX_EXTRA_SIZE))
    assert parse_proof(proof.encode()) == proof


def test_values_no_proof_has() -> None:
    for index, hashes in [(-1, ()), (2**63, ()), (0, (bytes(32),) * 64), (0, (bytes(31),))]:
        with pytest.raises(NoteError):
            TlogProof(index, hashes, CHECKPOINT)
    with pytest.raises(NoteError):
        TlogProof(0, (), b"text\n\n")


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    for candidate in (data, b"c2sp.org/tlog-proof@v1\n" + data):
        with pytest.raises(NoteError):
            parse_proof(candidate)
