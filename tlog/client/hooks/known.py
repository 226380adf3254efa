"""What the listener for SQLAlchemy knows of a session: what was read, and written, and not told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.orm import SessionTransaction, object_session

from tlog.client.hooks.rows import Fact, Watched, batches


@dataclass(slots=True)
class Change:
    """A row that was flushed; `within` is the transaction, or savepoint, that may commit it."""

    watched: Watched
    action: str
    fact: Fact
    details: Mapping[str, Any]
    claims: Mapping[str, Any]
    at: datetime
    within: SessionTransaction | None

    def kind(self) -> tuple[Any, ...]:
        """What it has in common with those that one event can tell of."""
        return (self.watched, self.action, repr(self.details), id(self.claims))


@dataclass(slots=True)
class State:
    """What is known of one session.

    Attributes:
        fresh: objects that were loaded and are in no record yet.
        given: those that were there before, and are given out again.
        depth: how many statements are giving out rows, each for the one before.
        changes: what was flushed since the last commit, last that of the innermost savepoint.
        told: what is recorded and not known to be committed.
        committing: whether the database is about to commit.
        heard: of which connections the commits are, and by what.
    """

    fresh: list[Any] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    depth: int = 0
    changes: list[Change] = field(default_factory=list)
    told: list[Change] = field(default_factory=list)
    committing: bool = False
    heard: dict[Connection, Callable[..., None]] = field(default_factory=dict)

    def take(self, savepoint: SessionTransaction) -> list[Change]:
        """Take out what the innermost savepoint has; the others' it leaves alone, and uncounted."""
        at = len(self.changes)
        while at and self.changes[at - 1].within is savepoint:
            at -= 1
        taken, self.changes[at:] = self.changes[at:], []
        return taken

    def hand_over(self, savepoint: SessionTransaction) -> None:
        """What the innermost savepoint has is its parent's."""
        for change in (taken := self.take(savepoint)):
            change.within = savepoint.parent
        self.changes += taken

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """What is loaded inside is told by the statement that it is loaded for."""
        self.depth += 1
        try:
            yield
        except BaseException:
            if self.depth == 1:
                fresh, self.fresh, self.given = self.fresh, [], []
                _forget(fresh)
            raise
        finally:
            self.depth -= 1

    @contextlib.contextmanager
    def telling(self) -> Iterator[Collection[Any]]:
        """Tell of these objects inside; what is not told, the session does not give out later."""
        fresh, given, self.fresh, self.given = self.fresh, self.given, [], []
        try:
            yield {id(each): each for each in (*fresh, *given)}.values()
        except BaseException:
            _forget(fresh)
            raise


def _forget(objects: Iterable[Any]) -> None:
    for each in objects:
        if (session := object_session(each)) is not None:
            session.expunge(each)


def grouped(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Changes that one event can tell of."""
    groups: dict[Any, list[Change]] = {}
    for change in changes:
        groups.setdefault(change.kind(), []).append(change)
    for group in groups.values():
        by_fact = {id(change.fact): change for change in group}
        for facts in batches(change.fact for change in group):
            yield [by_fact[id(fact)] for fact in facts]
