"""What the clients of a records log share: one service of one server, while inside."""

from __future__ import annotations

from typing import ClassVar, Self

from tlog.client.errors import ClientError
from tlog.client.transport import Transport


class RecordsService:
    """A client of one service. An async context manager.

    Every method raises Refused, Unreachable, TimedOut, VerificationError; see `AsyncClient`.

    Args:
        target: address of the server, `host:port`.
        log: name of the log; empty when the server holds only one.
        timeout: seconds for each answer, and for each piece of a long one.
    """

    SERVICE: ClassVar[str]
    """Its full name."""

    def __init__(self, target: str, *, log: str = "", timeout: float = 120.0) -> None:
        self._target = target
        self._log = log
        self._timeout = timeout
        self._opened: Transport | None = None

    async def __aenter__(self) -> Self:
        self._opened = Transport(self._target, timeout=self._timeout, service=self.SERVICE)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opened is not None:
            transport, self._opened = self._opened, None
            await transport.close()

    @property
    def _transport(self) -> Transport:
        if self._opened is None:
            raise ClientError("the client is closed, or not open yet: use it in a `with` block")
        return self._opened
