"""RFC 3161 time-stamps: asked for, and verified offline with certificates that are pinned.

What is stamped is a published checkpoint, the whole note: an authority then says that the log had
signed that head, and with it all entries below its size, no later than a time. So an entry is as
old as the **first stamped checkpoint that includes it**: that is the bound from above, and the
authority's word. From below it is bounded by the **last stamped checkpoint that does not include
it**, at the time in the log's own signature on that: the log's word alone. (The token's time would
be no such bound: an authority that was away stamps late, when the entry may have been there.)
`openssl ts -verify -data NOTE -in ANSWER -CAfile ROOT` verifies the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerifierBuilder,
    decode_timestamp_response,
)

from tlog.audit.errors import AuditError
from tlog.notes import NoteError, VerifierKey, open_checkpoint
from tlog.notes.codec import shown

MAX_ANSWER_SIZE: Final = 64 << 10
"""Bytes of an answer: a token with a chain of certificates has 2 to 10 KiB."""

UNREADABLE: Final = (
    *(ValueError, TypeError),
    *(x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
"""What is raised when a name, or the extensions, of a certificate are asked for, and are none."""

_CHAIN = re.compile(r'"Verify error: ?([^"]+)"')
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class StampError(AuditError):
    """No time-stamp: its authority is away or refuses, or what came does not verify."""


class TimeStamper(Protocol):
    """The way to one authority."""

    async def stamp(self, request: bytes) -> bytes:
        """Send a TimeStampReq (DER), give what comes back: not verified, of at most 64 KiB.

        Raises:
            StampError: no answer, or none in time.
        """


Connect = Callable[[str], TimeStamper]
"""Gives the way to the authority at a URL."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A time-stamp authority (TSA) that is trusted.

    Attributes:
        name: ours for it, in files, metrics and messages.
        url: where it answers.
        signers: the certificates that its tokens may be signed with. An authority changes them
            every few years: the old ones stay, for the old tokens.
        issuers: the root, and what lies between it and the signers.
    """

    name: str
    url: str
    signers: tuple[x509.Certificate, ...]
    issuers: tuple[x509.Certificate, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise StampError(f"{shown(self.name)} is no name: letters, digits, '.', '_' and '-'")
        if not self.signers:
            raise StampError(f"{self.name}: no certificate of a signer is pinned")
        for signer in self.signers:
            _check_signer(self.name, signer)
        if not self.roots:
            raise StampError(
                f"{self.name}: the issuers need a root, a certificate that its own subject issued"
            )

    @property
    def roots(self) -> list[x509.Certificate]:
        """Those of the issuers that nobody else vouches for."""
        return [issuer for issuer in self.issuers if _is_root(issuer)]


@dataclass(frozen=True, slots=True)
class StampTime:
    """What a verified token says.

    Attributes:
        time: when it was made (genTime), in UTC.
        accuracy: how far that may be off; None when the authority does not say.
        serial: the token's number at its authority.
        not_after: what was stamped existed by then: `time` and `accuracy` together.
        signer: to whom the certificate that signed it is issued (RFC 4514).
    """

    time: datetime
    accuracy: timedelta | None
    serial: int
    not_after: datetime
    signer: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """A checkpoint of `size` entries, its note, and what an authority answered: not verified."""

    authority: str
    size: int
    note: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class EntryTime:
    """Between when and when an entry was appended.

    Attributes:
        not_after: it was there by then: the authority's word.
        not_before: it was not there yet: the log's word. None when no stamped head says so, or
            the log's clock cannot be right: it was ahead of the authority's.
        including: size of the head that the first is from.
        excluding: size of the head that the second is from, None if there is none.
    """

    not_after: datetime
    not_before: datetime | None
    including: int
    excluding: int | None


@dataclass(frozen=True, slots=True)
class StampRequest:
    """A TimeStampReq, and the nonce that its answer must repeat."""

    der: bytes
    nonce: int


def make_request(note: bytes) -> StampRequest:
    """Ask for a stamp over a note: SHA-256, a fresh nonce, the signer's certificate wanted."""
    request = TimestampRequestBuilder(note, HashAlgorithm.SHA256, nonce=True, cert_req=True).build()
    assert request.nonce is not None  # noqa: S101 -- asked for just now
    return StampRequest(request.as_bytes(), request.nonce)


