"""What an auditor keeps when a log contradicts itself: the log may not show it a second time."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tlog.cli.witness.evidence import save_conflict
from tlog.client import VerificationError
from tlog.merkle import ProofError, SourceError, TileSource
from tlog.notes import parse_unverified
from tlog.witness import Conflict, ConflictError
from tlog.witness.proving import prove
from tlog.witness.sightings import Head


async def keep_evidence(error: VerificationError, log: TileSource, state: Path) -> str:
    """Write the heads that an error is about beside the audit's state; say where, for people.

    Where they prove that the log broke its promise it is a conflict, the file that `tlog witness
    verify-conflict` and `tools/verify.py` verify. A rollback alone is none: nothing says when the
    log signed what it shows.
    """
    if len(error.evidence) != 2:
        return ""
    try:
        conflict = await _conflict(error.evidence, log)
        if conflict is not None:
            return f" (proof of it: {save_conflict(conflict.encode(), state.parent)})"
        both = b"\n".join(error.evidence)
        digest = hashlib.sha256(both).hexdigest()[:16]
        file = state.with_name(f"{state.name}.{digest}.heads")
        file.write_bytes(both)
    except OSError as failure:
        return f" (the two signed heads could not be kept: {failure.strerror})"
    return f" (the two signed heads: {file})"


async def _conflict(heads: tuple[bytes, ...], log: TileSource) -> Conflict | None:
    """What the heads contradict each other in, if that can be proven to everybody."""
    older, newer = sorted(
        (Head(parse_unverified(note).checkpoint, note) for note in heads),
        key=lambda head: head.checkpoint.size,
    )
    try:
        if older.checkpoint.size == newer.checkpoint.size:
            return Conflict.between(older.note, newer.note)
        return await prove(_Asked(log), older, newer)
    except (ConflictError, ProofError, SourceError):
        return None


class _Asked:
    """The log that is audited, as the one that `prove` asks."""

    def __init__(self, log: TileSource) -> None:
        self._log = log

    async def consistency_proof(self, origin: str, old_size: int, new_size: int) -> list[bytes]:
        return await self._log.consistency_proof(old_size, new_size)
