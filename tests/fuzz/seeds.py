"""Where the fuzzer begins: for each target something good, and the corpus that is kept."""

from __future__ import annotations

from pathlib import Path

from tests.audit.producer import signer_of
from tests.fuzz.keys import FORK, HEAD, LOG, POLICY, WITNESSES
from tests.fuzz.package import PACKAGE, STAMPED
from tests.merkle import trees
from tlog.audit.codec import dump_json, encode_base64url
from tlog.audit.orders import Document
from tlog.audit.sdjwt import digest_of
from tlog.audit.zipped import read_zip
from tlog.merkle import encode_bundle, leaf_hash
from tlog.notes import Checkpoint, TlogProof, cosign, keyfile, sign_checkpoint
from tlog.v1 import witness_pb2 as pb
from tlog.witness import AddCheckpoint, SignSubtree
from tlog.witness.conflict import Conflict

CORPUS = Path(__file__).parent / "corpus"


def corpus(target: str) -> list[bytes]:
    """What is kept for a target: a line an input, escaped so that people can read it."""
    file = CORPUS / target
    lines = file.read_text(encoding="ascii").splitlines() if file.exists() else []
    return [line.encode().decode("unicode_escape").encode("latin-1") for line in lines]


def keep(target: str, inputs: list[bytes]) -> None:
    """Add to what is kept."""
    kept = sorted({*corpus(target), *inputs}, key=lambda data: (len(data), data))
    lines = [data.decode("latin-1").encode("unicode_escape").decode() + "\n" for data in kept]
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / target).write_text("".join(lines), encoding="ascii")


def seeds() -> dict[str, list[bytes]]:
    """Something good for each target."""
    head = LOG.note(7)
    cosignatures = [cosign(HEAD, key, timestamp=1_700_000_000).encode() for key in WITNESSES]
    cosigned = head + b"".join(cosignatures)
    # One head less one: an inclusion proof needs a tree of which the entry is known.
    leaves = [leaf_hash(b"entry"), *trees.leaves(6)]
    of_entry = sign_checkpoint(
        Checkpoint(LOG.origin, 7, trees.mth(leaves)), LOG.signers, timestamp=1
    )
    proof = TlogProof(0, tuple(trees.path(0, leaves)), of_entry).encode()
    same_size = Conflict.between(LOG.note(7), FORK.note(7))
    inconsistent = Conflict.inconsistent(
        LOG.note(3), FORK.note(7), root=FORK.root(3), proof=FORK.proof(3, 7)
    )
    conflicts = [same_size.encode(), inconsistent.encode()]
    numbers = [number.to_bytes(9, "big") for number in (3, 7, 7)]
    consistency = b"".join([*numbers, LOG.root(3), LOG.root(7), *LOG.proof(3, 7)])
    inclusion = b"".join([*numbers, leaves[3], trees.mth(leaves), *trees.path(3, leaves)])
    vkeys = [str(key.vkey) for key in (*LOG.signers, *WITNESSES)]
    policy = (
        f"# logs\nlog {vkeys[0]} https://log.example/\nlog {vkeys[1]}\n"
        f"witness a {vkeys[2]}\nwitness b {vkeys[3]}\n"
        "group g 1 a b\ngroup h all g\nquorum h\n"
    )
    state = (
        '{"format": "tlog client state 1", "vkeys": ["'
        + '", "'.join(vkeys[:2])
        + f'"], "head": {head.decode()!a}}}'.replace("'", '"')
    )
    return {
        "note": [head, cosigned, b"text\n\nmore\n\n" + cosignatures[0]],
        "signatures": [*cosignatures, b"".join(cosignatures)],
        "checkpoint": [head, cosigned, HEAD.body().encode(), HEAD.body().encode() + b"more\n"],
        "vkey": [vkey.encode() for vkey in vkeys],
        "cosignature": [line[:-1] for line in cosignatures],
        "policy": [POLICY, policy.encode(), b"quorum none\n"],
        "proof": [proof, proof.replace(b"index", b"extra AAAA\nindex")],
        "keyfile": [
            keyfile._encode(key, None).encode()
            for key in (LOG.signers[0], LOG.signers[1], WITNESSES[0])
        ],
        "bundle": [encode_bundle([b"", b"one", bytes(300)]), encode_bundle([b""] * 256)],
        "tile": [bytes(32), bytes(range(96)), bytes(8192)],
        "path": [b"tile/0/x001/x234/067.p/12", b"tile/entries/x001/000", b"tile/63/255"],
        "merkle_proof": [consistency, inclusion, bytes(27 + 64)],
        "add_checkpoint": [
            AddCheckpoint(3, tuple(LOG.proof(3, 7)), head).encode(),
            AddCheckpoint(0, (), b"").encode(),
        ],
        "sign_subtree": [SignSubtree(0, 4, LOG.root(4), tuple(LOG.proof(4, 7)), cosigned).encode()],
        "conflict": conflicts,
        "gossip": [
            pb.GossipRequest(checkpoints=[head], conflicts=conflicts[:1]).SerializeToString(),
            pb.GossipRequest(checkpoints=[b""]).SerializeToString(),
        ],
        "log_list": [
            f"# list\nlog {vkeys[0]}\nlog {vkeys[1]} another name\n"
            f"frozen conflict {LOG.origin}\n".encode()
        ],
        "stored_head": [(1_700_000_000).to_bytes(8, "big") + cosigned],
        "evidence": [
            PACKAGE,
            *(
                bytes([place]) + data
                for place, (_, data) in enumerate(sorted(read_zip(PACKAGE).items()))
            ),
            *(
                bytes([place + 2 * len(read_zip(STAMPED))]) + data
                for place, (_, data) in enumerate(sorted(read_zip(STAMPED).items()))
            ),
        ],
        "order": orders(),
        "config": [
            b'origin = "log.example/x"\nname = "x"\nlinger = 0.5\ndedup = true\n',
            b'name = "witness.example/w"\nrate = 1.5\nburst = 3\n',
        ],
        "client_state": [state.encode()],
        "http": [
            b"gzip;q=0.5, identity;q=0, *",
            b'W/"etag", "other"',
            b"17\n",
            b"https://log.example:80/prefix/",
            b"grpc://127.0.0.1:6962",
        ],
    }


def orders() -> list[bytes]:
    """One of each kind, the first signed by two; the target reads payloads alone, too."""
    always = {
        "order_id": "019aa000-0000-7000-8000-000000000001",
        "tenant": "acme",
        "reason": "asked",
        "made_at": "2026-01-31T17:30:00Z",
        "expires_at": "2026-02-07T17:30:00Z",
    }
    subject = encode_base64url(dump_json(["A" * 22, "subject", "alice@example.com"]))
    about = {"_sd": [digest_of(subject)], "_sd_alg": "sha-256"}
    payloads = [
        dump_json(always | about | {"kind": "erase", "request_id": "R-1"}),
        dump_json(always | about | {"kind": "hold.place", "hold_id": "H-1"}),
        dump_json(always | {"kind": "hold.place", "hold_id": "H-1", "request_id": "R-1"}),
        dump_json(always | {"kind": "hold.release", "hold_id": "H-1"}),
    ]
    document = Document(payloads[0], subject)
    for name in ("dpo", "ciso"):
        document = document.approved(signer_of(name))
    return [document.encode(), *payloads]
