"""EvidenceService: evidence packages of a server's records. No rules live here."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import grpc

from tlog.audit import AuditError, EventRefused
from tlog.audit.collecting import Choice, Collected, collect
from tlog.audit.key_history import KeyHistory
from tlog.audit.reading import Access, check_recipient, note_read
from tlog.audit.search import Query, asked, find_all
from tlog.audit.tokens import canonical
from tlog.audit.vault import VaultDamaged
from tlog.audit.zipped import MAX_ZIP_SIZE
from tlog.log import InvalidRequest
from tlog.serve.callers import caller_of
from tlog.serve.errors import REFUSALS, rich_status
from tlog.serve.handlers import Context
from tlog.serve.sending import PIECE, Outbox, send
from tlog.serve.tenants import Tenants
from tlog.v1 import evidence_pb2 as pb

if TYPE_CHECKING:
    from tlog.audit.records import Records

EVIDENCE_REFUSALS = (*REFUSALS, AuditError)
MAX_NAMES: Final = 64


class EvidenceService:
    """The gRPC face of evidence. One coroutine for each method of `evidence.proto`."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._histories: dict[str, KeyHistory] = {}
        # A package is made in memory, and waits there for who asked for it.
        self._outbox = Outbox(4 * MAX_ZIP_SIZE)

    async def Collect(self, request: pb.CollectRequest, context: Context) -> None:
        records = self._tenants.get(request.log)
        access = Access(caller_of(context), request.purpose, request.request_id)
        choice, log = _choice(request), records.log
        history = self._histories.setdefault(log.name, KeyHistory(log))
        with ExitStack() as held:
            # Each tenant has its own turn, which waits for a checkpoint of its log.
            async with self._turns[log.name]:
                room = held.enter_context(self._outbox.room(MAX_ZIP_SIZE))
                indices, whole = await _indices(records, access, request)
                collected = await collect(
                    records,
                    indices,
                    choice,
                    history=history,
                    request_id=request.request_id if whole else "",
                    stamper=self._tenants.stampers.get(log.name),
                )
                recorded = await _record(records, access, request, collected)
            size = len(collected.package)
            room.keep(size)
            await send(context, _pieces(collected.package, recorded), size=size)


def evidence_status(error: Exception) -> grpc.Status:
    """A refusal in gRPC."""
    if isinstance(error, VaultDamaged):
        return rich_status(error, grpc.StatusCode.DATA_LOSS)
    if isinstance(error, EventRefused):
        return rich_status(InvalidRequest(str(error), field=error.field))
    if isinstance(error, AuditError):
        return rich_status(error, grpc.StatusCode.FAILED_PRECONDITION)
    return rich_status(error)


def _choice(request: pb.CollectRequest) -> Choice:
    if len(request.disclose) > MAX_NAMES or not all(1 <= len(n) <= 80 for n in request.disclose):
        raise InvalidRequest(f"at most {MAX_NAMES} names of claims", field="disclose")
    check_recipient(request.recipient, disclosing=request.disclose_all or bool(request.disclose))
    return Choice(
        frozenset(request.disclose),
        everything=request.disclose_all,
        # A query has no name that is too long, which could take minutes and gigabytes.
        subject=canonical(Query(subject=request.subject).subject),
    )


async def _indices(
    records: Records, access: Access, request: pb.CollectRequest
) -> tuple[Sequence[int], bool]:
    """The entries that are chosen, and whether they are all of a request."""
    if request.subject and request.indices:
        raise InvalidRequest("a subject or indices, not both", field="indices")
    if request.indices:
        if len(set(request.indices)) != len(request.indices):
            raise InvalidRequest("an index comes twice", field="indices")
        return list(request.indices), False
    if request.subject:
        query = Query(subject=request.subject)
        if about := await find_all(records, query):
            return about, False
        # That there is none is an answer, too.
        async with records.alone():
            await note_read(records, access, query=asked(records.vault, query))
        raise InvalidRequest("the log has no record of this subject", field="subject")
    found = await records.docket.entries(request.request_id) if request.request_id else []
    if not found:
        raise InvalidRequest(
            f"the log has no record of request {request.request_id!r:.80}: is it spelt so?"
            if request.request_id
            else "which records? Name a request, a subject or indices",
            field="request_id",
        )
    return found, True


async def _record(
    records: Records, access: Access, request: pb.CollectRequest, collected: Collected
) -> int:
    """Record the export, before anything of it is given out."""
    public = {"document_sha256": sha256(collected.package).hexdigest()}
    if request.recipient:
        public["recipient"] = request.recipient
    disclosed = ["all"] if request.disclose_all else sorted(request.disclose)
    async with records.alone():
        collected.check(records)
        return await note_read(
            records,
            access,
            type="log.exported",
            subjects=collected.subjects,
            count=len(collected.gone),
            query={"disclosed": disclosed},
            public=public,
        )


def _pieces(package: bytes, recorded: int) -> Iterator[pb.CollectResponse]:
    for start in range(0, len(package), PIECE):
        piece = pb.CollectResponse(data=package[start : start + PIECE])
        if not start:
            piece.size, piece.recorded = len(package), recorded
        yield piece
