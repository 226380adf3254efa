"""Two heads of different sizes, and what the log says about them when it is asked."""

from typing import Protocol

from tlog.merkle import ProofError, verify_consistency
from tlog.witness.conflict import Conflict, ConflictError, prefix_root
from tlog.witness.sightings import Head


class LogSource(Protocol):
    """The logs, as far as they can be asked. Whatever it raises counts as no proof."""

    async def consistency_proof(self, origin: str, old_size: int, new_size: int) -> list[bytes]:
        """The proof between two sizes, 0 < old < new (RFC 6962 section 2.1.2)."""


async def prove(source: LogSource, older: Head, newer: Head) -> Conflict | None:
    """None when the log proves one head from the other; the conflict, if it proves that.

    Raises:
        ProofError: neither.
    """
    old, new = older.checkpoint, newer.checkpoint
    proof: list[bytes] = []
    if old.size > 0:
        proof = await source.consistency_proof(old.origin, old.size, new.size)
    try:
        verify_consistency(
            old_size=old.size,
            new_size=new.size,
            old_root=old.root_hash,
            new_root=new.root_hash,
            proof=proof,
        )
    except ProofError:
        root = prefix_root(old.size, old.size, new.size, proof)
        other = old.size - 1 if old.size > 2 else old.size + 1
        if root is None and other < new.size:
            # From a power of two, a proof does not show the root that it leads from; one from
            # beside it does.
            beside = await source.consistency_proof(old.origin, other, new.size)
            root = prefix_root(old.size, other, new.size, beside)
        if root is None:
            raise
        try:
            return Conflict.inconsistent(older.note, newer.note, root=root, proof=proof)
        except ConflictError:
            pass
        raise
    return None
