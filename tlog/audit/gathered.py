"""What a round is going to write, gathered so that an event is in it with all that it brings.

An event brings keys, sealed parts, changes of the registry, and findings that are events
themselves, any of which may still be refused. So all of it goes into a `branch`, which nobody
writes. It is merged when nothing can be refused any more; one that is dropped leaves nothing.
"""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass, field

from tlog.audit.obligations import Obliging
from tlog.audit.producers import Registry
from tlog.audit.vault import Sealing


@dataclass(slots=True)
class Gathered:
    """What is to be written of a round, or of one event and what comes of it.

    Attributes:
        registry: of producers, as it will be.
        sealing: keys and sealed parts.
        first: the place of the first of its leaves among those of the round.
        leaves: in the order of the log.
        marks: for each leaf the event id and its hash.
        obliging: records that oblige to something, by the place of their leaf.
        findings: kinds of what was found.
        fresh: by event id, the place and the content of each event that has it.
    """

    registry: Registry
    sealing: Sealing
    first: int = 0
    leaves: list[bytes] = field(default_factory=list)
    marks: list[bytes] = field(default_factory=list)
    obliging: list[tuple[int, Obliging]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    fresh: ChainMap[bytes, tuple[tuple[int, bytes], ...]] = field(default_factory=ChainMap)

    @property
    def end(self) -> int:
        """The place of the next leaf."""
        return self.first + len(self.leaves)

    def branch(self) -> Gathered:
        """For what may be refused: it sees all of this, and adds to itself alone."""
        return Gathered(
            self.registry.branch(), self.sealing.branch(), self.end, fresh=self.fresh.new_child()
        )

    def merge(self, branch: Gathered) -> None:
        """Take over what was added to a branch, the last that was made of this."""
        self.registry.merge(branch.registry)
        self.sealing.merge(branch.sealing)
        self.leaves += branch.leaves
        self.marks += branch.marks
        self.obliging += branch.obliging
        self.findings += branch.findings
        self.fresh.update(branch.fresh.maps[0])
