"""Tickets: by what a mirror recognises a pending checkpoint that it has had before.

SPEC tlog-mirror: "mirrors SHOULD accept any of the last several pending checkpoint values as
`upload_end`. This MAY be implemented with extra state, or by storing the signed checkpoint in the
ticket. The mirror MUST authenticate any information it derives from a ticket."

    mac (32)   HMAC-SHA256 over the rest
    time u64   when it was issued, in seconds since the Epoch
    note       the pending checkpoint, with the log's signatures
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Final

from tlog.notes import Signer

MAX_TICKET_SIZE: Final = 65535
LIFETIME_SECONDS: Final = 24 * 3600

_MAC_SIZE: Final = hashlib.sha256().digest_size
_HEAD_SIZE: Final = _MAC_SIZE + 8
_LABEL: Final = b"tlog mirror ticket v1"


class Tickets:
    """Issues tickets, and reads those that it issued.

    Args:
        secret: known to the mirror alone; with another one, all tickets are forged.
        clock: POSIX time in seconds.
    """

    def __init__(self, secret: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock

    @classmethod
    def of(cls, signers: Sequence[Signer], *, clock: Callable[[], float] = time.time) -> Tickets:
        """Those of a mirror with these keys: a restart forgets none, and there is no further key.

        What is signed is never an HMAC's input, so that the seed may serve both.
        """
        return cls(hmac.digest(signers[0].seed, _LABEL, "sha256"), clock=clock)

    def issue(self, note: bytes) -> bytes:
        """A ticket for a pending checkpoint; none, b"", when the note is too long for one."""
        stamped = int(self._clock()).to_bytes(8, "big") + note
        ticket = self._mac(stamped) + stamped
        return ticket if len(ticket) <= MAX_TICKET_SIZE else b""

    def read(self, ticket: bytes) -> bytes | None:
        """The note of a ticket; None when it is forged, damaged, or older than a day."""
        mac, stamped = ticket[:_MAC_SIZE], ticket[_MAC_SIZE:]
        if len(ticket) < _HEAD_SIZE or not hmac.compare_digest(mac, self._mac(stamped)):
            return None
        age = int(self._clock()) - int.from_bytes(stamped[:8], "big")
        return stamped[8:] if 0 <= age <= LIFETIME_SECONDS else None

    def _mac(self, stamped: bytes) -> bytes:
        return hmac.digest(self._secret, stamped, "sha256")
