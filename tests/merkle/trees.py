"""The tree as the RFCs define it: recursive, slow, sharing nothing with the room but SHA-256."""

import hashlib
from functools import lru_cache

from tlog.merkle import RightEdge, TileCache, TileNodeReader, leaf_hashes

Hashes = list[bytes]


def leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(count: int) -> int:
    """The largest power of two smaller than count."""
    k = 1
    while k * 2 < count:
        k *= 2
    return k


def mth(leaves: Hashes) -> bytes:
    """RFC 9162 2.1.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: Hashes) -> Hashes:
    """RFC 9162 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def path_ranges(m: int, begin: int, end: int) -> list[tuple[int, int]]:
    """PATH(m - begin, D[begin:end]) by the same definition, as what its hashes are of."""
    if end - begin == 1:
        return []
    middle = begin + split(end - begin)
    if m < middle:
        return [*path_ranges(m, begin, middle), (middle, end)]
    return [*path_ranges(m, middle, end), (begin, middle)]


def subproof(m: int, leaves: Hashes, b: bool) -> Hashes:
    """RFC 9162 2.1.4.1; PROOF(m, D_n) = SUBPROOF(m, D_n, true)."""
    if m == len(leaves):
        return [] if b else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], b), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def subtree_subproof(start: int, end: int, leaves: Hashes, b: bool) -> Hashes:
    """draft-ietf-plants-merkle-tree-certs 4.4."""
    if start == 0 and end == len(leaves):
        return [] if b else [mth(leaves)]
    k = split(len(leaves))
    if end <= k:
        return [*subtree_subproof(start, end, leaves[:k], b), mth(leaves[k:])]
    if k <= start:
        return [*subtree_subproof(start - k, end - k, leaves[k:], b), mth(leaves[:k])]
    assert start == 0
    return [*subtree_subproof(0, end - k, leaves[k:], False), mth(leaves[:k])]


def subtrees(size: int) -> list[tuple[int, int]]:
    """All valid subtrees [start, end) of a tree: start is a multiple of BIT_CEIL(end - start)."""
    found = []
    for start in range(size):
        for end in range(start + 1, size + 1):
            ceiling = 1
            while ceiling < end - start:
                ceiling *= 2
            if start % ceiling == 0:
                found.append((start, end))
    return found


def entry(index: int) -> bytes:
    return b"entry %d" % index


@lru_cache
def row(size: int) -> bytes:
    return leaf_hashes([entry(index) for index in range(size)])


@lru_cache
def leaves(size: int) -> Hashes:
    return [leaf(entry(index)) for index in range(size)]


def reader(size: int, *, capacity: int = 64) -> TileNodeReader:
    tiles = dict(RightEdge().extend(row(size))[1])
    return TileNodeReader(TileCache(tiles.__getitem__, capacity=capacity), size)
