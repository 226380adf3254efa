"""Which alerts were told to whom: `DIR/alerts.db`, a small SQLite database of its own.

Put down once an alert has arrived, and synced: killed before that, the process tells it again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tlog.audit.errors import AlertError

FILE_NAME: Final = "alerts.db"
_VERSION: Final = 1


class AlertStore:
    """What was told of one log. Calls block on the disk, one at a time; all raise AlertError."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        with self._errors():
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            # A rollback journal, and its directory synced too.
            self._db.execute("PRAGMA synchronous = EXTRA")
            if (version := self._version()) == 0:
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS told (sink TEXT, id TEXT, PRIMARY KEY (sink, id)) "
                    "WITHOUT ROWID"
                )
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise AlertError(f"{self._path} is of version {version}, this reads {_VERSION}")

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def told(self, sink: str) -> set[str]:
        """The ids of all alerts that it was told."""
        with self._errors():
            rows = self._db.execute("SELECT id FROM told WHERE sink = ?", (sink,))
            return {name for (name,) in rows}

    def put(self, sink: str, alert: str) -> None:
        """It was told this one."""
        with self._errors():
            self._db.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (sink, alert))

    def _version(self) -> int:
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        return version

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise AlertError(f"{self._path}: {error}") from None
