"""A listener for SQLAlchemy's ORM: records whose data is read and written, and for what.

    audit = SessionAudit(producer)

    @audit.personal(subject="email")
    class Customer(Base): ...

    audit.listen(Session)                                   # a sessionmaker, a class, one session
    with acting("support", actor={"id": "eve"}, request_id="R-1"):
        session.scalars(select(Customer))

**Who declares what.** A class is watched by `personal` or `watch`, or by what its table says of
itself: `info={"audit": {"subject": "email"}}`; and so are the classes derived from it, whichever
tables they are in. The subject is the attribute that identifies whom a row is about, or a function
of the object. The purpose, and whatever else is to be said, comes from `acting`, which follows
threads and tasks as context variables do. Without it nothing is read and nothing flushed:
EventRefused, unless `otherwise` says what then holds.

**Reads** are `access.read`: of every statement that gives out watched objects, or columns of them,
also by lazy and eager loading and refreshing; one event for a class and 64 rows, each named with
whom it is about, on the disk before the application gets them. What a session gives out of its
memory was recorded when it was read. What else a statement finds out from a watched table is an
`access.search`, without subjects: a number, the columns of the bare table, a subquery, also in a
`column_property` of another class.

**Writes** are `access.modify`: collected as they are flushed, and recorded in the last moment
before the database commits. So no commit is without its record; what is rolled back, a savepoint
too, has none. When the commit itself fails, a second record of the same says that its outcome is
`unknown`: the database may have committed, and the answer be lost. (If that cannot be recorded
either, the rollback is done and raises.) Killed between the two, the process leaves a record of
what it was about to commit. With AUTOCOMMIT as the isolation level nothing is written:
EventRefused. Of a session that takes part in a transaction of somebody else's connection, what
counts is its own commit; whether the other one follows is not seen.

An identifier that changes is about the one before, too; a function is asked after the change alone,
but of what is deleted before it, too. One that a query leaves out (`load_only`) is asked for row by
row, which takes a statement for each. Before statements that update or delete many rows, or insert
some over others, it is asked whose these are. Not seen: SQL as text, and what goes past the
session: a connection's own statements, `bulk_save_objects` and its like (`bulk_insert_mappings`,
`bulk_update_mappings`), rows of the `secondary` of a relationship, triggers and cascades of the
database, and what a driver commits by itself. Where a table's `info` declares, the bare tables of
derived classes are seen only if theirs does, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import partial, reduce
from itertools import chain
from operator import getitem
from typing import Any, Final, TypeVar
from weakref import WeakSet

from sqlalchemy import event, inspect, select
from sqlalchemy.engine import ChunkedIteratorResult, Connection, IteratorResult
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction
from sqlalchemy.orm.unitofwork import UOWTransaction
from sqlalchemy.util.concurrency import await_only, in_greenlet

from tlog.audit import EventRefused
from tlog.client.errors import SpoolError
from tlog.client.hooks.known import Change, State, grouped
from tlog.client.hooks.rows import (
    OURS,
    Fact,
    Place,
    Watched,
    ask_whose,
    attribute_of,
    batches,
    changed_in,
    check_transactional,
    fact_of,
    named_by,
    places_of,
    subjects_of,
    sync_sessions,
    transaction_of,
)
from tlog.client.hooks.watching import Watching
from tlog.client.producer import Producer

# Which class, and in which column of a row its subject is.
_Columns = list[tuple["Watched", tuple[int, ...] | None]]

_COMMITS: Final = ("commit", "prepare_twophase")
_acting: ContextVar[Mapping[str, Any] | None] = ContextVar("tlog_acting", default=None)

T = TypeVar("T")


@contextlib.contextmanager
def acting(purpose: str, **claims: Any) -> Iterator[None]:
    """Say for what data is read and written inside, by whom (`actor`), and upon which request."""
    token = _acting.set({"purpose": purpose, **claims})
    try:
        yield
    finally:
        _acting.reset(token)


class SessionAudit:
    """Records what sessions read and write of the classes that it watches.

    Args:
        producer: closed by whoever made it.
        otherwise: the claims of what is done outside of any `acting`, with a `purpose`; without
            them it is refused.
    """

    def __init__(self, producer: Producer, *, otherwise: Mapping[str, Any] | None = None) -> None:
        self._producer = producer
        self._otherwise = otherwise
        self._watching = Watching()
        self._heard: WeakSet[type] = WeakSet()

    def watch(
        self,
        kind: type,
        *,
        subject: str | Callable[[Any], str | None],
        resource_type: str = "",
    ) -> None:
        """Watch a mapped class and those derived from it.

        Args:
            kind: the class.
            subject: the attribute, of a column, that identifies whom an object is about; or a
                function of the object.
            resource_type: as in the events; the name of its table, if not given.
        """
        name = resource_type or str(getattr(kind, "__tablename__", kind.__name__))
        self._watching.declare(kind, Watched(subject, name))

    def personal(
        self, *, subject: str | Callable[[Any], str | None], resource_type: str = ""
    ) -> Callable[[type[T]], type[T]]:
        """Decorate a mapped class: see `watch`."""

        def declare(kind: type[T]) -> type[T]:
            self.watch(kind, subject=subject, resource_type=resource_type)
            return kind

        return declare

    def listen(self, sessions: Any) -> None:
        """Listen to a sessionmaker or a session, asynchronous or not, scoped, or a Session class.

        One of a class that is listened to is so already; listen to the class first.
        """
        target = sync_sessions(sessions)
        kind = target if isinstance(target, type) else getattr(target, "class_", type(target))
        one = target.info if isinstance(target, Session) else {}
        if self in one or issubclass(kind, tuple(self._heard)):
            return  # who is heard twice would be recorded twice
        if isinstance(target, Session):
            self._state(target)
        else:
            self._heard.add(kind)
        for name, call in (
            ("do_orm_execute", self._execute),
            ("loaded_as_persistent", self._loaded),
            ("after_begin", self._begun),
            ("before_flush", self._flushing),
            ("after_flush", self._flushed),
            ("before_commit", self._commit),
            ("after_commit", self._committed),
            ("after_transaction_end", self._ended),
        ):
            event.listen(target, name, call)

    # ---- what is watched, and what is said of it ----

    def _claims(self) -> Mapping[str, Any]:
        claims = _acting.get() or self._otherwise
        if claims is None:
            raise EventRefused(
                "personal data is read or written for no purpose: do it inside of "
                "`with acting(PURPOSE)`",
                field="purpose",
            )
        return claims

    def _state(self, session: Session) -> State:
        state: State = session.info.setdefault(self, State())
        return state

    # ---- reading ----

    def _execute(self, asked: ORMExecuteState) -> Any:
        if asked.execution_options.get(OURS):
            return None
        touched = self._watching.touched(asked.statement)
        given = places_of(asked.statement)
        columns = self._columns(given)
        changes: list[Change] = []
        if touched:
            self._claims()
            self._producer.check()
            if asked.is_insert or asked.is_update or asked.is_delete:
                bind = {"clause": asked.statement, **asked.bind_arguments}
                check_transactional(asked.session, **bind)
                target = self._watching.touched(asked.statement.table)  # type: ignore[attr-defined]
                changes = self._bulk(asked, target)
                self._search([each for each in touched if each not in target])
            else:
                self._search(self._untold(given, touched))
        result = asked.invoke_statement()
        for change in changes:
            change.within = transaction_of(asked.session)
        self._state(asked.session).changes += changes
        if isinstance(result, ChunkedIteratorResult):
            self._wrap(asked, result, columns)
        elif isinstance(result, IteratorResult) and given:
            # What an insert or update gives back.
            frozen = result.freeze()
            self._seen(self._state(asked.session), frozen.data, columns)
            return frozen()
        return result

    def _search(self, touched: Iterable[Watched]) -> None:
        """Personal data is looked through, and what comes out tells not whose it is."""
        for watched in touched:
            self._tell(
                "access.search",
                [Fact((), "")],
                self._claims(),
                datetime.now().astimezone(),
                action="select",
                resource_type=watched.resource_type,
                outcome="success",
            )

    def _wrap(
        self,
        asked: ORMExecuteState,
        result: ChunkedIteratorResult[Any],
        columns: _Columns,
    ) -> None:
        """Have the rows recorded before anybody gets them."""
        state, produce = self._state(asked.session), result.chunks

        def chunks(size: int | None) -> Iterator[Sequence[Any]]:
            rows = iter(produce(size))
            while True:
                with state.loading():
                    chunk = next(rows, None)
                if chunk is None:
                    return
                self._seen(state, chunk, columns)
                yield chunk

        if asked.execution_options.get("prebuffer_rows"):  # of an asynchronous session: at once
            read = list(chunks(None))
            result.chunks = lambda _size: iter(read)
            result.iterator = chain.from_iterable(read)
            return
        result.chunks = chunks
        if size := asked.execution_options.get("yield_per"):
            result.yield_per(size)
        else:
            result.iterator = chain.from_iterable(chunks(None))

    def _columns(self, given: Iterable[Place]) -> _Columns:
        """Watched classes of which a statement gives out columns, and where the subject is."""
        found: dict[Any, tuple[Watched, tuple[int, ...] | None]] = {}
        for place in given:
            if place.entity is None or place.whole:
                continue
            if (watched := self._watching.of(place.entity.mapper.class_)) is not None:
                _, at = found.get(place.entity, (watched, None))
                is_subject = attribute_of(place.expression) == watched.subject
                found[place.entity] = (watched, place.at if is_subject and place.at else at)
        return list(found.values())

    def _untold(self, given: Sequence[Place], touched: Sequence[Watched]) -> Sequence[Watched]:
        """Watched classes of which no read will tell: of all, or only of those that come out."""
        told = {self._watching.of(each.entity.mapper.class_) for each in given if each.entity}
        if told.isdisjoint(touched):
            return touched
        out = (self._watching.touched(select(each.expression)) for each in given if not each.whole)
        return [each for each in dict.fromkeys(chain.from_iterable(out)) if each not in told]

    def _loaded(self, session: Session, instance: Any) -> None:
        if self._tells(type(instance)):
            self._state(session).fresh.append(instance)

    def _tells(self, kind: type) -> bool:
        return bool(self._watching.of(kind) or self._watching.borrowed(kind))

    def _seen(self, state: State, rows: Sequence[Any], columns: _Columns) -> None:
        """Rows are about to be given out."""
        for row in rows:
            for each in row if isinstance(row, tuple) else (row,):
                if self._tells(type(each)):
                    state.given.append(each)
        if state.depth:
            return  # loaded for another statement, whose record will tell of it
        with state.telling() as loaded:
            self._read(loaded, rows, columns)

    def _read(self, loaded: Iterable[Any], rows: Sequence[Any], columns: _Columns) -> None:
        """Tell of what is about to be given out."""
        borrowed = (self._watching.borrowed(type(each)) for each in loaded)
        self._search(dict.fromkeys(chain.from_iterable(borrowed)))
        facts: dict[Watched, list[Fact]] = {}
        for watched, at in columns:
            ids = [None if at is None else reduce(getitem, at, row) for row in rows]
            named = [() if each is None else (str(each),) for each in ids]
            facts.setdefault(watched, []).extend([Fact(each, "") for each in named])
        for each in loaded:
            if (of_it := self._watching.of(type(each))) is not None:
                facts.setdefault(of_it, []).append(fact_of(of_it, each))
        for watched, told in facts.items():
            self._tell(
                "access.read",
                told,
                self._claims(),
                datetime.now().astimezone(),
                action="select",
                resource_type=watched.resource_type,
                outcome="success",
            )

    # ---- writing ----

    def _bulk(self, asked: ORMExecuteState, touched: Sequence[Watched]) -> list[Change]:
        """What a statement on many rows is about to change."""
        action = "insert" if asked.is_insert else "update" if asked.is_update else "delete"
        mapper = asked.bind_mapper
        mapped = None if mapper is None else self._watching.of(mapper.class_)
        claims, at = self._claims(), datetime.now().astimezone()
        changes = []
        for watched in touched:
            ids: list[str] = []
            if mapper is not None and watched == mapped:
                ids = subjects_of(asked, mapper, watched)
            changes += [
                Change(watched, action, fact, {"statement": "bulk"}, claims, at, None)
                for fact in [Fact((each,), "") for each in ids] or [Fact((), "")]
            ]
        return changes

    def _flushing(self, session: Session, _context: UOWTransaction, _some: object) -> None:
        for each in (*session.new, *session.dirty, *session.deleted):
            if (watched := self._watching.of(type(each))) is not None:
                check_transactional(session, mapper=inspect(each).mapper)
                ask_whose(session, watched, each)
        for each in session.deleted:
            if (watched := self._watching.of(type(each))) is not None:
                watched.of(each)  # once its row is gone, nobody can ask the database

    def _flushed(self, session: Session, context: UOWTransaction) -> None:
        state, within = self._state(session), transaction_of(session)
        # Orphans are not in `session.deleted`; one that lost its parent is in `session.dirty`.
        gone = [s.obj() for s, (gone, only_listed) in context.states.items() if gone > only_listed]
        new = [each for each in session.new if inspect(each) in context.states]
        dirty = [
            each
            for each in session.dirty.difference(gone)
            if inspect(each) in context.states
            and session.is_modified(each, include_collections=False)
        ]
        flushed = (("insert", new), ("update", dirty), ("delete", gone))
        changes = []
        for action, instances in flushed:
            for each in instances:
                if (watched := self._watching.of(type(each))) is None:
                    continue
                details = {"attributes": changed_in(each)} if action == "update" else {}
                claims, at = self._claims(), datetime.now().astimezone()
                fact = fact_of(watched, each)
                changes.append(Change(watched, action, fact, details, claims, at, within))
        if changes:
            self._producer.check()
        state.changes += changes
        if state.committing and session.get_nested_transaction() is None:
            self._record(state)  # somebody else flushes while it commits

    def _begun(self, session: Session, _begun: SessionTransaction, connection: Connection) -> None:
        """What is committed around an open savepoint, `_commit` takes for a savepoint's."""
        state = self._state(session)

        def commits(*_: object) -> None:
            if state.changes:
                self._record(state)

        if connection not in state.heard:
            state.heard[connection] = commits
            for name in _COMMITS:
                event.listen(connection, name, commits)

    def _commit(self, session: Session) -> None:
        if session.get_nested_transaction() is None:  # or it is of a savepoint, as it seems
            session.flush()
            state = self._state(session)
            self._record(state)
            state.committing = True

    def _record(self, state: State) -> None:
        """Tell of all changes; what is refused stays, for a commit that is tried again."""
        groups = deque(grouped(state.changes))
        try:
            while groups:
                state.told += (some := groups.popleft())
                try:
                    self._write(some, "success")
                except (EventRefused, SpoolError) as error:
                    if not getattr(error, "outcome_unknown", False):
                        del state.told[-len(some) :]
                        groups.appendleft(some)
                    raise
        finally:
            state.changes = [each for some in groups for each in some]

    def _committed(self, session: Session) -> None:
        state = self._state(session)
        if (savepoint := session.get_nested_transaction()) is None:
            state.told, state.committing = [], False
            return
        state.hand_over(savepoint)

    def _ended(self, session: Session, transaction: SessionTransaction) -> None:
        state = self._state(session)
        if transaction.parent is not None:
            state.take(transaction)  # what it has committed is its parent's by now
            return
        for connection, commits in state.heard.items():  # which may outlive the session
            for name in _COMMITS:
                event.remove(connection, name, commits)
        state.heard.clear()
        told, state.told = state.told, []
        state.changes, state.committing = [], False
        for some in grouped(told):
            self._write(some, "unknown")

    def _write(self, some: Sequence[Change], outcome: str) -> None:
        """Changes that one event can tell of."""
        first = some[0]
        self._tell(
            "access.modify",
            [each.fact for each in some],
            first.claims,
            first.at,
            action=first.action,
            resource_type=first.watched.resource_type,
            outcome=outcome,
            **({"details": first.details} if first.details else {}),
        )

    def _tell(
        self,
        type_name: str,
        facts: Iterable[Fact],
        said: Mapping[str, Any],
        at: datetime,
        **claims: Any,
    ) -> None:
        """Record facts of one kind, as many events as they need."""
        for some in batches(facts):
            subjects, nobodys = named_by(some)
            named = {"resource": nobodys} if nobodys else {}
            call = partial(
                self._producer.record,
                type_name,
                subjects=subjects,
                occurred_at=at,
                **{**claims, **named, "count": len(some), **said},
            )
            # An asynchronous session runs in a greenlet: the loop does not wait for the disk.
            if in_greenlet():
                await_only(asyncio.to_thread(call))
            else:
                call()
