"""Mappings whose changes can be taken back."""

from __future__ import annotations

from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

Journal = list[tuple["Undoable[Any, Any]", Any, Any]]
"""Of changes, the last one last: which mapping, which key, and what it had before."""


class Undoable(dict[K, V]):
    """Puts each `mapping[key] = value`, the one way to change it, down in a journal.

    No value is None.
    """

    __slots__ = ("_journal",)

    def __init__(self, journal: Journal, made: dict[K, V] | None = None) -> None:
        super().__init__(made or {})
        self._journal = journal

    def __setitem__(self, key: K, value: V) -> None:
        self._journal.append((self, key, self.get(key)))
        super().__setitem__(key, value)


def take_back(journal: Journal, count: int) -> None:
    """Take back all but the first so many changes, the last one first."""
    while len(journal) > count:
        mapping, key, value = journal.pop()
        if value is None:
            del mapping[key]
        else:
            dict.__setitem__(mapping, key, value)
