"""Proof that whoever answers at an address holds the key of a witness: a challenge, signed."""

from collections.abc import Sequence
from typing import Final

from tlog.notes import Signer, VerifierKey
from tlog.witness.errors import BadRequest

CHALLENGE_SIZE: Final = 32
"""Random bytes that are signed but once."""

# No note, cosignature or subtree begins so: what proves an identity is never anything else.
_DOMAIN: Final = b"tlog.v1 witness identity\n"


def prove_identity(signers: Sequence[Signer], vkey: str, challenge: bytes) -> bytes:
    """Sign a challenge with the key that it asks for.

    Raises:
        BadRequest: it is not one of ours, or the challenge has another size.
    """
    if len(challenge) != CHALLENGE_SIZE:
        raise BadRequest(f"a challenge of {len(challenge)} bytes, not {CHALLENGE_SIZE}")
    for signer in signers:
        if str(signer.vkey) == vkey:
            return signer.sign(_message(signer.vkey, challenge))
    raise BadRequest("this witness does not have the key that the challenge is for")


def proves_identity(vkey: VerifierKey, challenge: bytes, proof: bytes) -> bool:
    """Whether a challenge was signed by the witness of this key."""
    return vkey.verifies(proof, _message(vkey, challenge))


def _message(vkey: VerifierKey, challenge: bytes) -> bytes:
    return _DOMAIN + vkey.label.encode() + b"\n" + challenge
