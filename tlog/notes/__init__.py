"""What a log, a witness and an auditor sign and verify: text, in the formats of C2SP.

Signed notes and vkeys (`note`, `keys`), checkpoints (`checkpoint`), cosignatures of both types
(`cosignature`), `.tlog-proof` files (`proof`), trust policies (`policy`). A value that exists is
well-formed; nothing is trusted before an `open_` or `verify_` function returned. Every parser is
bounded, accepts exactly one spelling, and raises `NoteError`. No I/O but key files (`keyfile`).
"""

from tlog.notes.checkpoint import (
    Checkpoint,
    SignedCheckpoint,
    VerifiedCheckpoint,
    open_checkpoint,
    parse_checkpoint,
    parse_unverified,
    sign_checkpoint,
    verify_checkpoint,
)
from tlog.notes.cosignature import (
    Subtree,
    cosign,
    cosign_subtree,
    verify_cosignature,
    verify_subtree_cosignature,
)
from tlog.notes.errors import NoteError
from tlog.notes.keyfile import load_signer, passphrase_from_environment, save_signer
from tlog.notes.keys import Algorithm, Signer, VerifierKey, check_name
from tlog.notes.note import (
    MAX_NOTE_SIZE,
    MAX_SIGNATURES,
    Note,
    NoteSignature,
    known_signatures,
    parse_note,
    parse_signatures,
)
from tlog.notes.policy import (
    MAX_POLICY_SIZE,
    Policy,
    PolicyWitness,
    Verdict,
    Weighed,
    parse_policy,
)
from tlog.notes.proof import (
    TlogProof,
    check_inclusion,
    parse_proof,
    verify_proof,
    verify_proof_hash,
)

__all__ = [
    "MAX_NOTE_SIZE",
    "MAX_POLICY_SIZE",
    "MAX_SIGNATURES",
    "Algorithm",
    "Checkpoint",
    "Note",
    "NoteError",
    "NoteSignature",
    "Policy",
    "PolicyWitness",
    "SignedCheckpoint",
    "Signer",
    "Subtree",
    "TlogProof",
    "Verdict",
    "VerifiedCheckpoint",
    "VerifierKey",
    "Weighed",
    "check_inclusion",
    "check_name",
    "cosign",
    "cosign_subtree",
    "known_signatures",
    "load_signer",
    "open_checkpoint",
    "parse_checkpoint",
    "parse_note",
    "parse_policy",
    "parse_proof",
    "parse_signatures",
    "parse_unverified",
    "passphrase_from_environment",
    "save_signer",
    "sign_checkpoint",
    "verify_checkpoint",
    "verify_cosignature",
    "verify_proof",
    "verify_proof_hash",
    "verify_subtree_cosignature",
]
