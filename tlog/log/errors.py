"""What the log room refuses, and why. Messages tell the caller what to do."""

from __future__ import annotations


class LogError(Exception):
    """Anything the log refuses.

    Attributes:
        field: which part of the request was wrong, as the interface names it; empty if none.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class InvalidRequest(LogError, ValueError):
    """A request that can never succeed: an entry too long, a range the wrong way round."""


class OutOfRange(LogError, ValueError):
    """An index or size beyond the published tree."""


class EntryNotFound(LogError, LookupError):
    """No entry of the tree has the leaf hash that was asked for."""


class Overloaded(LogError):
    """The pool is full. Nothing was taken; come back later.

    Attributes:
        retry_after: seconds after which there is room again, by the recent pace.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Reserved(LogError):
    """The log belongs to a layer above it, which alone appends to it."""


class Unavailable(LogError):
    """The log does not take entries now: its disk refused, or it is shutting down."""


class ShuttingDown(Unavailable):
    """The server is finishing what it accepted and takes nothing new."""


class StateRefused(LogError):
    """The stored log is not what was signed: rolled back, damaged, or not ours.

    The log stops rather than sign. An operator must look.
    """


class NoQuorum(LogError):
    """Too few witnesses cosigned in time. Nothing new is published; appends go on."""
