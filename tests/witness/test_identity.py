"""A witness proves that it holds its keys, by signing what is used for nothing else."""

import pytest

from tests.witness.support import ORIGIN, signer
from tlog.notes import Algorithm, VerifierKey
from tlog.witness import CHALLENGE_SIZE, BadRequest, proves_identity
from tlog.witness.identity import prove_identity

SIGNERS = [
    signer("witness.example/1", algorithm)
    for algorithm in (Algorithm.ED25519_COSIGNATURE, Algorithm.MLDSA44)
]
CHALLENGE = bytes(range(CHALLENGE_SIZE))


@pytest.mark.parametrize("own", SIGNERS, ids=["ed25519", "mldsa44"])
def test_only_the_key_and_the_challenge_that_were_meant(own: object) -> None:
    vkey: VerifierKey = own.vkey  # type: ignore[attr-defined]
    proof = prove_identity(SIGNERS, str(vkey), CHALLENGE)
    assert proves_identity(vkey, CHALLENGE, proof)
    assert not proves_identity(vkey, bytes(CHALLENGE_SIZE), proof)
    assert not proves_identity(vkey, CHALLENGE, b"")
    assert not proves_identity(signer(ORIGIN, vkey.algorithm, 1).vkey, CHALLENGE, proof)
    renamed = VerifierKey("witness.example/2", vkey.algorithm, vkey.public_key)
    assert not proves_identity(renamed, CHALLENGE, proof)
    for place in range(0, len(proof), 7):
        bad = bytearray(proof)
        bad[place] ^= 1 << place % 8
        assert not proves_identity(vkey, CHALLENGE, bytes(bad))


def test_what_is_not_signed() -> None:
    own = str(SIGNERS[0].vkey)
    for challenge in (b"", bytes(CHALLENGE_SIZE - 1), bytes(CHALLENGE_SIZE + 1), bytes(1 << 20)):
        with pytest.raises(BadRequest, match="challenge"):
            prove_identity(SIGNERS, own, challenge)
    for vkey in ("", "nonsense", own[:-1], str(signer(ORIGIN, Algorithm.MLDSA44, 1).vkey)):
        with pytest.raises(BadRequest, match="does not have the key"):
            prove_identity(SIGNERS, vkey, CHALLENGE)
