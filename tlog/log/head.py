"""A signed tree head of this log."""

from __future__ import annotations

from dataclasses import dataclass

from tlog.notes import Checkpoint


@dataclass(frozen=True, slots=True)
class Head:
    """The checkpoint, and the note that carries it with its signatures."""

    checkpoint: Checkpoint
    note: bytes

    @property
    def size(self) -> int:
        """How many entries the tree has."""
        return self.checkpoint.size
