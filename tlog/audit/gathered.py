"""What a round is going to write, gathered so that an event is in it with all that it brings.

An event brings keys, sealed parts, changes of the registry, and findings that are events
themselves, any of which may still be refused: then all of it is taken back (`Gathered.whole`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlog.audit.obligations import Obliging
from tlog.audit.producers import Registry
from tlog.audit.undo import Journal, Undoable, take_back
from tlog.audit.vault import Sealing, Vault


class Gathered:
    """What is to be written of a round.

    Attributes:
        registry: of producers, as it will be.
        sealing: keys and sealed parts.
        leaves: in the order of the log.
        marks: for each leaf the event id and its hash.
        obliging: records that oblige to something, by the place of their leaf.
        findings: kinds of what was found.
        fresh: by event id, the place and the content of each event that has it.
    """

    def __init__(self, registry: Registry, vault: Vault) -> None:
        self._journal: Journal = []
        self.registry = Registry(
            Undoable(self._journal, registry.producers), Undoable(self._journal, registry.keys)
        )
        self.sealing = Sealing(vault, self._journal)
        self.leaves: list[bytes] = []
        self.marks: list[bytes] = []
        self.obliging: list[tuple[int, Obliging]] = []
        self.findings: list[str] = []
        self.fresh: Undoable[bytes, tuple[tuple[int, bytes], ...]] = Undoable(self._journal)
        self._lists: tuple[list[Any], ...] = (
            *(self.leaves, self.marks, self.obliging, self.findings),
            *(self.sealing.puts, self._journal),
        )

    def whole(self) -> Whole:
        """Of what is gathered inside, nothing stays if something is refused."""
        return Whole(self)

    def lengths(self) -> list[int]:
        """How far it has come."""
        return [*map(len, self._lists)]

    def back_to(self, lengths: Sequence[int]) -> None:
        """Take back what was gathered since."""
        take_back(self._journal, lengths[-1])
        for gathered, length in zip(self._lists, lengths, strict=True):
            del gathered[length:]


class Whole:
    """See `Gathered.whole`."""

    __slots__ = ("_gathered", "_lengths")

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered

    def __enter__(self) -> None:
        self._lengths = self._gathered.lengths()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._gathered.back_to(self._lengths)
