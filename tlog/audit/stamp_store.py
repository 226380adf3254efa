"""Where a log's time-stamps are kept: `DIR/stamps.db`, a small SQLite database of its own.

    checkpoints   those that are stamped or are to be: the note, and since when it is due
    waiting       which authority has yet to stamp which checkpoint
    stamps        the answers of the authorities, as they came
    authorities   what each one's stamps are verified with: those that are asked no more count, too

An answer is put in and its place in the queue taken away in one transaction, synced before it
returns: killed before that, the process asks again; after it, the stamp is there. All that is read
here is to be verified by whoever uses it (`verify_stamp`).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tlog.audit.stamps import Authority, Stamp, StampError, StampTime

FILE_NAME: Final = "stamps.db"
MAX_WAITING: Final = 1024
"""Checkpoints that wait for one authority. With more, the newest takes the place of the newest
before it: its stamp bounds the entries of both, and no stamp that is yet to come can be earlier."""

_VERSION: Final = 2
_AUTHORITIES: Final = f"""
    CREATE TABLE authorities (name TEXT PRIMARY KEY, signers BLOB NOT NULL, issuers BLOB NOT NULL);
    PRAGMA user_version = {_VERSION};
"""
_TABLES: Final = f"""
    CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note BLOB NOT NULL, due REAL NOT NULL);
    CREATE TABLE waiting (
        authority TEXT, size INTEGER REFERENCES checkpoints, PRIMARY KEY (authority, size)
    ) WITHOUT ROWID;
    CREATE TABLE stamps (
        authority TEXT NOT NULL, size INTEGER NOT NULL REFERENCES checkpoints,
        answer BLOB NOT NULL, not_after REAL NOT NULL, PRIMARY KEY (authority, size)
    );
    CREATE INDEX stamps_by_time ON stamps (authority, not_after);
    {_AUTHORITIES}
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A checkpoint that an authority is to stamp, waiting since `since`, POSIX time."""

    size: int
    note: bytes
    since: float


@dataclass(frozen=True, slots=True)
class Tally:
    """What there is of one authority.

    Attributes:
        stamped: how many checkpoints.
        size: entries of the largest of these; 0 if there is none.
        waiting: how many checkpoints wait for it.
        since: when the first of these was due, POSIX time; None when none waits.
    """

    stamped: int
    size: int
    waiting: int
    since: float | None


class StampStore:
    """The stamps of one log. Calls block on the disk, one at a time; all raise StampError.

    Args:
        directory: of the log.
        create: make the database if there is none.
    """

    def __init__(self, directory: Path, *, create: bool) -> None:
        self._path = directory / FILE_NAME
        if not create and not self._path.exists():
            raise StampError(
                f"{directory} has no time-stamps: name authorities in timestamps.toml, and serve it"
            )
        with self._errors():
            self._db = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            # A rollback journal, and its directory synced too.
            self._db.execute("PRAGMA synchronous = EXTRA")
            if create and (tables := {0: _TABLES, 1: _AUTHORITIES}.get(self._version())):
                with self._transaction():
                    for statement in filter(str.strip, tables.split(";")):
                        self._db.execute(statement)
            # One of version 1 is read as it is until a server opens it.
            if (version := self._version()) not in {1, _VERSION}:
                raise StampError(f"{self._path} is of version {version}, this reads {_VERSION}")

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def expect(self, authorities: Sequence[Authority]) -> None:
        """Wait for these authorities only: others were taken out of the settings.

        What their stamps are verified with is kept, for when they are.
        """
        names = [each.name for each in authorities]
        kept = [(each.name, _pem(each.signers), _pem(each.issuers)) for each in authorities]
        marks = ", ".join("?" * len(names))
        with self._errors(), self._transaction():
            self._db.execute(
                f"DELETE FROM waiting WHERE authority NOT IN ({marks})",  # noqa: S608 -- of marks
                names,
            )
            self._db.executemany("INSERT OR REPLACE INTO authorities VALUES (?, ?, ?)", kept)

    def earlier(self, authorities: Sequence[Authority]) -> dict[str, Authority | None]:
        """Those that stamped and are not among these; None for one that was not kept."""
        asked = {each.name for each in authorities}
        with self._errors():
            stamped = self._db.execute("SELECT DISTINCT authority FROM stamps ORDER BY authority")
            names = [name for (name,) in stamped if name not in asked]
            return {name: self._kept(name) for name in names}

    def _kept(self, name: str) -> Authority | None:
        if self._version() == 1:
            return None
        row = self._one("SELECT signers, issuers FROM authorities WHERE name = ?", name)
        try:
            return row and Authority(name, "", *map(_certificates, row))
        except (ValueError, TypeError, x509.InvalidVersion) as error:
            raise StampError(f"{self._path}: the certificates of {name}: {error}") from None

    def newest(self) -> Due | None:
        """The checkpoint that was queued last."""
        with self._errors():
            row = self._one("SELECT size, note, due FROM checkpoints ORDER BY size DESC LIMIT 1")
        return row and Due(*row)

    def queue(self, due: Due, authorities: Sequence[str]) -> None:
        """Let these authorities stamp a checkpoint."""
        with self._errors(), self._transaction():
            self._db.execute(
                "INSERT INTO checkpoints (size, note, due) VALUES (?, ?, ?)",
                (due.size, due.note, due.since),
            )
            for authority in authorities:
                if self.tally(authority).waiting >= MAX_WAITING:
                    self._drop_newest(authority)
                self._db.execute("INSERT INTO waiting VALUES (?, ?)", (authority, due.size))

    def next(self, authority: str) -> Due | None:
        """The newest checkpoint that waits for an authority; None when none does.

        The newest, because its stamp bounds the entries of all that are older, too.
        """
        with self._errors():
            row = self._one(
                "SELECT size, note, due FROM waiting JOIN checkpoints USING (size)"
                " WHERE authority = ? ORDER BY size DESC LIMIT 1",
                authority,
            )
        return row and Due(*row)

    def keep(self, authority: str, size: int, answer: bytes, time: StampTime) -> None:
        """Put down a verified answer; durable on return, and the checkpoint waits no more."""
        with self._errors(), self._transaction():
            self._db.execute(
                "INSERT INTO stamps VALUES (?, ?, ?, ?)",
                (authority, size, answer, time.not_after.timestamp()),
            )
            self._db.execute(
                "DELETE FROM waiting WHERE authority = ? AND size = ?", (authority, size)
            )

    def tally(self, authority: str) -> Tally:
        """How far an authority has come."""
        with self._errors():
            stamped, size = self._one(
                "SELECT count(*), coalesce(max(size), 0) FROM stamps WHERE authority = ?", authority
            )
            waiting, since = self._one(
                "SELECT count(*), min(due) FROM waiting JOIN checkpoints USING (size)"
                " WHERE authority = ?",
                authority,
            )
        return Tally(stamped, size, waiting, since)

    def all(self) -> Iterator[Stamp]:
        """All stamps, by size and authority."""
        after: tuple[int, str] = (-1, "")
        while True:
            # A page at a time: whoever writes must not wait for who reads them all.
            with self._errors():
                rows = self._db.execute(
                    f"{_SELECT} WHERE (size, authority) > (?, ?) ORDER BY size, authority LIMIT 64",
                    after,
                ).fetchall()
            if not rows:
                return
            for row in rows:
                stamp = Stamp(*row)
                yield stamp
                after = (stamp.size, stamp.authority)

    def including(self, index: int, authority: str) -> Stamp | None:
        """The first stamp of an authority over a checkpoint that includes an entry."""
        with self._errors():
            row = self._one(
                _SELECT + " WHERE authority = ? AND size > ? ORDER BY not_after, size LIMIT 1",
                authority,
                index,
            )
        return row and Stamp(*row)

    def excluding(self, index: int, authority: str) -> Stamp | None:
        """The stamp over the last stamped checkpoint that does not include an entry yet."""
        with self._errors():
            row = self._one(
                _SELECT + " WHERE authority = ? AND size <= ? ORDER BY size DESC LIMIT 1",
                authority,
                index,
            )
        return row and Stamp(*row)

    def _version(self) -> int:
        return int(self._one("PRAGMA user_version")[0])

    def _drop_newest(self, authority: str) -> None:
        due = self.next(authority)
        assert due is not None  # noqa: S101 -- the queue is full
        self._db.execute(
            "DELETE FROM waiting WHERE authority = ? AND size = ?", (authority, due.size)
        )
        self._db.execute(
            "DELETE FROM checkpoints WHERE size = ?1"
            " AND NOT EXISTS (SELECT 1 FROM waiting WHERE size = ?1)"
            " AND NOT EXISTS (SELECT 1 FROM stamps WHERE size = ?1)",
            (due.size,),
        )

    def _one(self, statement: str, *values: object) -> Any:
        return self._db.execute(statement, values).fetchone()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StampError(
                f"{self._path}: {error}. If it is damaged, keep it, and put a copy in its place; "
                "without one, stamps begin anew"
            ) from None


def not_kept(names: Sequence[str]) -> str:
    """What to do about authorities whose certificates are not there."""
    return (
        f"{', '.join(names)}: taken out of timestamps.toml before certificates were kept. Put it "
        "back and start the server once; then it may go"
    )


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def _certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificates(pem))


_SELECT: Final = "SELECT authority, size, note, answer FROM stamps JOIN checkpoints USING (size)"
