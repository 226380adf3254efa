"""An AuditService over a real socket: it verifies and deduplicates as the true one, and misbehaves
when told to."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.audit.producer import CATALOGUE, SHOP, TENANT
from tlog.audit import Event, EventRefused, open_event
from tlog.audit.jws import parse_jws
from tlog.client import Producer
from tlog.notes import Signer, VerifierKey, save_signer
from tlog.v1 import audit_pb2 as pb
from tlog.v1 import audit_pb2_grpc

Trick = Callable[["AuditDouble", pb.RecordRequest, Any], pb.RecordResponse]
UNKNOWN_KEY = "jws.header.kid"


class AuditDouble(audit_pb2_grpc.AuditServiceServicer):
    """What it recorded, in order, and the tricks it plays on the next calls.

    `poisoned` refuses events of these types, `registered` is whether it knows the producer.
    """

    def __init__(self, vkey: VerifierKey = SHOP.vkey) -> None:
        self.vkey = vkey
        self.events: list[Event] = []
        self.tricks: deque[Trick] = deque()
        self.registered = True
        self.poisoned: set[str] = set()
        self.most = 1 << 30
        self.calls: list[int] = []
        self._ids: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def Record(self, request: pb.RecordRequest, context: grpc.ServicerContext) -> pb.RecordResponse:  # noqa: N802
        with self._lock:
            self.calls.append(len(request.events))
            if self.tricks:
                return self.tricks.popleft()(self, request, context)
            if len(request.events) > self.most:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many")
            return self.take(request)

    def Search(self, request: Any, context: Any) -> pb.SearchResponse:  # noqa: N802
        raise NotImplementedError

    def Read(self, request: Any, context: Any) -> pb.ReadResponse:  # noqa: N802
        raise NotImplementedError

    def take(self, request: pb.RecordRequest) -> pb.RecordResponse:
        return pb.RecordResponse(outcomes=map(self._one, request.events))

    def _one(self, sd_jwt: str) -> pb.RecordOutcome:
        try:
            if not self.registered:
                raise EventRefused("register it first", field=UNKNOWN_KEY)
            if parse_jws(sd_jwt.partition("~")[0]).kid != self.vkey.label:
                raise EventRefused("it was valid until yesterday", field=UNKNOWN_KEY)
            event = open_event(sd_jwt, self.vkey, tenant=TENANT, catalogue=CATALOGUE)
            if event.type.name in self.poisoned:
                raise EventRefused("not here", field="type")
        except EventRefused as refusal:
            return pb.RecordOutcome(
                refused=pb.RefusedEvent(field=refusal.field, reason=str(refusal))
            )
        duplicate = event.event_id in self._ids
        index = self._ids.setdefault(event.event_id, len(self.events))
        if not duplicate:
            self.events.append(event)
        return pb.RecordOutcome(recorded=pb.RecordedEvent(index=index, duplicate=duplicate))

    def seqs(self) -> list[int]:
        return [event.seq for event in self.events]


def away(
    double: AuditDouble, request: pb.RecordRequest, context: grpc.ServicerContext
) -> pb.RecordResponse:
    context.abort(grpc.StatusCode.UNAVAILABLE, "closing")


def lost(
    double: AuditDouble, request: pb.RecordRequest, context: grpc.ServicerContext
) -> pb.RecordResponse:
    double.take(request)
    context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")


def busy(
    double: AuditDouble, request: pb.RecordRequest, context: grpc.ServicerContext
) -> pb.RecordResponse:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=1_000_000)))
    status = status_pb2.Status(code=8, message="come back later", details=[detail])
    context.abort_with_status(rpc_status.to_status(status))


def slow(
    double: AuditDouble, request: pb.RecordRequest, context: grpc.ServicerContext
) -> pb.RecordResponse:
    time.sleep(0.3)
    return double.take(request)


def short(
    double: AuditDouble, request: pb.RecordRequest, context: grpc.ServicerContext
) -> pb.RecordResponse:
    answer = double.take(request)
    del answer.outcomes[0]
    return answer


def empty(
    double: AuditDouble, request: pb.RecordRequest, context: grpc.ServicerContext
) -> pb.RecordResponse:
    return pb.RecordResponse(outcomes=[pb.RecordOutcome()] * len(request.events))


@contextlib.contextmanager
def served(double: AuditDouble, port: int = 0) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    audit_pb2_grpc.add_AuditServiceServicer_to_server(double, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(None).wait()


def key_file(directory: Path, signer: Signer = SHOP) -> Path:
    path = directory / f"{signer.vkey.name}.key"
    if not path.exists():
        save_signer(path, signer, passphrase=None)
    return path


def producer(target: Any, directory: Path, **more: Any) -> Producer:
    settings: dict[str, Any] = {
        "key": key_file(directory),
        "tenant": TENANT,
        "spool": directory / "spool",
    }
    return Producer(target, **(settings | more))


def until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)
