"""What a witness refuses, and why. Every message is one line.

SPEC tlog-witness names its refusals by HTTP status codes, so each error here carries its code;
the faces of the witness translate from there.
"""

from typing import ClassVar


class WitnessError(Exception):
    """The witness cannot be made, opened or changed as asked. The message says what to do."""


class Refusal(WitnessError):
    """A request that was refused: nothing was cosigned.

    Attributes:
        status: the status code that tlog-witness gives this refusal.
    """

    status: ClassVar[int]


class BadRequest(Refusal):
    """Malformed, or it contradicts itself: it can never succeed."""

    status = 400


class BadSignature(Refusal):
    """No trusted signature, or a signature of a trusted key that does not verify."""

    status = 403


class Frozen(Refusal):
    """The witness does not cosign this log until its operator unfreezes it.

    The specification has no status for it. It is 403, "Forbidden": asking again, with another
    size or a better proof, changes nothing.
    """

    status = 403


class UnknownOrigin(Refusal):
    """The witness does not know this log, or has no checkpoint of it."""

    status = 404


class SizeConflict(Refusal):
    """The old size is not that of the latest cosigned checkpoint.

    Attributes:
        size: what it should have been.
    """

    status = 409

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


class Unprocessable(Refusal):
    """The checkpoint is not proven to follow from the latest cosigned one."""

    status = 422


class TooManyRequests(Refusal):
    """Over the rate for one log. Nothing happened; come back later.

    Attributes:
        retry_after: seconds.
    """

    status = 429

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(Refusal):
    """The witness's disk refuses, or it is shutting down. Nothing is known to be recorded."""

    status = 503
