"""The catalogue: which types of events there are, and what each says in the clear.

The types of tlog are data, in `catalogue.toml` beside this file; a tenant's own file adds to them.

A type that changes gets a new version and keeps the old one, for as long as there are events of it:
in the spool of a producer, or in the log, where they expire by the class of their own version.

    [[types."order.placed"]]        # the block that was there, its brackets doubled
    retention = "orders"

    [[types."order.placed"]]        # what producers sign from now on
    version = 2
    retention = "orders"
    required = ["order_id"]

The server gets the file before its producers do: a version that it does not know, it refuses.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from tlog.audit.claims import Claim, claim_of
from tlog.audit.errors import CatalogueError, EventRefused
from tlog.audit.personal import find_personal

REQUEST_FLOOR_MONTHS: Final = 24
"""11 CCR 7101(a): records of requests, and of the response, are kept for at least 24 months."""
MAX_MONTHS: Final = 1200
MAX_FILE_SIZE: Final = 1 << 20
_FLOORED: Final = ("request.", "delete.", "correct.", "optout.")
_FORMAT: Final = 1
_TYPE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}\.[a-z][a-z0-9_.]{0,30}")
# Names that an event uses for itself: SD-JWT's own, and where the parts of subjects stand.
_STRUCTURE: Final = frozenset({"_sd", "_sd_alg", "subjects"})
RESERVED: Final = _STRUCTURE | {"id"}


class TokenClass(StrEnum):
    """What becomes of an event's tokens when its subject is erased."""

    EVIDENCE = "evidence"
    ERASABLE = "erasable"


