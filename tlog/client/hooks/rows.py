"""What the listener for SQLAlchemy asks of classes, objects and statements; it keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import ClauseElement, Label, Table, UniqueConstraint, inspect, or_, select, tuple_
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker
from sqlalchemy.orm import (
    Bundle,
    Mapper,
    ORMExecuteState,
    Session,
    SessionTransaction,
    scoped_session,
)
from sqlalchemy.orm.attributes import History, get_history
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlalchemy.sql import visitors

from tlog.audit import EventRefused
from tlog.audit.event import MAX_RESOURCES, MAX_SUBJECTS

T = TypeVar("T")

INFO: Final = "audit"
OURS: Final = "tlog_audit"
"""The option of a statement of our own, which nobody is to hear of."""
_ROWS: Final = 200
"""As many as are asked for by their keys at once: databases bound a statement's parameters."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A class with personal data."""

    subject: str | Callable[[Any], str | None]
    resource_type: str

    def of(self, instance: Any) -> str | None:
        """Whom an object is about; asks the database for what was not loaded."""
        if callable(self.subject):
            return self.subject(instance)
        value = getattr(instance, self.subject)
        return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Fact:
    """A row that was read or written, and whom it is about."""

    subjects: tuple[str, ...]
    resource: str


def declared_by(table: Table) -> Watched | None:
    """What a table says of itself."""
    said = table.info.get(INFO)
    if said is None:
        return None
    return Watched(said["subject"], said.get("resource_type", table.name))


def tables_of(mapper: Mapper[Any]) -> list[Table]:
    """A class's own tables, without those of the classes above it."""
    return [each for each in visitors.iterate(mapper.local_table) if isinstance(each, Table)]


def entity_of(element: Any) -> Mapper[Any] | None:
    """The class by which a statement names a table or column; None if it does not by any."""
    mapper: Mapper[Any] | None = getattr(element, "_annotations", {}).get("parentmapper")
    return mapper


@dataclass(frozen=True, slots=True)
class Place:
    """What a statement gives out in one place of its rows.

    Attributes:
        at: the way to it, from the row; empty if a class of the application's made its row.
        entity: the class, or an alias, that it is, or is of; None if it is of none.
        whole: whether it is an object.
    """

    at: tuple[int, ...]
    entity: Any
    expression: Any
    whole: bool


def places_of(statement: Any) -> list[Place]:
    """All that a statement gives out."""
    for name in ("column_descriptions", "returning_column_descriptions"):
        if (said := getattr(statement, name, None)) is not None:
            break
    places: list[Place] = []
    for at, each in enumerate(said or ()):
        expression = each["expr"]
        if isinstance(expression, Bundle):
            plain = type(expression) is Bundle and not expression.single_entity
            places += _bundled(expression, (at,) if plain else ())
        else:
            entity = inspect(each.get("entity"), raiseerr=False)
            places.append(Place((at,), entity, expression, expression is each.get("entity")))
    return places


def _bundled(bundle: Bundle[Any], at: tuple[int, ...]) -> Iterator[Place]:
    for number, each in enumerate(bundle.exprs):
        here = (*at, number) if at else ()
        if (nested := each._annotations.get("bundle")) is not None:
            yield from _bundled(nested, here if type(nested) is Bundle else ())
        else:
            yield Place(here, each._annotations.get("parententity"), each, False)


def attribute_of(expression: Any) -> str | None:
    """The attribute that a place of the rows holds, under whatever name; None if it is none."""
    if isinstance(expression, Label):
        expression = expression.element
    annotations: Mapping[str, Any] = getattr(expression, "_annotations", {})
    return annotations.get("proxy_key") or getattr(expression, "key", None)


def transaction_of(session: Session) -> SessionTransaction | None:
    """The savepoint, or transaction, that what is done now belongs to."""
    return session.get_nested_transaction() or session.get_transaction()


