"""What can go wrong between a client and a log, one class for each thing the caller can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import grpc

MAX_SHOWN = 500

Check = Literal[
    "message",
    "echo",
    "signature",
    "quorum",
    "freshness",
    "fork",
    "rollback",
    "consistency",
    "inclusion",
    "bundle",
    "tile",
    "missing",
    "root",
    "opinion",
    "evidence",
    "disclosure",
]
"""Which rule an answer broke. message: not the message it should be. echo: an answer to another
question. signature: not a checkpoint signed by the pinned keys. quorum: too few
witnesses cosigned it. freshness: enough did, but too few of them lately. fork: two heads of one
size.
rollback: a head from before the last seen one, not proven to be its past. consistency, inclusion:
the proof does not hold. bundle: entries missing, repeated, out of order, or not in the tree. tile:
it is not what the entries give. missing: the head requires it, and it is not there. root: the
entries give another one than the head. opinion: pymerkle disagrees with us. evidence: an evidence
package does not prove what it says. disclosure: what is told of a record is not what its leaf
says."""


class ClientError(Exception):
    """Anything that keeps a client from answering.

    Attributes:
        outcome_unknown: the call was an append and its answer was lost: the entries may have been
            appended or not. Ask for a proof by leaf hash before sending them again.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class VerificationError(ClientError):
    """The server lied, or is broken. Never retry: tell the log's operator and its auditors.

    Attributes:
        check: which rule was broken.
        evidence: the signed notes that contradict each other, of the last head seen and of the one
            refused; empty when the answer alone was bad. Anybody can verify their signatures.
    """

    def __init__(self, check: Check, message: str, *, evidence: tuple[bytes, ...] = ()) -> None:
        super().__init__(f"{check} check failed: {message}")
        self.check = check
        self.evidence = evidence


class TrustError(ClientError):
    """There is no key to verify with, or not the one that was pinned."""


class StateError(ClientError):
    """The state file is damaged, locked for long, or cannot be written."""


class SpoolError(ClientError):
    """The spool cannot be opened or written; see `outcome_unknown` for the record at hand."""


class SpoolFull(SpoolError):
    """Too much waits for the server. The record was not taken."""


class SpoolDamaged(SpoolError):
    """Records in the spool that were acknowledged can no longer be read."""


class Unreachable(ClientError):
    """No server answers."""


class TimedOut(ClientError, TimeoutError):
    """No answer in time."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field of a request: its name in the interface, and what is wrong with it."""

    field: str
    description: str


class Refused(ClientError):
    """The server, or the client on its behalf, refused the request.

    Attributes:
        code: the gRPC status code.
        violations: which fields were wrong.
        retry_after: seconds after which the server wants to be asked again; None if never.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown)
        self.code = code
        self.violations = violations
        self.retry_after = retry_after


def invalid(field: str, message: str) -> Refused:
    """A refusal of our own, before anything is sent."""
    return Refused(
        grpc.StatusCode.INVALID_ARGUMENT, message, violations=(Violation(field, message),)
    )


def printable(text: str) -> str:
    """A stranger's words, made fit for a terminal: one line, bounded, no control characters."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + "…"
