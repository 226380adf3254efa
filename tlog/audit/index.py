"""The search index: which records have which public claims and tokens, in SQLite.

Derived from the leaves alone, so there is nothing personal in it and no key, and it outlives an
erasure as the log does: the tokens that are left in it belong to nobody whom one could name. Lost
or damaged, it is made anew. In `DIR/index/records.db`:

    records     index of the entry, time (of the event, microseconds), kind, public claims, token
                of the first actor
    kinds       type, producer and outcome: what few records differ in
    pairs       type of the resource, and a kind that goes with it
    tokens      of subjects, resources and the other actors, time, index: an event may have many
    covers      of which log, how many of its entries, the root hash of the tree of so many, and
                how many rows that made

Results stand by the time of the event, then by index, and each column has an index in that order:
a page costs what it holds, wherever it begins. Of several conditions the rarest leads, the others
only filter. What no record is together, of a type and with an outcome, is no kind and no pair, and
found at once to be nowhere.
"""

from __future__ import annotations

import contextlib
import heapq
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from tlog.audit.codec import decode_base64url, load_json
from tlog.audit.errors import AuditError, EventRefused
from tlog.audit.leaf import parse_leaf
from tlog.audit.times import parse_time
from tlog.merkle import TILE_WIDTH, split_bundle

DIRECTORY: Final = "index"
_FILE: Final = "records.db"
_VERSION: Final = 3
SECONDS: Final = 5.0
"""What one query may take."""
QUICK: Final = 0.25
"""What one may take that holds up others."""
# Beyond so many, one condition is as good to begin with as another.
_ENOUGH: Final = 20_000
# So few records are put in order at once.
_FEW: Final = 1000
# So many kinds lead; if there are more, they only filter.
_RUNS: Final = 500
# Steps of SQLite's machine between two looks at the clock.
_STEPS: Final = 10_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

SUBJECT: Final = "subject"
_OTHERS: Final = "other actors"
_TOKENS: Final = (SUBJECT, "resource", _OTHERS)
_KIND: Final = ("type", "producer", "outcome")
_ALSO: Final = ("request_id", "resource_type", "actor")
"""What can be asked for, all together."""
_SORT: Final = _ALSO.index("resource_type")

_TABLES: Final = ("records", "tokens", "kinds", "pairs")
_SCHEMA: Final = f"""
CREATE TABLE covers (origin TEXT, size INTEGER, root BLOB, {" INTEGER, ".join(_TABLES)} INTEGER);
CREATE TABLE kinds
    (kind INTEGER PRIMARY KEY, {" TEXT NOT NULL, ".join(_KIND)}, UNIQUE ({", ".join(_KIND)}));
CREATE TABLE pairs (resource_type TEXT, kind INTEGER, PRIMARY KEY (resource_type, kind))
    WITHOUT ROWID;
CREATE TABLE records (idx INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind INTEGER NOT NULL,
    {", ".join(_ALSO)});
CREATE TABLE tokens (token TEXT, at INTEGER, idx INTEGER, PRIMARY KEY (token, at, idx))
    WITHOUT ROWID;
CREATE INDEX by_time ON records (at, idx, kind);
CREATE INDEX by_kind ON records (kind, at, idx);
{"".join(f"CREATE INDEX by_{c} ON records ({c}, at, idx, kind) WHERE {c} NOTNULL;" for c in _ALSO)}
PRAGMA user_version = {_VERSION};
"""


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


_INSERT_KIND: Final = "INSERT OR IGNORE INTO kinds (type, producer, outcome) VALUES (?, ?, ?)"
_INSERT_PAIR: Final = (
    "INSERT OR IGNORE INTO pairs "
    "SELECT ?, kind FROM kinds WHERE type = ? AND producer = ? AND outcome = ?"
)
_SELECT_KIND: Final = "SELECT kind FROM kinds WHERE type = ? AND producer = ? AND outcome = ?"
_INSERT_RECORD: Final = f"INSERT INTO records VALUES (?, ?, ?, {_marks(_ALSO)})"  # noqa: S608
_INSERT_NAMED: Final = "INSERT OR IGNORE INTO tokens VALUES (?, ?, ?)"

