"""A mapping whose changes can be taken back."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Undoable(dict[K, V]):
    """Remembers what it had before each `mapping[key] = value`, the one way to change it.

    No value is None.
    """

    __slots__ = ("_before",)

    def __init__(self, made: dict[K, V] | None = None) -> None:
        super().__init__(made or {})
        self._before: list[tuple[K, V | None]] = []

    def __setitem__(self, key: K, value: V) -> None:
        self._before.append((key, self.get(key)))
        super().__setitem__(key, value)

    @property
    def changes(self) -> int:
        """How many there were so far."""
        return len(self._before)

    def back_to(self, changes: int) -> None:
        """Take back all but the first so many changes, the last one first."""
        while len(self._before) > changes:
            key, value = self._before.pop()
            if value is None:
                del self[key]
            else:
                super().__setitem__(key, value)
