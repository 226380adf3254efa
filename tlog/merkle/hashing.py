"""The hash functions of the tree (RFC 6962 section 2.1), one at a time and in batches.

hashlib is the reference. When stringzilla is installed it hashes the messages of a batch side
by side, provided that it agrees with hashlib on every batch of a self-check at import.
"""

import hashlib
from collections.abc import Callable, Sequence
from struct import iter_unpack
from typing import Final, TypeAlias

from tlog.merkle.errors import MerkleError

HASH_SIZE: Final = 32

# RFC 6962 2.1: "Note that the hash calculations for leaves and nodes differ. This domain
# separation is required to give second preimage resistance."
_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"

EMPTY_ROOT: Final = hashlib.sha256().digest()
"""MTH({}), the root hash of the tree of size 0."""

Sha256Batch: TypeAlias = Callable[[list[bytes]], bytes]
"""n messages -> n * 32 bytes: their SHA-256 digests, concatenated."""


def _hashlib_batch(messages: list[bytes]) -> bytes:
    sha256 = hashlib.sha256
    return b"".join([sha256(message).digest() for message in messages])


def _load_stringzilla() -> Sha256Batch | None:
    try:
        from stringzilla import Sha256s  # noqa: PLC0415  (optional: the `speed` extra)
    except ImportError:
        return None

    def stringzilla_batch(messages: list[bytes]) -> bytes:
        count = len(messages)
        # Setting up the lanes costs more than it saves below this many (measured).
        if count < 8:
            return _hashlib_batch(messages)
        digests = bytearray(count * HASH_SIZE)
        Sha256s(count).update(messages).digest(out=digests)
        return bytes(digests)

    return stringzilla_batch


def _agrees_with_hashlib(batch: Sha256Batch) -> bool:
    """Whether a batch function gives hashlib's digests, whatever the lengths and lane counts.

    The lengths stand on both sides of SHA-256's padding and block boundaries.
    """
    lengths = (0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 257, 4096, 65535, 65536)
    pattern = bytes(range(251)) * 262  # 251 is prime: no two blocks of a message are alike
    messages = [pattern[length % 13 :][:length] for length in lengths]
    mixed = [messages * 3, *(messages[:count] for count in range(8, len(messages)))]
    # Lanes of one length are the everyday case, and the parallel path.
    equal = [
        [pattern[start : start + length] for start in range(count)]
        for length, count in ((65, 17), (65, 256), (64, 33), (257, 64))
    ]
    try:
        return all(batch(one) == _hashlib_batch(one) for one in (*mixed, *equal))
    except Exception:  # noqa: BLE001  (a broken accelerator, however broken, is not used)
        return False


def _choose() -> tuple[str, Sha256Batch]:
    batch = _load_stringzilla()
    if batch is not None and _agrees_with_hashlib(batch):
        return "stringzilla", batch
    return "hashlib", _hashlib_batch


BACKEND, _batch = _choose()


def leaf_hash(entry: bytes) -> bytes:
    """MTH({d(0)}) = SHA-256(0x00 || d(0)) (RFC 6962 section 2.1)."""
    return hashlib.sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), the hash of an inner node (RFC 6962 section 2.1)."""
    return hashlib.sha256(_NODE + left + right).digest()


def leaf_hashes(entries: Sequence[bytes]) -> bytes:
    """The leaf hashes of n entries, concatenated: n * 32 bytes."""
    return _batch([_LEAF + entry for entry in entries])


def node_hashes(children: bytes) -> bytes:
    """The pairwise parents of 2n concatenated hashes: 2n * 32 bytes -> n * 32 bytes.

    Raises:
        MerkleError: the length of `children` is not a multiple of 64.
    """
    if len(children) % (2 * HASH_SIZE):
        raise MerkleError(
            f"{len(children)} bytes are not pairs of hashes: expected a multiple of 64"
        )
    return _batch([_NODE + pair for (pair,) in iter_unpack("64s", children)])


def fold(hashes: bytes) -> bytes:
    """MTH over a row of n >= 1 subtree hashes, of which only the last may be of a ragged subtree.

    All subtrees but the last have one common size, a power of two, and the last is not larger.
    An odd last hash rises unchanged until it finds a left sibling: with k the largest power
    of two below n, that is the split of RFC 6962 section 2.1.
    """
    while len(hashes) > HASH_SIZE:
        paired = len(hashes) & -(2 * HASH_SIZE)
        hashes = node_hashes(hashes[:paired]) + hashes[paired:]
    return hashes


def join_peaks(hashes: Sequence[bytes]) -> bytes:
    """MTH over n >= 1 subtrees of strictly falling sizes, all complete but perhaps the last.

    Every split of RFC 6962 section 2.1 then cuts off exactly the first subtree.
    """
    root = hashes[-1]
    for peak in reversed(hashes[:-1]):
        root = node_hash(peak, root)
    return root
