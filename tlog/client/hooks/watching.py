"""Which classes the listener for SQLAlchemy watches, and which of them a statement is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Table, inspect
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import visitors

from tlog.audit import EventRefused
from tlog.client.hooks.rows import Watched, declared_by, entity_of, tables_of


class Watching:
    """The classes that were declared, and what follows for others."""

    def __init__(self) -> None:
        self._declared: dict[type, Watched] = {}
        self._known: dict[type, Watched | None] = {}
        self._borrowed: dict[type, list[Watched]] = {}
        self._mappers: list[Mapper[Any]] = []
        self._mapped: dict[str, Watched] = {}

    def declare(self, kind: type, watched: Watched) -> None:
        """Watch a class and those derived from it."""
        self._declared[kind] = watched
        self._known.clear()
        self._borrowed.clear()
        self._mappers.clear()

    def of(self, kind: type) -> Watched | None:
        """What is declared of a class, by itself or by those above it.

        Raises:
            EventRefused: its subject is an attribute that it does not have in a column.
        """
        if kind not in self._known:
            self._known[kind] = self._find(kind)
        return self._known[kind]

    def borrowed(self, kind: type) -> list[Watched]:
        """Watched classes from whose tables its objects have values, by a `column_property`."""
        if kind not in self._borrowed:
            mapper: Any = inspect(kind, raiseerr=False)
            attributes = mapper.column_attrs if isinstance(mapper, Mapper) else ()
            found: dict[Watched, None] = {}
            for each in (column for attribute in attributes for column in attribute.columns):
                found |= {} if isinstance(each, Column) else dict.fromkeys(self.touched(each))
            self._borrowed[kind] = [each for each in found if each != self.of(kind)]
        return self._borrowed[kind]

    def touched(self, statement: Any) -> list[Watched]:
        """Watched classes of which a statement names a table or an attribute, wherever."""
        mapped = self._tables()
        found: dict[Watched, None] = {}
        for each in visitors.iterate(statement):
            watched = None
            # An attribute that a class inherits is a column of a table that others have, too.
            if (mapper := entity_of(each)) is not None:
                watched = self.of(mapper.class_)
            if watched is None and isinstance(each, Table):
                watched = mapped.get(each.fullname) or declared_by(each)
            if watched is not None:
                found[watched] = None
        return list(found)

    def _find(self, kind: type) -> Watched | None:
        mapper: Any = inspect(kind, raiseerr=False)
        for each in kind.__mro__:
            if each in self._declared:
                return _checked(mapper, self._declared[each])
        lineage = mapper.iterate_to_root() if isinstance(mapper, Mapper) else ()
        said = (declared_by(table) for each in lineage for table in tables_of(each))
        found = next((each for each in said if each is not None), None)
        return None if found is None else _checked(mapper, found)

    def _tables(self) -> Mapping[str, Watched]:
        """The tables of declared classes, and of those derived from them."""
        mappers: list[Mapper[Any]] = []
        for kind in self._declared:
            mappers += inspect(kind).self_and_descendants
        if mappers != self._mappers:  # one was derived meanwhile
            found: dict[str, Watched] = {}
            for mapper in mappers:
                if (watched := self.of(mapper.class_)) is None:
                    continue
                for table in tables_of(mapper):
                    if mapper.single:  # its table is that of the class above it
                        found.setdefault(table.fullname, watched)
                    else:
                        found[table.fullname] = watched
            self._mapped = found
            self._mappers = mappers  # last: another thread takes the tables by it
        return self._mapped


def _checked(mapper: Any, watched: Watched) -> Watched:
    """Of another attribute nobody can tell whose the rows of a statement are."""
    name = watched.subject
    if isinstance(mapper, Mapper) and isinstance(name, str) and name not in mapper.column_attrs:
        raise EventRefused(
            f"{mapper.class_.__name__} has no column attribute {name!r}: name one, or give a "
            "function of the object",
            field="subject",
        )
    return watched
