"""A client interceptor for gRPC: records what an application asks of others.

    channel = grpc.intercept_channel(channel, AuditClientInterceptor(producer, describe))

For calls with one request and one answer. The record is made when the answer is there, before the
application gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc

from tlog.client.hooks.act import Act, Seen, record
from tlog.client.producer import Producer

Describe = Callable[[str, Any], Act | None]
"""What a call is, from the full name of its method and its request; None: nothing to record."""

_DENIED = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED})


class AuditClientInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Records calls that go out.

    Args:
        producer: closed by whoever made it.
        describe: says what a call is.
    """

    def __init__(self, producer: Producer, describe: Describe) -> None:
        self._producer = producer
        self._describe = describe

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See `grpc.UnaryUnaryClientInterceptor`; waits for the answer.

        Raises:
            EventRefused, SpoolError: it was called and cannot be recorded.
        """
        method = client_call_details.method
        if (act := self._describe(method, request)) is None:
            return continuation(client_call_details, request)
        self._producer.check()
        seen = Seen(method.removeprefix("/"), method, datetime.now().astimezone())
        call = continuation(client_call_details, request)
        code = call.code()  # waits
        outcome = "success" if code is grpc.StatusCode.OK else "failure"
        outcome = "denied" if code in _DENIED else outcome
        record(self._producer, act, seen, outcome, {"code": code.name})
        return call
