"""Evidence packages from the server of a records log. Verify them before you believe them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from tlog.audit.zipped import MAX_ZIP_SIZE
from tlog.client.errors import VerificationError
from tlog.client.service import RecordsService
from tlog.v1 import evidence_pb2 as pb


@dataclass(frozen=True, slots=True)
class CollectedPackage:
    """A package, not verified; and the entry that records, by the server's word, its export."""

    package: bytes
    recorded: int


class EvidenceCollector(RecordsService):
    """Collects evidence packages of one records log."""

    SERVICE = pb.DESCRIPTOR.services_by_name["EvidenceService"].full_name

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
            recipient: who will get it; needed if anything is disclosed.
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