Place = tuple[int, int]
"""Of a record among the results: its time in microseconds, its index."""


class IndexDamaged(AuditError):
    """The index is not what it should be: make it anew."""


class TooSlow(AuditError):
    """A query would take too long: its conditions leave too much."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: of each name one of the values, and of the time a part.

    Attributes:
        values: by column, `subject` or `resource`; claims, or values of tokens. No values: nothing
            is found.
        since: not before; microseconds.
        until: before.
        after: beyond this place, in the order that is asked for.
        size: among so many of the first entries of the log.
        newest_first: the order.
        limit: of places.
    """

    limit: int
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    since: int | None = None
    until: int | None = None
    after: Place | None = None
    size: int | None = None
    newest_first: bool = False


class Index:
    """An open index. One thread, or process, writes, and one thread reads, with `find`.

    Attributes:
        size: how many entries of the log it has.
        root: the root hash of the tree of so many.
        origin: of the log; empty at first.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / DIRECTORY / _FILE
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        with self._errors():
            self._writer = self._connect()
            if self._version() == 0:
                self._writer.executescript(_SCHEMA)
                self._writer.execute("INSERT INTO covers VALUES ('', 0, x'', 0, 0, 0, 0)")
                self._writer.commit()
            elif self._version() != _VERSION:
                raise IndexDamaged(f"{self._path} is of version {self._version()}")
            rows = self._writer.execute("SELECT origin, size, root FROM covers").fetchall()
            self._reader = self._connect()
        if len(rows) != 1 or [*map(type, rows[0])] != [str, int, bytes]:
            raise IndexDamaged(f"{self._path} does not say what it covers")
        self.origin: str = rows[0][0]
        self.size: int = rows[0][1]
        self.root: bytes = rows[0][2]

    @staticmethod
    def remove(directory: Path) -> None:
        """Remove the index of a log: it will be made anew."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory / DIRECTORY)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False, isolation_level="IMMEDIATE")
        # After a crash it may lack the last batches, but is whole.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA cache_size = -16384")
        return database

    def _version(self) -> int:
        version: int = self._writer.execute("PRAGMA user_version").fetchone()[0]
        return version

    def close(self) -> None:
        """Close it."""
        for each in (self._reader, self._writer):
            each.close()

    def add(self, begin: int, entries: Sequence[bytes], *, origin: str, root: bytes) -> None:
        """Take in the entries that follow, all or none. What is no record is passed over.

        Args:
            begin: the index of the first, which is `size`.
            entries: from there on.
            origin: of their log.
            root: of the tree with them.

        Raises:
            IndexDamaged: make it anew.
            AuditError: the disk is full, say: try again.
        """
        if begin != self.size:
            raise IndexDamaged(f"{self._path} has {self.size} entries, not {begin}")
        records: list[tuple[int, int, tuple[str, ...], tuple[Any, ...]]] = []
        tokens: list[tuple[str, int, int]] = []
        kinds: set[tuple[str, ...]] = set()
        pairs: set[tuple[str, ...]] = set()
        for index, entry in enumerate(entries, begin):
            try:
                at, kind, columns, listed = _read(entry)
            except (EventRefused, LookupError, ValueError):
                continue
            records.append((index, at, kind, columns))
            tokens += [(token, at, index) for token in listed]
            kinds.add(kind)
            if (sort := columns[_SORT]) is not None:
                pairs.add((sort, *kind))
        size = begin + len(entries)
        with self._errors(), self._writer as writer:
            made = [max(writer.executemany(_INSERT_KIND, kinds).rowcount, 0)]
            number = {kind: writer.execute(_SELECT_KIND, kind).fetchone()[0] for kind in kinds}
            rows = [(index, at, number[kind], *columns) for index, at, kind, columns in records]
            counts = made + [
                max(writer.executemany(statement, rows).rowcount, 0)
                for statement, rows in (
                    (_INSERT_PAIR, pairs),
                    (_INSERT_RECORD, rows),
                    (_INSERT_NAMED, tokens),
                )
            ]
            writer.execute(
                "UPDATE covers SET origin = ?, size = ?, root = ?, kinds = kinds + ?, "
                "pairs = pairs + ?, records = records + ?, tokens = tokens + ?",
                (origin, size, root, *counts),
            )
        self.origin, self.size, self.root = origin, size, root

    def check(self) -> None:
        """Count what it has: rows that somebody took, or lost, are missed.

        Raises:
            IndexDamaged: it is not as many as were put in.
        """
        with self._errors():
            counted = [
                self._writer.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
                for table in _TABLES
            ]
            tables = ", ".join(_TABLES)
            known = self._writer.execute(f"SELECT {tables} FROM covers").fetchone()  # noqa: S608
        if counted != [*known]:
            raise IndexDamaged(f"{self._path} has {counted} rows of {tables}, not {[*known]}")

    def find(self, wanted: Wanted, *, quick: bool = False) -> list[Place]:
        """The places of the first records that are wanted.

        Raises:
            TooSlow: it would take over `SECONDS`, or over `QUICK` if it has to be quick.
            IndexDamaged: make it anew.
        """
        deadline = time.monotonic() + (QUICK if quick else SECONDS)
        with self._errors():
            self._reader.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            found = self._find(wanted)
            values = dict(wanted.values)
            # Of several actors, all but the first are among the tokens.
            if (actors := values.pop("actor", ())) and self._rarity(_OTHERS, actors):
                others = self._find(replace(wanted, values={**values, _OTHERS: actors}))
                return _merged(wanted, [found, others])
            return found

    def _find(self, wanted: Wanted) -> list[Place]:
        conditions = self._conditions(wanted)
        if not all(conditions.values()):
            return []
        rarity = {
            name: self._rarity(name, values)
            for name, values in conditions.items()
            if name != "kind" or len(values) <= _RUNS
        }
        # The others filter: what an event has many of is looked up value by value.
        lookups = {
            name: 1 + sum(len(conditions[o]) for o in _TOKENS if o in conditions and o != name)
            for name in rarity
        }
        leading = min(rarity, key=lambda name: rarity[name] * lookups[name], default="")
        if not leading or rarity[leading] <= _FEW:
            return list(self._select(wanted, conditions, leading))
        # The values of one name are runs in the order that is wanted.
        return _merged(
            wanted,
            [
                self._select(wanted, {**conditions, leading: [value]}, leading)
                for value in conditions[leading]
            ],
        )

    def _conditions(self, wanted: Wanted) -> dict[str, Sequence[str | int]]:
        """What is wanted of each column, or of tokens; kinds last."""
        asked = {name: wanted.values[name] for name in _KIND if name in wanted.values}
        conditions: dict[str, Sequence[str | int]] = {
            name: values for name, values in wanted.values.items() if name not in asked
        }
        if asked:
            where = " AND ".join(f"{name} IN ({_marks(v)})" for name, v in asked.items())
            if sorts := wanted.values.get("resource_type"):
                asked["resource_type"] = sorts
                paired = f"SELECT kind FROM pairs WHERE resource_type IN ({_marks(sorts)})"  # noqa: S608
                where += f" AND kind IN ({paired})"
            found = self._reader.execute(
                f"SELECT kind FROM kinds WHERE {where}",  # noqa: S608
                [value for values in asked.values() for value in values],
            )
            conditions["kind"] = [kind for (kind,) in found]
        return conditions

    def _rarity(self, name: str, values: Sequence[str | int]) -> int:
        table, column = ("tokens", "token") if name in _TOKENS else ("records", name)
        count: int = self._reader.execute(
            "SELECT count(*) FROM (SELECT 1 "  # noqa: S608
            f"FROM {table} WHERE {column} IN ({_marks(values)}) LIMIT {_ENOUGH})",
            values,
        ).fetchone()[0]
        return count

    def _select(
        self, wanted: Wanted, values: Mapping[str, Sequence[str | int]], leading: str
    ) -> Iterator[Place]:
        """The places that have of each name one of the values, in order, as many as on the page."""
        conditions: list[str] = []
        given: list[Any] = [*values.get(leading, ())]
        distinct = ""
        if leading in _TOKENS:
            source = "tokens AS t CROSS JOIN records AS r ON r.idx = t.idx"
            at, idx = "t.at", "t.idx"
            conditions.append(f"t.token IN ({_marks(given)})")
            distinct = "DISTINCT" if len(given) > 1 else ""
        else:
            source = f"records AS r INDEXED BY by_{leading or 'time'}"
            at, idx = "r.at", "r.idx"
            if leading:
                conditions.append(f"r.{leading} IN ({_marks(given)})")
        for name, others in values.items():
            if name != leading:
                marks = _marks(others)
                about = (
                    "EXISTS (SELECT 1 FROM tokens AS o "  # noqa: S608
                    f"WHERE o.token IN ({marks}) AND o.at = r.at AND o.idx = r.idx)"
                )
                conditions.append(about if name in _TOKENS else f"r.{name} IN ({marks})")
                given += others
        bounds = (
            (f"{at} >=", wanted.since), (f"{at} <", wanted.until), (f"{idx} <", wanted.size),
        )  # fmt: skip
        for what, bound in bounds:
            if bound is not None:
                conditions.append(f"{what} ?")
                given.append(bound)
        if wanted.after is not None:
            sign = "<" if wanted.newest_first else ">"
            conditions.append(f"{at} {sign}= ? AND ({at}, {idx}) {sign} (?, ?)")
            given += [wanted.after[0], *wanted.after]
        order = "DESC" if wanted.newest_first else "ASC"
        return self._reader.execute(
            f"SELECT {distinct} {at}, {idx} FROM {source} "  # noqa: S608
            f"WHERE {' AND '.join(conditions) or 'TRUE'} "
            f"ORDER BY {at} {order}, {idx} {order} LIMIT ?",
            (*given, wanted.limit),
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                raise TooSlow(
                    f"it takes more than {SECONDS:g} seconds: ask for less, with --since and "
                    "--until, or one more condition"
                ) from None
            # A table, or a column; "unsupported file format"; the first table of one half made.
            if str(error).startswith(("no such", "unsupported", "table covers already")):
                raise IndexDamaged(f"{self._path}: {error}") from None
            raise AuditError(f"{self._path}: {error}") from None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise IndexDamaged(f"{self._path}: {error}") from None


@dataclass(frozen=True, slots=True)
class Window:
    """Entries on their way into the index, perhaps in another process.

    Attributes:
        directory: of the log.
        origin: of the log.
        begin: index of the first entry.
        bundles: encoded, from the one that holds it on.
        root: of the tree with all of them.
    """

    directory: Path
    origin: str
    begin: int
    bundles: Sequence[bytes]
    root: bytes

    def __call__(self) -> None:
        """Add them. Adding them once more changes nothing.

        Raises:
            As `Index.add`.
        """
        entries = [entry for bundle in self.bundles for entry in split_bundle(bundle)]
        following = entries[self.begin % TILE_WIDTH :]
        with contextlib.closing(Index(self.directory)) as index:
            if index.root != self.root:
                index.add(self.begin, following, origin=self.origin, root=self.root)


def _merged(wanted: Wanted, runs: Sequence[Iterable[Place]]) -> list[Place]:
    """Runs in the order that is wanted, as one: a record may be in several."""
    merged = heapq.merge(*runs, reverse=wanted.newest_first)
    return list(islice((place for place, _ in groupby(merged)), wanted.limit))


def microseconds(moment: datetime) -> int:
    """A time as the index has it."""
    return (moment - _EPOCH) // _MICROSECOND


def _read(entry: bytes) -> tuple[int, tuple[str, ...], tuple[Any, ...], list[str]]:
    """A record's time, what makes its kind, its columns, and its tokens of which there may be many.

    Neither its signature nor its form is checked again: the log takes nothing in without.
    """
    leaf = parse_leaf(entry)
    payload = load_json(decode_base64url(leaf.jws.split(".")[1], field="payload"), field="payload")
    at = microseconds(parse_time(payload["occurred_at"], field="occurred_at"))
    actors = [token.value for token in leaf.tokens if token.field == "actor"]
    listed = [token.value for token in leaf.tokens if token.field != "actor"]
    kind = payload["type"], payload["producer_id"], payload.get("outcome", "")
    columns = (payload.get("request_id"), payload.get("resource_type"), next(iter(actors), None))
    return at, kind, columns, [*listed, *actors[1:]]
