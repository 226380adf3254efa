"""An operation that is recorded when it ends, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self


class Recorder(Protocol):
    """What an operation needs of a `Producer`."""

    def check(self) -> None:
        """Raise SpoolError if nothing can be recorded at the moment."""

    def record(
        self,
        type_name: str,
        /,
        *,
        subjects: Sequence[str | Mapping[str, Any]],
        occurred_at: datetime | None,
        **claims: Any,
    ) -> object:
        """See `Producer.record`."""


class Operation:
    """Something that begins, and ends well or badly: a context manager, plain or async.

    It is recorded on leaving, as of its beginning. An exception goes on its way once it is
    recorded: PermissionError as `denied`, any other Exception as `failure`; what merely ended the
    block, such as a cancellation, as `unknown`. The name of its class goes into the details, never
    its text. When nothing can be recorded, the block is not entered; when the record of what it did
    is refused, that is raised instead, with the exception of the block as its context.

    Attributes:
        claims: more can be said while it lasts.
        subjects: whom it is about.
        outcome: what to record when the block ends well, as in the catalogue; "success".
    """

    def __init__(
        self,
        recorder: Recorder,
        type_name: str,
        *,
        subjects: Sequence[str | Mapping[str, Any]],
        claims: Mapping[str, Any],
    ) -> None:
        self._recorder = recorder
        self._type = type_name
        self._began: datetime | None = None
        self.subjects = list(subjects)
        self.claims = dict(claims)
        self.outcome = str(self.claims.pop("outcome", "success"))

    def __enter__(self) -> Self:
        self._recorder.check()
        self._began = datetime.now().astimezone()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.outcome = outcome_of(error)
            details = self.claims.get("details", {})
            if isinstance(details, Mapping):
                self.claims["details"] = {**details, "error": type(error).__qualname__}
        self.record()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The record is made even if whoever waits for it is cancelled.
        await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, traceback))

    def record(self) -> None:
        """Record it as it stands."""
        self._recorder.record(
            self._type,
            subjects=self.subjects,
            occurred_at=self._began,
            outcome=self.outcome,
            **self.claims,
        )


def outcome_of(error: BaseException) -> str:
    """What an exception is to a record."""
    if isinstance(error, PermissionError):
        return "denied"
    return "failure" if isinstance(error, Exception) else "unknown"
