"""What a mirror refuses beside what a witness refuses, whose errors it shares.

SPEC tlog-mirror names refusals by HTTP status codes; each error carries its own.
"""

from __future__ import annotations

from tlog.mirror.uploads import MirrorInfo
from tlog.witness import Refusal, WitnessError


class MirrorError(WitnessError):
    """The mirror cannot be made, opened or restored from as asked. The message says what to do."""


class UploadConflict(Refusal):
    """The upload does not start or end where the mirror can take it.

    Attributes:
        info: where it can.
    """

    status = 409

    def __init__(self, message: str, *, info: MirrorInfo) -> None:
        super().__init__(message)
        self.info = info


class Unsupported(Refusal):
    """The body has a type or a coding that the mirror does not read."""

    status = 415


class TooSlow(Refusal):
    """The body did not arrive in time."""

    status = 408
