"""How a log does, in the words of its server: for its operator; nothing of it can be verified."""

from __future__ import annotations

from dataclasses import dataclass

from tlog.client.errors import printable
from tlog.v1 import log_pb2 as pb


@dataclass(frozen=True, slots=True)
class WitnessStatus:
    """What a log says of a witness that it asks: see `CosignerStatus` in log.proto."""

    names: tuple[str, ...]
    url: str
    cosigned_size: int
    failures: int
    away: bool
    last_error: str
    last_seconds: float


@dataclass(frozen=True, slots=True)
class LogStatus:
    """How a log does, by the word of its server: see `GetLogStatusResponse` in log.proto."""

    name: str
    origin: str
    integrated_size: int
    signed_size: int
    published_size: int
    refusal: str
    quorum: str
    no_quorum: str
    fail_open: bool
    witnesses: tuple[WitnessStatus, ...]


def read_status(answer: pb.GetLogStatusResponse) -> LogStatus:
    """Take it from the answer, made fit for a terminal."""
    return LogStatus(
        name=printable(answer.name),
        origin=printable(answer.origin),
        integrated_size=answer.integrated_size,
        signed_size=answer.signed_size,
        published_size=answer.published_size,
        refusal=printable(answer.refusal),
        quorum=printable(answer.quorum),
        no_quorum=printable(answer.no_quorum),
        fail_open=answer.fail_open,
        witnesses=tuple(
            WitnessStatus(
                names=tuple(map(printable, one.names)),
                url=printable(one.url),
                cosigned_size=one.cosigned_size,
                failures=one.failures,
                away=one.away,
                last_error=printable(one.last_error),
                last_seconds=one.last_seconds,
            )
            for one in answer.witnesses
        ),
    )
