"""What each system did for a request, and who was told of it (11 CCR 7022(b)), as the log says.

The records that say so need not name the subject, so they are found by the request's id. The docket
finds them: it reads the log itself, and so needs no search index, nor waits for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from tlog.audit.survey import claims_at, listed, repeated
from tlog.audit.times import parse_time

if TYPE_CHECKING:
    from tlog.audit.records import Records

# Of each type, the claim that names whose result it is, and what it is the result of: a newer one
# takes the place of an older one of the same. That a backup waits does not undo that data is gone.
_RESULTS: Final = {
    "delete.system_erased": ("system", "data"),
    "delete.deidentified": ("system", "data"),
    "delete.aggregated": ("system", "data"),
    "delete.backup_deferred": ("system", "backups"),
    "delete.backup_done": ("system", "backups"),
    "delete.suppression_added": ("system", "suppression"),
    "delete.processor_notified": ("recipient", "notice"),
    "delete.third_party_notified": ("recipient", "notice"),
    "delete.notice_impossible": ("recipient", "notice"),
}
_STEP: Final = 64


@dataclass(slots=True)
class _Told:
    """What is said of one system, or recipient: when, in which entry, and what; by subject matter.

    Attributes:
        name: empty if a notice was impossible to somebody whom its record does not name.
    """

    name: str
    newest: dict[str, tuple[datetime, int, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        # The name comes last: whatever is in it, all before the first colon is ours.
        results = [f"{kind} (entry {index})" for _, index, kind in sorted(self.newest.values())]
        return ": ".join([", ".join(results), *([repeated(self.name)] if self.name else [])])


class Outcomes:
    """What is told of a request: looked at again, it reads only what the log has got since."""

    def __init__(self, records: Records, request_id: str) -> None:
        self._records = records
        self._request_id = request_id
        self._told: dict[tuple[bool, str], _Told] = {}
        self._read = 0

    async def catch_up(self) -> int:
        """Read the request's records as far as they are not read yet; how many these were.

        Raises:
            StoreError: the log cannot be read.
        """
        entries = await self._records.docket.entries(self._request_id, self._read)
        for number, index in enumerate(entries, 1):
            if number % _STEP == 0:
                await asyncio.sleep(0)
            self._take(index)
            self._read += 1
        return len(entries)

    def _take(self, index: int) -> None:
        _, claims = claims_at(self._records, index)
        if (result := _RESULTS.get(claims["type"])) is None:
            return
        claim, matter = result
        name = claims.get(claim, "")
        of = self._told.setdefault((claim == "recipient", name), _Told(name))
        kind = claims["type"].removeprefix("delete.")
        said = (parse_time(claims["occurred_at"], field="occurred_at"), index, kind)
        of.newest[matter] = max(said, of.newest.get(matter, said))

    def lines(self) -> Sequence[str]:
        """The newest results, one line for each system, then one for each recipient.

        A line is `system_erased (entry 12), backup_deferred (entry 15): crm`: types without their
        `delete.`, in the order of time that their producers tell. There are as many as a claim may
        list; that there are more is said.
        """
        told = [str(self._told[key]) for key in sorted(self._told)]
        return listed(told, where="the request's records")


async def told_of(records: Records, request_id: str) -> Sequence[str]:
    """The newest results of a request by now: see `Outcomes`.

    Raises:
        StoreError: the log cannot be read.
    """
    outcomes = Outcomes(records, request_id)
    await outcomes.catch_up()
    return outcomes.lines()
