"""What the listener for SQLAlchemy asks of classes, objects and statements; it keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Label, Table, inspect, select
from sqlalchemy.orm import Mapper, ORMExecuteState, Session, SessionTransaction
from sqlalchemy.sql import visitors

from tlog.audit.event import MAX_RESOURCES, MAX_SUBJECTS

INFO: Final = "audit"
OURS: Final = "tlog_audit"
"""The option of a statement of our own, which nobody is to hear of."""


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


def described(statement: Any) -> Sequence[Any]:
    """What stands in each place of the rows that a statement gives out."""
    for name in ("column_descriptions", "returning_column_descriptions"):
        if (said := getattr(statement, name, None)) is not None:
            return tuple(said)
    return ()


def attribute_of(expression: Any) -> str | None:
    """The attribute that a place of the rows holds, under whatever name; None if it is none."""
    if isinstance(expression, Label):
        annotations: Mapping[str, Any] = expression.element._annotations
        return annotations.get("proxy_key")
    return getattr(expression, "key", None)


def transaction_of(session: Session) -> SessionTransaction | None:
    """The savepoint, or transaction, that what is done now belongs to."""
    return session.get_nested_transaction() or session.get_transaction()


def fact_of(watched: Watched, instance: Any) -> Fact:
    """What is to be told of an object."""
    mapper = inspect(type(instance))
    key = "/".join(map(str, mapper.primary_key_from_instance(instance)))
    ids = [watched.of(instance)]
    if isinstance(watched.subject, str):  # one that was changed is about the one before, too
        before = inspect(instance).attrs[watched.subject].history.deleted
        ids += [str(each) for each in before if each is not None]
    named = tuple(dict.fromkeys(each for each in ids if each is not None))
    return Fact(named, f"{watched.resource_type}/{key}")


def changed_in(instance: Any) -> list[str]:
    """Names of the columns' attributes that changed."""
    state = inspect(instance)
    return sorted(
        each.key
        for each in state.mapper.column_attrs
        if state.attrs[each.key].history.has_changes()
    )


def subjects_of(asked: ORMExecuteState, mapper: Mapper[Any], watched: Watched) -> list[str]:
    """Whom the rows are about that a statement inserts, or is about to update or delete."""
    if not isinstance(watched.subject, str):
        return []
    name = watched.subject
    statement: Any = asked.statement
    given = asked.parameters or {}
    rows = [given] if isinstance(given, Mapping) else list(given)
    values: list[Any] = []
    if not asked.is_insert:
        where = statement.whereclause
        keys = [mapper.get_property_by_column(each).key for each in mapper.primary_key]
        query = select(getattr(mapper.class_, name))
        if where is not None:
            query = query.where(where)
        elif rows[0] and len(keys) == 1:  # many rows, each by its key
            query = query.where(getattr(mapper.class_, keys[0]).in_([row[keys[0]] for row in rows]))
        values += asked.session.scalars(
            query, given if where is not None else {}, execution_options={OURS: True}
        )
    if not asked.is_delete:  # of an update: whom it makes the rows be about
        column = mapper.attrs[name].columns[0].key
        inline = {} if given and asked.is_insert else statement.compile().params
        values += [row.get(name) for row in rows]
        values += [v for k, v in inline.items() if k == column or k.startswith(f"{column}_m")]
    return list(dict.fromkeys(str(value) for value in values if value is not None))


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
