"""The keys that targets know, whose seeds are public: what they signed is in the corpus."""

from __future__ import annotations

from tests.witness.support import SomeLog, signer
from tlog.notes import Algorithm

LOG = SomeLog("log.example/fuzz", (Algorithm.ED25519, Algorithm.MLDSA44))
FORK = SomeLog("log.example/fuzz", (Algorithm.ED25519,), forked_at=0)
WITNESSES = (
    signer("witness.example/a", Algorithm.ED25519_COSIGNATURE),
    signer("witness.example/b", Algorithm.MLDSA44),
)
LOG_VKEYS = [key.vkey for key in LOG.signers]
WITNESS_VKEYS = [key.vkey for key in WITNESSES]
HEAD = LOG.checkpoint(7)
POLICY = "".join(
    f"{line}\n" for line in (*(f"log {vkey}" for vkey in LOG_VKEYS), "quorum none")
).encode()
