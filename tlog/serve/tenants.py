"""The records logs of one server, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tlog.serve.logs import Logs, UnknownLog

if TYPE_CHECKING:
    from tlog.audit.records import Records
    from tlog.audit.stamper import Stamper


class Tenants:
    """The records that a server holds.

    Args:
        logs: the logs that are served.
        records: those of the records logs among them, by the log's name.
        stampers: what has their time-stamps, of those that have some.

    Attributes:
        stampers: as given.
    """

    def __init__(
        self, logs: Logs, records: Mapping[str, Records], stampers: Mapping[str, Stamper]
    ) -> None:
        self._logs = logs
        self._records = records
        self.stampers = stampers

    def get(self, name: str) -> Records:
        """The records in the log of that name; in the only one when the name is empty.

        Raises:
            UnknownLog: there is none, or it is not a records log.
        """
        log = self._logs.get(name)
        if (records := self._records.get(log.name)) is None:
            raise UnknownLog(
                f"{log.name} is not a records log: name one that `tlog records init` has made",
                field="log",
            )
        return records
