"""Which ranges of leaves a proof is made of, and the proof itself (RFC 9162 section 2.1).

Ranges come first: every element of a proof is MTH(D[begin:end]) for a range that follows from
the tree sizes alone, so a reader of range hashes serves every kind of proof.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from tlog.merkle.errors import MerkleError
from tlog.merkle.tiles import MAX_TREE_SIZE

Range = tuple[int, int]
"""[begin, end), leaf indices."""

_BITS: Final = tuple(1 << level for level in range(63))


class NodeReader(Protocol):
    """The hashes of a stored tree."""

    def range_hashes(self, ranges: Sequence[Range]) -> list[bytes]:
        """MTH(D[begin:end]) for each range, in the order asked for.

        Raises:
            MerkleError: a range is not a valid subtree, or reaches over the tree.
        """


def is_subtree(start: int, end: int) -> bool:
    """Whether [start, end) is a valid subtree (draft-ietf-plants-merkle-tree-certs 4.1).

    It is when 0 <= start < end and start is a multiple of BIT_CEIL(end - start), the smallest
    power of two not below its argument.
    """
    return 0 <= start < end and not start & (_bit_ceil(end - start) - 1)


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """PATH(index, D[0:size]) as ranges, from the leaf's sibling up (RFC 9162 section 2.1.3.1).

    Raises:
        MerkleError: not 0 <= index < size < 2**63.
    """
    _check_size(size)
    if not 0 <= index < size:
        raise MerkleError(f"leaf index {index} is not in a tree of size {size}")
    # `index` and `size` agree above the highest bit in which they differ; that bit is set in
    # `size` alone, so it is the width of the complete subtree (a peak of the tree) with the leaf.
    level = (index ^ size).bit_length() - 1
    ranges = [(begin := (index ^ bit) & -bit, begin + bit) for bit in _BITS[:level]]
    begin = size >> level + 1 << level + 1
    end = begin + (1 << level)
    # The smaller peaks, all on the right, are one element; the larger are one each.
    if end < size:
        ranges.append((end, size))
    while begin:
        bit = begin & -begin
        ranges.append((begin - bit, begin))
        begin -= bit
    return ranges


def consistency_ranges(old_size: int, new_size: int) -> list[Range]:
    """PROOF(old_size, D[0:new_size]) as ranges (RFC 9162 section 2.1.4.1).

    Empty for equal sizes, and for an old size of 0: every tree is an extension of the empty one.

    Raises:
        MerkleError: not 0 <= old_size <= new_size < 2**63.
    """
    _check_size(new_size)
    if not 0 <= old_size <= new_size:
        raise MerkleError(f"old size {old_size} is not in 0..{new_size}, the new size")
    return subtree_consistency_ranges(0, old_size, new_size) if old_size else []


def subtree_consistency_ranges(start: int, end: int, size: int) -> list[Range]:
    """SUBTREE_PROOF(start, end, D[0:size]) (draft-ietf-plants-merkle-tree-certs section 4.4).

    Raises:
        MerkleError: [start, end) is not a valid subtree, or not 0 <= end <= size < 2**63.
    """
    _check_size(size)
    if not is_subtree(start, end) or end > size:
        raise MerkleError(
            f"[{start}, {end}) is not a subtree of a tree of size {size}: expected start < end"
            " <= size, and start a multiple of the smallest power of two not below end - start"
        )
    ranges = []
    known = True
    begin, stop = 0, size
    while (begin, stop) != (start, end):
        # RFC 9162 2.1.1: "k be the largest power of two smaller than n"
        middle = begin + (1 << (stop - begin - 1).bit_length() - 1)
        if end <= middle:
            ranges.append((middle, stop))
            stop = middle
        elif middle <= start:
            ranges.append((begin, middle))
            begin = middle
        else:
            # Only a subtree that begins with this one crosses its middle. From here on the
            # proof is about its right part alone, whose hash the verifier does not know.
            ranges.append((begin, middle))
            start = begin = middle
            known = False
    if not known:
        ranges.append((start, end))
    ranges.reverse()
    return ranges


def inclusion_proof(index: int, size: int, reader: NodeReader) -> list[bytes]:
    """The hashes of PATH(index, D[0:size]) (RFC 9162 section 2.1.3.1).

    Raises:
        MerkleError: not 0 <= index < size < 2**63.
    """
    return reader.range_hashes(inclusion_ranges(index, size))


def consistency_proof(old_size: int, new_size: int, reader: NodeReader) -> list[bytes]:
    """The hashes of PROOF(old_size, D[0:new_size]) (RFC 9162 section 2.1.4.1).

    Raises:
        MerkleError: not 0 <= old_size <= new_size < 2**63.
    """
    return reader.range_hashes(consistency_ranges(old_size, new_size))


def subtree_consistency_proof(start: int, end: int, size: int, reader: NodeReader) -> list[bytes]:
    """The hashes of SUBTREE_PROOF(start, end, D[0:size]) (merkle-tree-certs section 4.4).

    Raises:
        MerkleError: [start, end) is not a valid subtree, or not 0 <= end <= size < 2**63.
    """
    return reader.range_hashes(subtree_consistency_ranges(start, end, size))


def _bit_ceil(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_TREE_SIZE:
        raise MerkleError(f"tree size {size} is not in 0..2**63 - 1")
