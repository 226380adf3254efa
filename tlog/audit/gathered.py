"""What a round is going to write, gathered so that an event is in it with all that it brings.

An event brings keys, sealed parts, changes of the registry, and findings that are events
themselves, any of which may still be refused: then all of it is taken back (`Gathered.whole`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tlog.audit.obligations import Obliging
from tlog.audit.producers import Registry
from tlog.audit.undo import Undoable
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
        producers, keys = Undoable(registry.producers), Undoable(registry.keys)
        self.registry = Registry(producers, keys)
        self.sealing = Sealing(vault)
        self.leaves: list[bytes] = []
        self.marks: list[bytes] = []
        self.obliging: list[tuple[int, Obliging]] = []
        self.findings: list[str] = []
        self.fresh: Undoable[bytes, tuple[tuple[int, bytes], ...]] = Undoable()
        self._lists: tuple[list[Any], ...] = (
            *(self.leaves, self.marks, self.obliging, self.findings),
            self.sealing.puts,
        )
        self._maps: tuple[Undoable[Any, Any], ...] = (
            *(producers, keys, self.fresh),
            *(self.sealing.new_subjects, self.sealing.new_epochs),
        )

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """What is gathered inside stays if nothing is refused; else nothing of it does."""
        lengths = [len(each) for each in self._lists]
        changes = [each.changes for each in self._maps]
        try:
            yield
        except BaseException:
            for gathered, length in zip(self._lists, lengths, strict=True):
                del gathered[length:]
            for mapping, count in zip(self._maps, changes, strict=True):
                mapping.back_to(count)
            raise
