"""Evidence packages from the server of a records log. Verify them before you believe them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

from tlog.audit.zipped import MAX_ZIP_SIZE
from tlog.client.errors import ClientError, VerificationError
from tlog.client.transport import Transport
from tlog.v1 import evidence_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["EvidenceService"].full_name


@dataclass(frozen=True, slots=True)
class CollectedPackage:
    """A package, not verified; and the entry that records, by the server's word, its export."""

    package: bytes
    recorded: int


class EvidenceCollector:
    """Collects evidence packages of one records log. An async context manager.

    Raises Refused, Unreachable, TimedOut, VerificationError; see `AsyncClient`.

    Args:
        target: address of the server, `host:port`.
        log: name of the log; empty when the server holds only one.
        timeout: seconds for each answer, and for each piece of a package.
    """

    def __init__(self, target: str, *, log: str = "", timeout: float = 120.0) -> None:
        self._target = target
        self._log = log
        self._timeout = timeout
        self._transport: Transport | None = None

    async def __aenter__(self) -> Self:
        self._transport = Transport(self._target, timeout=self._timeout, service=_SERVICE)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            transport, self._transport = self._transport, None
            await transport.close()

    async def collect(
        self,
        *,
        purpose: str,
        request_id: str = "",
        subject: str = "",
        indices: Sequence[int] = (),
        disclose: Sequence[str] = (),
        disclose_all: bool = False,
        recipient: str = "",
        progress: Callable[[int, int | None], None] = lambda done, total: None,
    ) -> CollectedPackage:
        """Have a package made; see `CollectRequest` in evidence.proto.

        Args:
            purpose: what it is for; it is recorded, with who asked.
            request_id: the request it is for; all records of it, without a subject and indices.
            subject: all records about this subject.
            indices: these entries.
            disclose: names of claims that are shown.
            disclose_all: show all that can be opened.
            recipient: who will get it.
            progress: is told how many bytes have come, and how many there are.
        """
        request = pb.CollectRequest(
            log=self._log,
            purpose=purpose,
            request_id=request_id,
            subject=subject,
            indices=indices,
            disclose=disclose,
            disclose_all=disclose_all,
            recipient=recipient,
        )
        if self._transport is None:
            raise ClientError("the client is closed, or not open yet: use it in a `with` block")
        pieces: list[bytes] = []
        come, first = 0, pb.CollectResponse()
        answers = self._transport.messages(
            "Collect", request, pb.CollectResponse, patience=self._timeout
        )
        async with aclosing(answers):
            async for answer in answers:
                if not pieces:
                    first = answer
                pieces.append(answer.data)
                come += len(answer.data)
                if not answer.data or come > min(first.size, MAX_ZIP_SIZE):
                    raise VerificationError("message", "the server sends another size than it said")
                progress(come, first.size)
        if come != first.size or not pieces:
            raise VerificationError("message", f"{come} bytes of a package of {first.size} came")
        return CollectedPackage(b"".join(pieces), first.recorded)