def fact_of(watched: Watched, instance: Any) -> Fact:
    """What is to be told of an object."""
    mapper = inspect(type(instance))
    key = "/".join(map(str, mapper.primary_key_from_instance(instance)))
    ids = [watched.of(instance)]
    if isinstance(watched.subject, str):  # one that was changed is about the one before, too
        before = _history(instance, watched.subject).deleted
        ids += [str(each) for each in before if each is not None]
    named = tuple(dict.fromkeys(each for each in ids if each is not None))
    return Fact(named, f"{watched.resource_type}/{key}")


def changed_in(instance: Any) -> list[str]:
    """Names of the columns' attributes that changed."""
    keys = inspect(instance).mapper.column_attrs.keys()
    return sorted(key for key in keys if _history(instance, key).has_changes())


def _history(instance: Any, name: str) -> History:
    """As `AttributeState.history`; to get at that takes one for each attribute that there is."""
    return get_history(instance, name, PASSIVE_NO_INITIALIZE)


def subjects_of(asked: ORMExecuteState, mapper: Mapper[Any], watched: Watched) -> list[str]:
    """Whom the rows are about that a statement inserts, or is about to update or delete."""
    if not isinstance(watched.subject, str):
        return []
    name = watched.subject
    column = mapper.attrs[name].columns[0]
    statement: Any = asked.statement
    given = asked.parameters or {}
    rows = [given] if isinstance(given, Mapping) else list(given)
    query = select(getattr(mapper.class_, name))
    values: list[Any] = []

    def ask(query: Any, parameters: Any = None) -> None:
        values.extend(asked.session.scalars(query, parameters, execution_options={OURS: True}))

    inline = {} if asked.is_delete or (given and asked.is_insert) else statement.compile().params
    if asked.is_insert:
        if said := _said_upon_conflict(statement._post_values_clause):
            inserted = rows if given else list(_inline_rows(inline))
            for some in _portions(inserted):
                if (same := _same_keys(mapper, some)) is not None:
                    ask(query.where(same))
            own = (said.get(each) for each in (name, column.key, column.name))
            values += [_value_of(each) for each in own]
    elif statement.whereclause is not None:
        ask(query.where(statement.whereclause), given)
    elif rows[0]:  # many rows, each by its key
        for some in _portions(rows):
            ask(query.where(_among(mapper, list(mapper.primary_key), some)))
    else:
        ask(query)
    if not asked.is_delete:  # of an update: whom it makes the rows be about
        values += [row.get(name) for row in rows]
        values += [row.get(column.key) for row in _inline_rows(inline)]
    return list(dict.fromkeys(str(value) for value in values if value is not None))