def verify_stamp(
    answer: bytes, note: bytes, authority: Authority, *, nonce: int | None = None
) -> StampTime:
    """Verify the answer of an authority (a TimeStampResp, DER) over a note.

    It is granted without modification, over this note, signed by a pinned certificate for time
    stamping, which was valid at that time and leads to the pinned root. Nothing that comes with
    the answer is trusted. With `nonce` it answers that request and no other.

    Raises:
        StampError: it does not verify; the message says why.
    """
    try:
        if len(answer) > MAX_ANSWER_SIZE:
            raise StampError(f"{authority.name}: an answer of more than {MAX_ANSWER_SIZE} bytes")
        response = decode_timestamp_response(answer)
        # SPEC RFC 3161, 2.4.2: "When the status contains the value zero or one, a TimeStampToken
        # MUST be present." One says that it is not quite what was asked for.
        if response.status != 0:
            said = shown(" ".join(response.status_string))
            raise StampError(f"{authority.name}: not granted: status {response.status}, {said}")
        signer = _signer(response, authority)
        verifier = VerifierBuilder(
            tsa_certificate=signer,
            roots=authority.roots,
            intermediates=[issuer for issuer in authority.issuers if not _is_root(issuer)],
            nonce=nonce,
        ).build()
        verifier.verify_message(response, note)
        return _time(response, signer)
    except (StampError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 -- damaged DER makes three libraries raise anything
        # A panic of one that is written in Rust is no Exception.
        # Of OpenSSL's stack of errors only what it has to say of the certificates.
        found = _CHAIN.search(str(error))
        reason = found[1] if found else f"{type(error).__name__}: {error}".split(": ErrorStack")[0]
        reason = " ".join(reason.split())[:200]
        raise StampError(f"{authority.name}: the stamp does not verify: {reason}") from None


def verify_checkpoint_stamp(
    stamp: Stamp, authority: Authority, vkeys: Sequence[VerifierKey]
) -> tuple[StampTime, datetime | None]:
    """Verify a stamp, and the checkpoint that it is over, with the keys of the log.

    Returns:
        What the stamp says; and the time in the log's own signature, None if it has none.

    Raises:
        StampError: the one or the other does not verify.
    """
    time = verify_stamp(stamp.answer, stamp.note, authority)
    try:
        verified = open_checkpoint(stamp.note, vkeys, origin=vkeys[0].name)
    except NoteError as error:
        raise StampError(f"the stamped checkpoint of size {stamp.size}: {error}") from None
    if verified.checkpoint.size != stamp.size:
        raise StampError(
            f"the stamped checkpoint is of size {verified.checkpoint.size}, not {stamp.size}"
        )
    signed = next((seconds for _, seconds in verified.signed_by if seconds is not None), None)
    try:
        return time, None if signed is None else datetime.fromtimestamp(signed, UTC)
    except (ValueError, OverflowError, OSError):
        raise StampError(f"the log's signature has the time {signed}, which is none") from None


def entry_time(
    index: int,
    including: Stamp,
    excluding: Stamp | None,
    authority: Authority,
    vkeys: Sequence[VerifierKey],
) -> EntryTime:
    """Bound the time of an entry by a stamp on either side of it (see above); both are verified.

    Raises:
        StampError: a stamp does not verify, or lies on the wrong side.
    """
    if including.size <= index or (excluding is not None and excluding.size > index):
        raise StampError(f"these stamps do not lie on the two sides of entry {index}")
    stamped, _ = verify_checkpoint_stamp(including, authority, vkeys)
    if excluding is None:
        return EntryTime(stamped.not_after, None, including.size, None)
    _, signed = verify_checkpoint_stamp(excluding, authority, vkeys)
    if signed is not None and signed > stamped.not_after:
        signed = None
    return EntryTime(stamped.not_after, signed, including.size, excluding.size)


def _signer(response: TimeStampResponse, authority: Authority) -> x509.Certificate:
    """The pinned certificate that the token claims to be signed with."""
    infos = response.signed_data.signer_infos
    if len(infos) != 1:
        raise StampError(f"{authority.name}: a token with {len(infos)} signatures, it needs one")
    info = infos.pop()
    for signer in authority.signers:
        if (signer.issuer, signer.serial_number) == (info.issuer, info.serial_number):
            return signer
    raise StampError(
        f"{authority.name}: signed with certificate {info.serial_number:x} of "
        f"{shown(info.issuer.rfc4514_string())}, which is not pinned. If the authority has a new "
        "one that you trust, put it among its signers"
    )


def _time(response: TimeStampResponse, signer: x509.Certificate) -> StampTime:
    info = response.tst_info
    # The library says that there always is one. SPEC RFC 3161, 2.4.2: "accuracy OPTIONAL"
    stated = getattr(info, "accuracy", None)
    accuracy = None
    if stated is not None:
        # "If either seconds, millis or micros is missing, then a value of zero MUST be taken for
        # the missing field."
        accuracy = timedelta(
            seconds=stated.seconds or 0,
            milliseconds=stated.millis or 0,
            microseconds=stated.micros or 0,
        )
    time = info.gen_time.astimezone(UTC)
    not_after = time + (accuracy or timedelta())
    return StampTime(time, accuracy, info.serial_number, not_after, signer.subject.rfc4514_string())


def _check_signer(name: str, certificate: x509.Certificate) -> None:
    """SPEC RFC 3161, 2.3: the extended key usage is critical, and time stamping alone."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (*UNREADABLE, x509.ExtensionNotFound):
        usage = None
    if usage is None or not usage.critical or list(usage.value) != _STAMPING:
        subject = shown(certificate.subject.rfc4514_string())
        raise StampError(
            f"{name}: the certificate of {subject} is not one for time stamping alone (critical "
            "extended key usage id-kp-timeStamping): pin the one that signs the stamps"
        )


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


_STAMPING = [ExtendedKeyUsageOID.TIME_STAMPING]
