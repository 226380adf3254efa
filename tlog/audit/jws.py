"""Compact JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037): signing, and verifying in bulk.

There is one header that we accept: three names, no more. So there is nothing to negotiate, and a
header is understood once for each key. A library of JOSE does all of it per message: measured, a
third of what the signature itself costs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from tlog.audit.codec import decode_base64url, dump_json, encode_base64url, load_json
from tlog.audit.errors import EventRefused
from tlog.notes import Algorithm, Signer, VerifierKey

TYPE = "tlog-event+sd-jwt"
"""`typ` of the header: a signature made for something else is none of an event."""
MAX_JWS_SIZE = 57_000
"""Characters; with the time of receipt and 70 tokens it fits into an entry of 65,535 bytes."""
_MAX_HEADER = 1024


class Jws(NamedTuple):
    """A JWS taken apart, not verified.

    Attributes:
        text: all of it, in compact form.
        kid: which key it says signed it: `<producer>+<key ID>`.
        signing_input: what is signed.
    """

    text: str
    kid: str
    signing_input: bytes
    signature: bytes

    def payload(self) -> bytes:
        """The payload's bytes; call it once the signature is verified."""
        return decode_base64url(self.text.split(".", 2)[1], field="payload")


def sign_jws(signer: Signer, payload: bytes, *, typ: str = TYPE) -> str:
    """Sign a payload; the key must be an Ed25519 one."""
    if signer.vkey.algorithm is not Algorithm.ED25519:
        raise ValueError(f"{signer.vkey.label} is no Ed25519 key")
    header = encode_base64url(dump_json(_fields(signer.vkey.label, typ)))
    signing_input = f"{header}.{encode_base64url(payload)}"
    return f"{signing_input}.{encode_base64url(signer.sign(signing_input.encode('ascii')))}"


def parse_jws(text: str, *, typ: str = TYPE) -> Jws:
    """Take a JWS apart.

    Raises:
        EventRefused: too long, not three parts, or with another header than ours.
    """
    if len(text) > MAX_JWS_SIZE:
        raise EventRefused(
            f"{len(text)} characters, the limit is {MAX_JWS_SIZE}: say less in the clear",
            field="jws",
        )
    signed, dot, signature = text.rpartition(".")
    header, _, payload = signed.partition(".")
    if not dot or not payload or "." in payload or not text.isascii():
        raise EventRefused("not a compact JWS: header, payload and signature", field="jws")
    if len(header) > _MAX_HEADER:
        raise EventRefused("the header is too long", field="jws.header")
    decoded = decode_base64url(signature, field="jws.signature")
    if encode_base64url(decoded) != signature:
        raise EventRefused("not canonical base64url: spare bits are set", field="jws.signature")
    return Jws(text, _kid(header, typ), signed.encode("ascii"), decoded)


def verify_jws(jws: Jws, key: VerifierKey) -> None:
    """Check the signature.

    Raises:
        EventRefused: it is not this key's.
    """
    if not key.verifies(jws.signature, jws.signing_input):
        raise EventRefused(f"the signature is not that of {key.label}", field="jws.signature")


def _fields(kid: str, typ: str) -> dict[str, str]:
    return {"alg": "EdDSA", "kid": kid, "typ": typ}


@lru_cache(maxsize=4096)
def _kid(header: str, typ: str) -> str:
    fields = load_json(decode_base64url(header, field="jws.header"), field="jws.header")
    kid = fields.get("kid") if isinstance(fields, dict) else None
    if not isinstance(kid, str) or fields != _fields(kid, typ):
        raise EventRefused(
            f'needs exactly {{"alg": "EdDSA", "kid": "<producer>+<key ID>", "typ": "{typ}"}}',
            field="jws.header",
        )
    return kid
