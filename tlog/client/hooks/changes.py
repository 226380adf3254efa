"""Rows that were written and are not committed yet, for the listener of SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import SessionTransaction

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


def grouped(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Changes that one event can tell of."""
    groups: dict[Any, list[Change]] = {}
    for change in changes:
        groups.setdefault(change.kind(), []).append(change)
    for group in groups.values():
        by_fact = {id(change.fact): change for change in group}
        for facts in batches(change.fact for change in group):
            yield [by_fact[id(fact)] for fact in facts]
