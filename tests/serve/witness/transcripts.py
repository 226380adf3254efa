"""The table of tlog-witness as data: a witness that has cosigned size 5, requests, and answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.witness.support import ORIGIN, WITNESS_SIGNERS, SomeLog, flip, signer
from tlog.notes import Algorithm, Checkpoint, Note, NoteSignature, cosign, parse_note
from tlog.notes.note import sign_text
from tlog.witness import AddCheckpoint, SignSubtree

LOG = SomeLog()
FORK = SomeLog(forked_at=4)
STRANGER = SomeLog("log.example/unknown")
SIZE = 5
BAD_HASH = bytes(32)


@dataclass(frozen=True)
class Exchange:
    """A request, and the answer to it: `says` is in the line that says why."""

    name: str
    request: AddCheckpoint | SignSubtree
    status: int
    says: str


def signed(checkpoint: Checkpoint) -> bytes:
    """A note of the log over anything."""
    text = checkpoint.body()
    return Note(text, (sign_text(text, LOG.signers[0]),)).encode()


def _add(old: int, proof: list[bytes], note: bytes) -> AddCheckpoint:
    return AddCheckpoint(old, tuple(proof), note)


def _resigned(note: bytes, *signatures: NoteSignature) -> bytes:
    return Note(parse_note(note).text, signatures).encode()


_own = parse_note(LOG.note(6)).signatures[0]
_forged = replace(_own, signature=_own.signature[:-1] + bytes([_own.signature[-1] ^ 1]))
_other_key = sign_text(LOG.checkpoint(6).body(), signer(ORIGIN, Algorithm.ED25519, 9))
_empty = Checkpoint(ORIGIN, 0, BAD_HASH)
_longer = LOG.proof(SIZE, 8)

ADD = [
    # "If the checkpoint origin is unknown, the witness MUST respond with a "404 Not Found""
    Exchange("unknown origin", _add(0, [], STRANGER.note(3)), 404, "log.example/unknown"),
    # "403 [...] if either no signature from a trusted key for the origin is present"
    Exchange("no trusted key", _add(5, [], _resigned(LOG.note(6), _other_key)), 403, "sign"),
    Exchange(
        "cosigned only",
        _add(
            5,
            [],
            _resigned(LOG.note(6), cosign(LOG.checkpoint(6), WITNESS_SIGNERS[0], timestamp=1)),
        ),
        403,
        "sign",
    ),
    # "or a signature line's key name and ID match a trusted key but the signature itself fails"
    Exchange("forged", _add(5, LOG.proof(5, 6), _resigned(LOG.note(6), _forged)), 403, "signature"),
    Exchange(
        "colliding key IDs",
        _add(5, LOG.proof(5, 6), _resigned(LOG.note(6), _own, _forged)),
        403,
        "signature",
    ),
    # "The old size MUST be equal to or lower than the checkpoint size. Otherwise [...] 400"
    Exchange("old size above", _add(5, [], LOG.note(4)), 400, "old size 5"),
    Exchange("64 hashes", _add(5, [BAD_HASH] * 64, LOG.note(6)), 400, "63"),
    Exchange("no checkpoint", _add(5, [], b""), 400, "checkpoint"),
    Exchange("not UTF-8", _add(5, [], b"\xff\xfe\n1\n"), 400, "checkpoint"),
    Exchange(
        "wrong line ends", _add(5, [], LOG.note(6).replace(b"\n", b"\r\n")), 400, "checkpoint"
    ),
    Exchange(
        "control in name",
        _add(5, [], LOG.note(6).replace(b"/one\n", b"/o\x07e\n", 1)),
        400,
        "checkpoint",
    ),
    Exchange("leading zero", _add(5, [], LOG.note(6).replace(b"\n6\n", b"\n06\n")), 400, "'06'"),
    Exchange(
        "beyond 2^63",
        _add(5, [], LOG.note(6).replace(b"\n6\n", b"\n9223372036854775808\n")),
        400,
        "2^63",
    ),
    Exchange("65 signatures", _add(5, [], LOG.note(6) + _own.encode() * 64), 400, "64"),
    Exchange("a long line", _add(5, [], LOG.note(6) + b"x" * 70_000), 400, "line"),
    # "If it doesn't match, the witness MUST respond with a "409 Conflict" HTTP status code."
    Exchange("from zero", _add(0, [], LOG.note(6)), 409, "5"),
    Exchange("too old", _add(3, LOG.proof(3, 6), LOG.note(6)), 409, "5"),
    Exchange("too new", _add(6, LOG.proof(6, 8), LOG.note(8)), 409, "5"),
    # "a size of zero MUST have the root hash of the empty tree": the old size is judged before.
    Exchange("not the empty tree", _add(0, [], signed(_empty)), 409, "5"),
    # "if a Merkle Consistency Proof doesn't verify, [...] 422"
    Exchange("no proof", _add(5, [], LOG.note(8)), 422, ""),
    Exchange("short proof", _add(5, _longer[:-1], LOG.note(8)), 422, ""),
    Exchange("long proof", _add(5, [*_longer, BAD_HASH], LOG.note(8)), 422, ""),
    Exchange("wrong proof", _add(5, [*_longer[:-1], BAD_HASH], LOG.note(8)), 422, ""),
    Exchange("fork", _add(5, FORK.proof(5, 8), FORK.note(8)), 422, ""),
    # "If the old size matches the checkpoint size, [...] root hashes are also identical."
    Exchange("another root", _add(5, [], FORK.note(5)), 422, ""),
    Exchange("proof of nothing", _add(5, [BAD_HASH], LOG.note(5)), 422, ""),
]

# To a witness that has cosigned nothing.
FIRST = [
    Exchange("never cosigned", _add(2, LOG.proof(2, 5), LOG.note(5)), 409, "0"),
    # "A checkpoint of size zero MUST have the root hash of the empty tree [...] 422"
    Exchange("not the empty tree", _add(0, [], signed(_empty)), 422, "empty tree"),
    # "If the proof is not empty when the old size is zero, [...] 422"
    Exchange("proof from zero", _add(0, [BAD_HASH], LOG.note(5)), 422, ""),
]


def subtrees(cosigned: bytes) -> list[Exchange]:
    """Of sign-subtree, beside a checkpoint of size 5 that the witness cosigned."""
    root = LOG.root(4)
    proof = tuple(LOG.proof(4, 5))
    good = SignSubtree(0, 4, root, proof, cosigned)
    stranger = STRANGER.note(5)
    other = signer("witness.example/other", Algorithm.MLDSA44)
    strange = cosign(LOG.checkpoint(5), other, timestamp=1)
    return [
        # "MUST be a valid subtree [...], and end MUST be less than or equal to the checkpoint size"
        Exchange("not a subtree", replace(good, start=1), 400, "subtree"),
        Exchange("empty", replace(good, end=0), 400, ""),
        Exchange("end above", replace(good, end=8), 400, "5"),
        Exchange("no checkpoint", replace(good, note=b"x"), 400, "checkpoint"),
        Exchange("64 hashes", replace(good, proof=(BAD_HASH,) * 64), 400, "63"),
        Exchange("wrong hash", replace(good, root_hash=BAD_HASH), 422, ""),
        Exchange("no proof", replace(good, proof=()), 422, ""),
        Exchange(
            "unknown origin",
            replace(
                good, note=stranger, root_hash=STRANGER.root(4), proof=tuple(STRANGER.proof(4, 5))
            ),
            404,
            "log.example/unknown",
        ),
        # "a valid cosignature from one of its own keys"
        Exchange("not cosigned", replace(good, note=LOG.note(5)), 403, "sign"),
        Exchange("forged", replace(good, note=flip(cosigned)), 403, "verify"),
        Exchange("another's", replace(good, note=_resigned(LOG.note(5), strange)), 403, "sign"),
    ]