class Subjects(StrEnum):
    """Whether an event says whom it is about."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event, in one version.

    Attributes:
        public: the claims that may stand in the clear, by name.
        required: names of public claims without which there is no event.
        disclosed: names of personal claims without which there is no event.
    """

    name: str
    version: int
    retention: str
    tokens: TokenClass
    subjects: Subjects
    public: Mapping[str, Claim]
    required: frozenset[str]
    disclosed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All types known, and the retention classes in months (None: as long as the log).

    Attributes:
        types: by name and version.
        newest: of each type the newest version, by name.
    """

    types: Mapping[tuple[str, int], EventType]
    newest: Mapping[str, EventType]
    retention: Mapping[str, int | None]
    claims: Mapping[str, Claim]
    envelope: tuple[frozenset[str], frozenset[str]]

    def type_of(self, payload: Mapping[str, Any]) -> EventType:
        """The type that an event says it is of.

        Raises:
            EventRefused: no such type, or no such version of it.
        """
        name, version = payload.get("type"), payload.get("schema_version")
        if type(name) is str:
            if type(version) is int and (found := self.types.get((name, version))) is not None:
                return found
            if known := sorted(v for n, v in self.types if n == name):
                raise EventRefused(
                    f"version {version!r:.20} of {name} is not known, only {known}",
                    field="schema_version",
                )
        raise _no_type(name)

    def newest_of(self, name: str) -> EventType:
        """The version of a type that is signed unless another is asked for.

        Raises:
            EventRefused: no such type.
        """
        if (found := self.newest.get(name)) is None:
            raise _no_type(name)
        return found

    def classes_of(self, payload: Mapping[str, Any]) -> Sequence[str]:
        """The retention classes that keep a record: the one it asks for, and that of its type.

        None of both if its type, in its version, is not known.
        """
        name, version = payload.get("type"), payload.get("schema_version")
        known = type(name) is str and type(version) is int
        kind = self.types.get((name, version)) if known else None  # type: ignore[arg-type]
        if kind is None:
            return ()
        asked = payload.get("retention_class")
        return (str(asked), kind.retention) if asked else (kind.retention,)

    def retention_of(self, payload: Mapping[str, Any]) -> str:
        """Of the classes that keep a record, the one that does so longest.

        A class that is not there any more keeps it for ever. Empty if there is none.
        """
        # What a record asked for was longer than its type's when it came in. Files change.
        return max(self.classes_of(payload), key=self._length, default="")

    def _length(self, name: str) -> int:
        return _months(self.retention[name]) if name in self.retention else MAX_MONTHS + 2

    def check_public(
        self, kind: EventType, payload: Mapping[str, Any], *, recorded: bool = False
    ) -> None:
        """Check the claims that stand in the clear, SD-JWT's own left out.

        Args:
            kind: the type that the event says it is of.
            payload: its claims.
            recorded: it is in a log: that something looks personal is told too late, and was not
                seen when it came in.

        Raises:
            EventRefused: the field that is missing, not declared, malformed, or personal.
        """
        if missing := kind.required - payload.keys():
            raise EventRefused(f"{kind.name} requires it", field=min(missing))
        free = []
        for name, value in payload.items():
            claim = kind.public.get(name)
            if claim is None:
                if name in _STRUCTURE:
                    continue
                self._refuse_public(kind, name)
            elif claim.check is not None and (text := claim.check(name, value)):
                free.append((name, text))
        # One search for all, as nearly all are clean; a newline stops every pattern.
        if free and not recorded and find_personal("\n".join([text for _, text in free])):
            _refuse_personal(free)
        self._check_retention(kind, payload)

    def _refuse_public(self, kind: EventType, name: str) -> None:
        known = self.claims.get(name)
        reason = (
            "it is personal: disclose it"
            if known is not None and known.personal
            else f"{kind.name} does not declare it public: disclose it, or declare it in a type of "
            "your own"
        )
        raise EventRefused(reason, field=name if len(name) <= 80 else f"{name[:80]}…")

    def _check_retention(self, kind: EventType, payload: Mapping[str, Any]) -> None:
        """An event may ask to be kept longer than its type, never shorter."""
        asked = payload.get("retention_class")
        if asked is None:
            return
        if asked not in self.retention:
            raise EventRefused(f"{asked} is no retention class", field="retention_class")
        if _months(self.retention[asked]) < _months(self.retention[kind.retention]):
            raise EventRefused(
                f"{asked} ends before {kind.retention}, which is that of {kind.name}",
                field="retention_class",
            )

    def check_personal(self, name: str, value: Any, *, field: str) -> None:
        """Check one disclosed claim.

        Raises:
            EventRefused: its name is that of a public claim, or its value malformed.
        """
        if (claim := self.claims.get(name)) is not None:
            if not claim.personal and name in self.envelope[0]:
                raise EventRefused("it must stand in the clear", field=field)
            if claim.check is not None:
                claim.check(field, value)

    def extended(self, text: str) -> Catalogue:
        """This catalogue and what a tenant's file adds to it.

        Raises:
            CatalogueError: it is malformed, or changes what is defined already.
        """
        return _build(_parse(text), self)


def _refuse_personal(claims: Iterable[tuple[str, str]]) -> None:
    for name, text in claims:
        if found := find_personal(text):
            raise EventRefused(
                f"it seems to hold {found}, and it is public for ever: disclose it instead, or "
                "keep it out",
                field=name,
            )


def _no_type(name: object) -> EventRefused:
    return EventRefused(
        f"{name!r:.80} is no type of the catalogue: define it in the tenant's catalogue file",
        field="type",
    )


def floor_of(name: str) -> int:
    """For how many months a record of a type is kept at least, whatever a tenant sets."""
    return REQUEST_FLOOR_MONTHS if name.startswith(_FLOORED) else 0


def _months(months: int | None) -> int:
    return MAX_MONTHS + 1 if months is None else months


@lru_cache(maxsize=1)
def default_catalogue() -> Catalogue:
    """The types of tlog."""
    text = resources.files("tlog.audit").joinpath("catalogue.toml").read_text("utf-8")
    empty = Catalogue({}, {}, {}, {}, (frozenset(), frozenset()))
    return _build(_parse(text), empty)


def load_catalogue(path: Path) -> Catalogue:
    """The types of tlog and those of a tenant's file.

    Raises:
        CatalogueError: the file cannot be read or used; the message names the setting.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
        if len(data) > MAX_FILE_SIZE:
            raise CatalogueError(f"longer than {MAX_FILE_SIZE} bytes")
        return default_catalogue().extended(data.decode("utf-8"))
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror}") from None
    except (CatalogueError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: {error}") from None


def _parse(text: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # What somebody writes who adds a version for the first time.
        twice = str(error).startswith("Cannot")
        hint = '; each version of a type is a block [[types."NAME"]]' if twice else ""
        raise CatalogueError(f"not TOML: {error}{hint}") from None
    if tables.pop("version", None) != _FORMAT:
        raise CatalogueError(f"needs `version = {_FORMAT}`", field="version")
    return tables


def _build(tables: dict[str, Any], base: Catalogue) -> Catalogue:
    retention = _retention(_table(tables, "retention"), base)
    claims = dict(base.claims)
    for name, table in _table(tables, "claims").items():
        if name in claims or name in RESERVED:
            raise CatalogueError("it is defined already", field=f"claims.{name}")
        claims[name] = claim_of(name, _as_table(table, f"claims.{name}"))
    envelope = base.envelope
    if (own := _table(tables, "envelope")) and base.types:
        raise CatalogueError("only tlog's own catalogue has one", field="envelope")
    if own:
        envelope = (frozenset(own["required"]), frozenset(own["optional"]))
    catalogue = replace(base, retention=retention, claims=claims, envelope=envelope)
    types = dict(base.types)
    for name, table in _table(tables, "types").items():
        if name in {n for n, _ in base.types}:
            raise CatalogueError("it is tlog's own: name yours differently", field=f"types.{name}")
        for kind in _versions(name, table, catalogue):
            types[name, kind.version] = kind
    if tables:
        raise CatalogueError("not a table of a catalogue", field=min(tables))
    newest = {name: types[name, version] for name, version in sorted(types)}
    return replace(catalogue, types=types, newest=newest)


def _table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    return _as_table(tables.pop(name, {}), name)


def _as_table(value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CatalogueError("a table", field=field)
    return value


def _retention(tables: dict[str, Any], base: Catalogue) -> dict[str, int | None]:
    retention = dict(base.retention)
    for name, value in tables.items():
        field = f"retention.{name}"
        table = dict(_as_table(value, field))
        months = table.pop("months", None)
        if table or not (months is None or (type(months) is int and 1 <= months <= MAX_MONTHS)):
            raise CatalogueError(f"`months` of 1 to {MAX_MONTHS}, or nothing", field=field)
        floor = REQUEST_FLOOR_MONTHS if name == "requests" else 1
        if _months(months) < floor:
            raise CatalogueError(
                f"records of requests are kept for at least {floor} months (11 CCR 7101)",
                field=field,
            )
        retention[name] = months
    return retention


def _versions(name: str, value: object, catalogue: Catalogue) -> Iterator[EventType]:
    """The versions of a type: one table, or a list of them."""
    field = f"types.{name}"
    if not _TYPE_NAME.fullmatch(name):
        raise CatalogueError("a name like `order.placed`", field=field)
    if not isinstance(value, list):
        yield _type(name, _as_table(value, field), field, catalogue)
        return
    if not value:
        raise CatalogueError("a table, or one for each version", field=field)
    seen: set[int] = set()
    for i, table in enumerate(value):
        where = f"{field}[{i}]"
        kind = _type(name, _as_table(table, where), where, catalogue)
        if kind.version in seen:
            raise CatalogueError(
                f"version {kind.version} is defined already", field=f"{where}.version"
            )
        seen.add(kind.version)
        yield kind


def _type(name: str, table: dict[str, Any], field: str, catalogue: Catalogue) -> EventType:
    rest = dict(table)
    version = rest.pop("version", 1)
    if type(version) is not int or version < 1:
        raise CatalogueError("an integer of at least 1", field=f"{field}.version")
    retention = rest.pop("retention", None)
    if retention not in catalogue.retention:
        raise CatalogueError("names no retention class", field=f"{field}.retention")
    if _months(catalogue.retention[retention]) < floor_of(name):
        raise CatalogueError(
            f"records of requests are kept for at least {REQUEST_FLOOR_MONTHS} months "
            "(11 CCR 7101)",
            field=f"{field}.retention",
        )
    try:
        tokens = TokenClass(rest.pop("tokens", "erasable"))
        subjects = Subjects(rest.pop("subjects", "optional"))
    except ValueError as error:
        raise CatalogueError(str(error), field=field) from None
    required = _names(rest, "required", field, catalogue)
    optional = _names(rest, "optional", field, catalogue)
    if rest:
        raise CatalogueError("not a setting of a type", field=f"{field}.{min(rest)}")
    required |= catalogue.envelope[0]
    every = required | optional | catalogue.envelope[1]
    public = {n: catalogue.claims[n] for n in every if not catalogue.claims[n].personal}
    return EventType(
        name,
        version,
        retention,
        tokens,
        subjects,
        public,
        required=frozenset(required & public.keys()),
        disclosed=frozenset(required - public.keys()),
    )


def _names(rest: dict[str, Any], key: str, field: str, catalogue: Catalogue) -> set[str]:
    names = rest.pop(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CatalogueError("a list of names of claims", field=f"{field}.{key}")
    if len(set(names)) != len(names):
        raise CatalogueError("it names a claim twice", field=f"{field}.{key}")
    if unknown := set(names) - catalogue.claims.keys():
        raise CatalogueError(f"{min(unknown)!r} is no claim", field=f"{field}.{key}")
    return set(names)
