"""The second opinion: what pymerkle, which shares no line with us, makes of the same hashes.

Two implementations that agree on a root would both have to be wrong in the same way. When they do
not, one of them is broken: that says nothing of the log, and is an alarm of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from pymerkle import BaseMerkleTree, ConsistencyProof
from pymerkle.core import _inclusion_path_layout

from tlog.client.errors import VerificationError
from tlog.merkle import HASH_SIZE, TILE_WIDTH, RightEdge

_TILE_BYTES = TILE_WIDTH * HASH_SIZE


class _Row(BaseMerkleTree):  # type: ignore[misc]  # it has no types
    """A row of concatenated hashes as the leaves of a tree of pymerkle's."""

    def __init__(self) -> None:
        super().__init__("sha256", disable_cache=True)
        self.hashes = b""

    def _encode_entry(self, data: bytes) -> bytes:
        return data

    def _store_leaf(self, data: bytes, digest: bytes) -> int:
        raise NotImplementedError("rows are given as a whole")

    def _get_leaf(self, index: int) -> bytes:
        return self.hashes[(index - 1) * HASH_SIZE : index * HASH_SIZE]

    def _get_leaves(self, offset: int, width: int) -> list[bytes]:
        hashes, size = self.hashes, HASH_SIZE
        return [hashes[i : i + size] for i in range(offset * size, (offset + width) * size, size)]

    def _get_size(self) -> int:
        return len(self.hashes) // HASH_SIZE


class SecondOpinion:
    """The roots of a growing tree, by pymerkle, in memory that does not grow with it.

    The tree is cut where tiles are: 256 hashes have one root, which is a leaf of the row above. Of
    each row only the hashes not yet under a full tile are kept, as `RightEdge` does.
    """

    def __init__(self, edge: RightEdge) -> None:
        self._rows = list(edge.partials)
        self._tree = _Row()

    def extend(self, leaf_hashes: bytes) -> None:
        """Append n leaf hashes, n * 32 bytes."""
        level = 0
        while leaf_hashes:
            if level == len(self._rows):
                self._rows.append(b"")
            row = self._rows[level] + leaf_hashes
            full = len(row) - len(row) % _TILE_BYTES
            self._rows[level] = row[full:]
            leaf_hashes = b"".join(
                [self._root(row[at : at + _TILE_BYTES]) for at in range(0, full, _TILE_BYTES)]
            )
            level += 1

    def check(self, edge: RightEdge) -> None:
        """The tree has the root that our own implementation gives it.

        Raises:
            VerificationError: it has not.
        """
        root = b""
        for row in self._rows:
            # What is left over on the right of a row is the last leaf of the one above.
            root = self._root(row + root) if row or root else b""
        if edge.size and root != edge.root():
            raise _disagree(f"the root of the first {edge.size} entries", edge.root(), root)

    def _root(self, row: bytes) -> bytes:
        self._tree.hashes = row
        root: bytes = self._tree.get_root()
        return root


def check_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Pymerkle accepts a consistency proof (RFC 6962 section 2.1.2) that our own verifier accepted.

    Raises:
        VerificationError: it does not.
    """
    if old_size in (0, new_size):
        return  # there is nothing to prove
    # Its paths begin with the hash that both roots are made of. RFC 6962 leaves that one out where
    # it is the old root itself.
    path = [old_root, *proof] if not old_size & (old_size - 1) else list(proof)
    rule = _inclusion_path_layout(old_size, new_size)[0][-len(path) :]
    subset = [1, *rule[: len(path) - 1]]
    theirs = ConsistencyProof("sha256", True, new_size, old_size, rule, subset, path)
    what = f"the consistency proof from {old_size} to {new_size}"
    if (root := theirs.compute_root()) != new_root:
        raise _disagree(what, new_root, root)
    if (root := theirs.retrieve_prior_state()) != old_root:
        raise _disagree(what, old_root, root)


def _disagree(what: str, ours: bytes, theirs: bytes) -> VerificationError:
    return VerificationError(
        "opinion",
        f"two implementations disagree on {what}: tlog finds {ours.hex()}, pymerkle "
        f"{theirs.hex()}. One of the two is broken; trust no verdict of this auditor until it is "
        "known which",
    )