def _portions(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    return (rows[at : at + _ROWS] for at in range(0, len(rows), _ROWS))


def _inline_rows(parameters: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The rows that stand in a statement itself, of which several have numbered parameters."""
    rows: dict[str, dict[str, Any]] = {}
    for name, value in parameters.items():
        column, numbered, number = name.rpartition("_m")
        if not (numbered and number.isdecimal()):
            column, number = name, ""
        rows.setdefault(number, {})[column] = value
    return rows.values()


def _said_upon_conflict(clause: Any) -> Mapping[Any, Any]:
    """What an upsert, of whichever database, sets columns to; nothing if there is none."""
    said: dict[Any, Any] = {}
    for each in () if clause is None else visitors.iterate(clause):
        sets: Any = getattr(each, "update_values_to_set", None) or getattr(each, "update", ())
        said |= dict(sets)
    return said


def _value_of(said: Any) -> Any:
    """A value that stands in a statement: until SQLAlchemy 2.1, of an upsert, as it was given."""
    return getattr(said, "value", None) if isinstance(said, ClauseElement) else said


def _same_keys(mapper: Mapper[Any], rows: Iterable[Mapping[str, Any]]) -> Any:
    """That rows have a key, of whichever the table has, of one that is inserted; None: no way."""
    table: Any = mapper.local_table
    unique = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    unique += [each for each in table.indexes if each.unique]
    keys: list[list[Any]] = [list(mapper.primary_key), *[list(each.columns) for each in unique]]
    found = [_among(mapper, key, rows) for key in keys]
    found = [each for each in found if each is not None]
    return or_(*found) if found else None


def _among(mapper: Mapper[Any], key: list[Any], rows: Iterable[Mapping[str, Any]]) -> Any:
    """That columns have the values together that one of the rows has; None if none has them."""
    names = [mapper.get_property_by_column(each).key for each in key]
    values = [
        tuple(row.get(name, row.get(column.key)) for name, column in zip(names, key, strict=True))
        for row in rows
    ]
    values = [each for each in values if None not in each]
    if not values:
        return None
    if len(key) == 1:  # which every database understands
        return key[0].in_([value for (value,) in values])
    return tuple_(*key).in_(values)


def ask_whose(session: Session, watched: Watched, instance: Any) -> None:
    """Have an object know whom it was about, if that was set anew while it was expired."""
    state, name = inspect(instance), watched.subject
    if not isinstance(name, str) or not state.persistent:
        return
    history = _history(instance, name)
    if history.added and not history.deleted:
        keys = zip(state.mapper.primary_key, state.identity, strict=True)
        query = select(getattr(state.class_, name)).where(*[key == value for key, value in keys])
        state.committed_state[name] = session.scalar(query, execution_options={OURS: True})


def sync_sessions(sessions: Any) -> Any:
    """What of sessions, or of what makes them, one can listen to."""
    if isinstance(sessions, scoped_session | async_scoped_session):
        sessions = sessions.session_factory
    if not isinstance(sessions, async_sessionmaker):
        return getattr(sessions, "sync_session", sessions)
    made = sessions.kw.get("sync_session_class") or sessions.class_.sync_session_class
    if isinstance(made, type):  # which others may make, too
        made = type(made.__name__, (made,), {})
        sessions.configure(sync_session_class=made)
    return made


def check_transactional(session: Session, **bind: Any) -> None:
    """Refuse to write where the database commits each statement by itself, before its record."""
    if session.connection(bind)._is_autocommit_isolation():
        raise EventRefused(
            "with AUTOCOMMIT personal data would be written before its record: write it in a "
            "session of another isolation level",
            field="isolation_level",
        )


def batches(facts: Iterable[Fact]) -> Iterator[list[Fact]]:
    """Facts that fit into one event, in order; rows that are about nobody stand alone."""
    batch: list[Fact] = []
    ids: set[str] = set()
    named, nobodys = 0, False
    for fact in sorted(facts, key=_nobodys):
        names = max(len(fact.subjects), 1) if fact.resource else 0
        if batch and (
            named + names > MAX_RESOURCES
            or len(ids.union(fact.subjects)) > MAX_SUBJECTS
            or _nobodys(fact) != nobodys
        ):
            yield batch
            batch, ids, named = [], set(), 0
        batch.append(fact)
        ids.update(fact.subjects)
        named, nobodys = named + names, _nobodys(fact)
    if batch:
        yield batch


def _nobodys(fact: Fact) -> bool:
    return bool(fact.resource) and not fact.subjects


def named_by(facts: Sequence[Fact]) -> tuple[list[dict[str, Any]], list[str]]:
    """Whom facts are about, and of each the rows; and the rows that are about nobody.

    A row is named with whom it is about alone: it is forgotten with them, and no sooner.
    """
    rows: dict[str, list[str]] = {}
    for fact in facts:
        for name in fact.subjects:
            rows.setdefault(name, []).extend([fact.resource] if fact.resource else [])
    subjects: list[dict[str, Any]] = [
        {"id": name, "resource": of_it} if of_it else {"id": name} for name, of_it in rows.items()
    ]
    return subjects, [fact.resource for fact in facts if _nobodys(fact)]
