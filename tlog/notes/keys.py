"""Key names, verifier keys (vkeys) and signers. SPEC signed-note: "Verifier keys"."""

import functools
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from tlog.notes.codec import (
    check_text,
    decode_base64,
    decode_utf8,
    encode_base64,
    encode_utf8,
    shown,
)
from tlog.notes.errors import NoteError
from tlog.notes.mldsa import signing

MAX_NAME_SIZE = 255  # of a key name or an origin, in bytes: tlog-cosignature's <1..2^8-1>
MAX_VKEY_SIZE = 2048  # the longest one, ML-DSA-44 under a name of 255 bytes, has 2017
SEED_SIZE = 32

_KEY_ID = re.compile(r"[0-9a-f]{8}")


class Algorithm(IntEnum):
    """Signature type identifier bytes. SPEC signed-note: "Signature types"."""

    ED25519 = 0x01
    ED25519_COSIGNATURE = 0x04
    MLDSA44 = 0x06

    @property
    def key_size(self) -> int:
        """Size of a public key in bytes."""
        return 1312 if self is Algorithm.MLDSA44 else 32

    @property
    def signature_size(self) -> int:
        """Size of a bare signature in bytes, without key ID and timestamp."""
        return 2420 if self is Algorithm.MLDSA44 else 64


def check_name_characters(name: str) -> None:
    """Refuse a name that could not stand in a signature line."""
    # SPEC signed-note: "Key names MUST be non-empty and MUST NOT contain any Unicode spaces or
    # plus (U+002B) characters."
    if not name:
        raise NoteError("a key name is empty")
    check_text(name, "key name")
    encode_utf8(name, "key name")
    if "+" in name or any(map(str.isspace, name)):
        raise NoteError(f"key name {shown(name)} contains a space or a plus")


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a key of ours, or the origin of a log of ours.

    A name has 1 to 255 bytes of UTF-8 and no Unicode spaces, plus or control characters.
    """
    check_name_characters(name)
    if (size := len(name.encode())) > MAX_NAME_SIZE:
        raise NoteError(f"key name {shown(name)} has {size} bytes, the limit is {MAX_NAME_SIZE}")


def check_origin(origin: str) -> None:
    """Refuse what cannot be the origin line of a checkpoint, anybody's: 1 to 255 bytes of UTF-8.

    The bound is tlog-cosignature's, `opaque log_origin<1..2^8-1>`.
    """
    if not 1 <= (size := len(encode_utf8(origin, "origin"))) <= MAX_NAME_SIZE:
        raise NoteError(f"an origin of {size} bytes, it needs 1 to {MAX_NAME_SIZE}")
    if "\n" in origin:
        raise NoteError(f"the origin {shown(origin)} is more than one line")
    check_text(origin, "origin")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name and the algorithm it signs under; `str()` gives the vkey.

    `public_key` has 32 bytes, or 1312 for ML-DSA-44. Creating one checks all of it (NoteError).
    """

    name: str
    algorithm: Algorithm
    public_key: bytes = field(repr=False)
    key_id: int = field(init=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public_key) != self.algorithm.key_size:
            raise NoteError(
                f"the public key of {self.name!r} has {len(self.public_key)} bytes, "
                f"{self.algorithm.name} keys have {self.algorithm.key_size}"
            )
        # SPEC signed-note: key ID = SHA-256(key name || 0x0A || signature type || public key)[:4]
        material = bytes([self.algorithm]) + self.public_key
        digest = hashlib.sha256(self.name.encode() + b"\n" + material).digest()
        object.__setattr__(self, "key_id", int.from_bytes(digest[:4], "big"))

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read `<key name>+hex(key ID)+base64(signature type || public key)`, nothing around it."""
        if len(text) > MAX_VKEY_SIZE:
            raise NoteError(f"a vkey of {len(text)} bytes, the limit is {MAX_VKEY_SIZE}")
        vkey = text if isinstance(text, str) else decode_utf8(text, "vkey")
        name, *rest = vkey.split("+", 2)  # base64 has a plus too
        if len(rest) != 2 or not _KEY_ID.fullmatch(rest[0]):
            raise NoteError(
                f"{shown(vkey)} is not a vkey: <name>+<8 lowercase hex digits>+<base64>"
            )
        material = decode_base64(rest[1])
        try:
            algorithm = Algorithm(int.from_bytes(material[:1], "big"))
        except ValueError:
            known = ", ".join(f"0x{algorithm:02x} {algorithm.name}" for algorithm in Algorithm)
            raise NoteError(
                f"vkey {shown(vkey)} has the signature type 0x{material[:1].hex()}; "
                f"supported: {known}"
            ) from None
        key = cls(name, algorithm, material[1:])
        if key.key_id != int(rest[0], 16):
            raise NoteError(
                f"vkey {shown(vkey)} names the key ID {rest[0]}, its key has {key.key_id:08x}"
            )
        return key

    def __str__(self) -> str:
        material = bytes([self.algorithm]) + self.public_key
        return f"{self.label}+{encode_base64(material)}"

    @property
    def label(self) -> str:
        """`<name>+<key ID>`: enough to tell keys apart in a message or a log line."""
        return f"{self.name}+{self.key_id:08x}"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's over exactly `message`.

        What the message of a note is depends on the algorithm: see `note` and `cosignature`.
        """
        if len(signature) != self.algorithm.signature_size:
            return False
        try:
            _loaded(self.algorithm, self.public_key).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@functools.lru_cache(maxsize=1024)
def _loaded(algorithm: Algorithm, public_key: bytes) -> Ed25519PublicKey | MLDSA44PublicKey:
    # Loading costs up to a tenth of a verification, and an auditor verifies with few keys.
    if algorithm is Algorithm.MLDSA44:
        return MLDSA44PublicKey.from_public_bytes(public_key)
    return Ed25519PublicKey.from_public_bytes(public_key)


@dataclass(frozen=True, slots=True, eq=False)
class Signer:
    """A private key, with the vkey that verifies what it signs."""

    vkey: VerifierKey
    _key: Ed25519PrivateKey | MLDSA44PrivateKey = field(repr=False)
    _sign: Callable[[bytes], bytes] = field(repr=False)

    @classmethod
    def generate(cls, name: str, algorithm: Algorithm) -> Self:
        """A new key from the system's randomness."""
        source = MLDSA44PrivateKey if algorithm is Algorithm.MLDSA44 else Ed25519PrivateKey
        return cls._of(name, algorithm, source.generate())

    @classmethod
    def from_seed(cls, name: str, algorithm: Algorithm, seed: bytes) -> Self:
        """The key of a 32-byte seed (RFC 8032 section 5.1.5, FIPS 204 algorithm 6)."""
        if len(seed) != SEED_SIZE:
            raise NoteError(f"the seed of {shown(name)} has {len(seed)} bytes, not {SEED_SIZE}")
        if algorithm is Algorithm.MLDSA44:
            return cls._of(name, algorithm, MLDSA44PrivateKey.from_seed_bytes(seed))
        return cls._of(name, algorithm, Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def _of(
        cls, name: str, algorithm: Algorithm, key: Ed25519PrivateKey | MLDSA44PrivateKey
    ) -> Self:
        vkey = VerifierKey(name, algorithm, key.public_key().public_bytes_raw())
        return cls(vkey, key, signing(key) if isinstance(key, MLDSA44PrivateKey) else key.sign)

    @property
    def seed(self) -> bytes:
        """The secret itself, 32 bytes; for key files only."""
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The bare signature over `message`: 64 bytes, or 2420 for ML-DSA-44."""
        return self._sign(message)
