"""What the fuzzer calls: one function for each parser of bytes that somebody else wrote.

A target may be given any bytes. It returns when they were refused with the room's own error, or
when they were read and everything holds that must hold of what was read: mostly that it is written
again as exactly the same bytes. It raises anything else, and that is a finding.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from google.protobuf.message import DecodeError

from tests.fuzz.keys import HEAD, LOG_VKEYS, POLICY, WITNESS_VKEYS
from tests.fuzz.package import PACKAGE, SERVICE, STAMPED
from tlog.audit import AuditError, default_catalogue
from tlog.audit.codec import dump_json
from tlog.audit.evidence import EvidenceError
from tlog.audit.evidence_file import MANIFEST, encode_package, read_package
from tlog.audit.evidence_file import POLICY as POLICY_NAME
from tlog.audit.orders import Document, check_order, kept_payload, parse_document, read_order
from tlog.audit.producers import Registry
from tlog.audit.zipped import ZipError, read_zip, write_zip
from tlog.client import StateError, VerificationError, Verifier
from tlog.client.state import FileState
from tlog.log import LogConfig, LogError
from tlog.log.cosigners import CosignerError
from tlog.merkle import (
    MerkleError,
    ProofError,
    bundle_entry,
    encode_bundle,
    entries_path,
    expand,
    parse_entries_path,
    parse_tile_path,
    split_bundle,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
)
from tlog.notes import (
    NoteError,
    NoteSignature,
    VerifierKey,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
    parse_policy,
    parse_proof,
    parse_signatures,
    parse_unverified,
    verify_cosignature,
    verify_proof,
)
from tlog.notes import keyfile as keyfiles
from tlog.remote import witness as remote_witness
from tlog.remote.addresses import AddressError, parse_address
from tlog.remote.http import first_line
from tlog.serve.http_negotiate import content_coding, is_known
from tlog.v1 import witness_pb2 as pb
from tlog.witness import BadRequest, Unavailable, WitnessConfig, WitnessError, parse_add_checkpoint
from tlog.witness import logs as witness_logs
from tlog.witness.conflict import ConflictError, parse_conflict, verify_conflict
from tlog.witness.exchange import check_message
from tlog.witness.head import CosignedHead
from tlog.witness.requests import parse_sign_subtree
from tools import verify

Target = Callable[[bytes], None]

CATALOGUE = default_catalogue()
NOBODY = Registry()

_directory = Path(tempfile.mkdtemp(prefix="tlog-fuzz-"))


def _text(data: bytes) -> str:
    """The text of a parser that is given text: lone surrogates too."""
    return data.decode("utf-8", "surrogateescape")


# ---- notes ----


def note(data: bytes) -> None:
    with contextlib.suppress(NoteError):
        read = parse_note(data)
        assert read.encode() == data
        assert parse_note(read.encode()) == read


def signatures(data: bytes) -> None:
    with contextlib.suppress(NoteError):
        assert b"".join(line.encode() for line in parse_signatures(data)) == data


def checkpoint(data: bytes) -> None:
    with contextlib.suppress(NoteError):
        assert parse_checkpoint(_text(data)).body().encode() == data
    with contextlib.suppress(NoteError):
        signed = parse_unverified(data)
        assert signed.note.encode() == data
        assert signed.checkpoint.body() == signed.note.text
        verified = open_checkpoint(data, LOG_VKEYS)
        # Nobody here has the private keys: what verifies is what they signed.
        assert verified.checkpoint == HEAD


def vkey(data: bytes) -> None:
    for text in (data, _text(data)):
        with contextlib.suppress(NoteError):
            read = VerifierKey.parse(text)
            assert str(read) == text if isinstance(text, str) else str(read).encode() == text
            assert not read.verifies(b"\0" * read.algorithm.signature_size, b"message")


def cosignature(data: bytes) -> None:
    with contextlib.suppress(NoteError):
        line = NoteSignature.parse(_text(data))
        assert line.encode() == data + b"\n"
        for key in WITNESS_VKEYS:
            with contextlib.suppress(NoteError):
                assert 0 <= verify_cosignature(HEAD, key, line) < 1 << 63


def policy(data: bytes) -> None:
    try:
        read = parse_policy(data)
    except NoteError:
        read = None
    try:
        trust = verify.trust_policy(data)
    except verify.RefusedError:
        trust = None
    if read is None or trust is None:
        assert read is None
        assert trust is None
        return
    names = [witness.name for witness in read.witnesses]
    assert [name.encode("utf-8", "surrogateescape") for name in names] == [*trust.witnesses]
    for count in range(len(names)):
        # More witnesses never make less of a quorum.
        assert read.satisfied_by(names[:count]) <= read.satisfied_by(names[: count + 1])
    with contextlib.suppress(NoteError):
        read.evaluate(HEAD.body().encode() + b"\n")


def proof(data: bytes) -> None:
    said = None
    with contextlib.suppress(NoteError):
        read = parse_proof(data)
        assert read.encode() == data
        assert parse_proof(read.encode()) == read
        said = verify_proof(read, b"entry", POLICY_KEYS)
    try:
        verify.verify_receipt(data, b"entry", TRUST)
    except verify.RefusedError:
        assert said is None
    else:
        assert said is not None


def keyfile(data: bytes) -> None:
    with contextlib.suppress(NoteError):
        text = _text(data)
        # Without a passphrase: Argon2id is slow on purpose.
        signer = keyfiles._decode(text, None)
        assert keyfiles._encode(signer, None) == text


# ---- merkle ----


def bundle(data: bytes) -> None:
    with contextlib.suppress(MerkleError):
        entries = split_bundle(data)
        assert encode_bundle(entries) == data
        for offset, entry in enumerate(entries):
            assert bundle_entry(data, offset) == entry
    for offset in (0, 1, 255):
        with contextlib.suppress(MerkleError):
            assert bundle_entry(data, offset) in data


def tile(data: bytes) -> None:
    with contextlib.suppress(MerkleError):
        levels = expand(data)
        assert levels[0] == data
        assert [len(level) // 32 for level in levels] == [len(data) // 32 >> h for h in range(9)]


def path(data: bytes) -> None:
    text = _text(data)
    with contextlib.suppress(MerkleError):
        assert parse_tile_path(text).path == text
    with contextlib.suppress(MerkleError):
        assert entries_path(*parse_entries_path(text)) == text


def merkle_proof(data: bytes) -> None:
    """Three numbers of nine bytes, then hashes: two roots and a proof."""
    first, second, third = (int.from_bytes(data[at : at + 9], "big") for at in (0, 9, 18))
    hashes = [data[at : at + 32] for at in range(27, len(data), 32)]
    one, two = [*hashes, b"", b""][:2]
    said = shown = None
    with contextlib.suppress(ProofError):
        verify_inclusion(index=first, size=second, leaf_hash=one, root_hash=two, proof=hashes[2:])
        said = True
    with contextlib.suppress(ProofError):
        verify_consistency(
            old_size=first, new_size=second, old_root=one, new_root=two, proof=hashes[2:]
        )
        shown = True
    with contextlib.suppress(ProofError):
        verify_subtree_consistency(
            start=first, end=second, size=third, subtree_root=one, root=two, proof=hashes[2:]
        )
    if second >> 63 or any(len(element) != 32 for element in [one, two, *hashes]):
        assert said is shown is None
        return
    with contextlib.suppress(verify.RefusedError):
        root = verify.root_of_inclusion(first, second, one, hashes[2:])
        assert (root == two) == (said is True)
    if 0 < first < second:
        with contextlib.suppress(verify.RefusedError):
            roots = verify.roots_of_consistency(first, second, one, hashes[2:])
            assert (roots == (one, two)) == (shown is True)


# ---- witness ----


def add_checkpoint(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert parse_add_checkpoint(data).encode() == data


def sign_subtree(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert parse_sign_subtree(data).encode() == data


def conflict(data: bytes) -> None:
    said = None
    with contextlib.suppress(ConflictError):
        read = parse_conflict(data)
        assert read.encode() == data
        assert "\n" not in read.summary
        assert len(read.digest) == 32
        said = verify_conflict(data, POLICY_KEYS)
    try:
        verify.verify_evidence(data, TRUST)
    except verify.RefusedError:
        assert said is None
    else:
        assert said is not None


def gossip(data: bytes) -> None:
    with contextlib.suppress(DecodeError, BadRequest):
        message = pb.GossipRequest.FromString(data)
        check_message(message.checkpoints, message.conflicts)
        for head in message.checkpoints:
            with contextlib.suppress(NoteError):
                parse_unverified(head)


def log_list(data: bytes) -> None:
    with contextlib.suppress(WitnessError):
        statements, logs = witness_logs._parse(data, {})
        assert witness_logs._parse(data, statements) == (statements, logs)
        assert all(log.vkeys for log in logs.values())


def stored_head(data: bytes) -> None:
    with contextlib.suppress(Unavailable):
        assert CosignedHead.decode(data).encode() == data


# ---- orders ----


def order(data: bytes) -> None:
    """An order; or the payload of one."""
    with contextlib.suppress(AuditError):
        read_order(Document(data, ""), CATALOGUE)
    with contextlib.suppress(AuditError):
        document = parse_document(data)
        assert parse_document(document.encode()) == document
        kept = document.kept()
        CATALOGUE.claims["order"].check("order", kept)  # type: ignore[misc]
        assert kept_payload(kept) == document.payload
        assert parse_document(kept.encode()) == replace(document, disclosure="")
        said = read_order(document, CATALOGUE)
        assert said.subject or not document.disclosure
        assert read_order(parse_document(kept.encode()), CATALOGUE) == replace(said, subject="")
        with contextlib.suppress(AuditError):
            check_order(document, said, NOBODY, tenant=said.tenant, now=said.made_at)
            raise AssertionError("nobody approved it")


# ---- evidence packages ----


def evidence(data: bytes) -> None:
    """A package; or which member of a good one is exchanged for the rest."""
    exchanged = not data.startswith(b"PK")
    with contextlib.suppress(EvidenceError, ZipError):
        if exchanged:
            data = exchange(data)
        package = read_package(data)
        package.check_pages()
        assert encode_package(package.contents) == data
        with contextlib.suppress(VerificationError):
            EVIDENCE_VERIFIER.evidence(data, service=SERVICE.vkey)
            # Nothing that counts can be exchanged for anything else.
            own, good = read_zip(data), read_zip(PACKAGE)
            assert not exchanged or {**own, **dict.fromkeys((POLICY_NAME, MANIFEST))} == {
                **good,
                **dict.fromkeys((POLICY_NAME, MANIFEST)),
            }


def exchange(data: bytes) -> bytes:
    """A good package but for one member, whose hash the manifest has."""
    members, place = read_zip(PACKAGE), data[0] if data else 0
    if place >= len(members):
        members = read_zip(STAMPED)
    name = sorted(members)[place % len(members)]
    members[name] = data[1:]
    if name != MANIFEST:
        manifest = json.loads(members[MANIFEST])
        manifest["members"][name] = sha256(data[1:]).hexdigest()
        members[MANIFEST] = dump_json(manifest)
    return write_zip(members)


# ---- files and headers ----


def config(data: bytes) -> None:
    for name, load, error in (
        ("log.toml", LogConfig.load, LogError),
        ("witness.toml", WitnessConfig.load, WitnessError),
    ):
        (_directory / name).write_bytes(data)
        with contextlib.suppress(error):
            load(_directory)


def client_state(data: bytes) -> None:
    file = _directory / "state"
    file.write_bytes(data)
    with contextlib.suppress(StateError):
        FileState(file).load()


def http(data: bytes) -> None:
    text = data.decode("latin-1")
    assert content_coding(text) in {"gzip", "identity", None}
    is_known('"etag"', text)
    assert len(first_line(data)) < 1000
    assert first_line(data).isprintable()
    with contextlib.suppress(CosignerError):
        assert f"{remote_witness._parse_size(data)}\n".encode() == data
    with contextlib.suppress(AddressError):
        address = parse_address(_text(data))
        assert address.url.startswith(("http://", "https://", "grpc://"))


POLICY_KEYS = [log.vkey for log in parse_policy(POLICY).logs]
TRUST = verify.trust_policy(POLICY)
EVIDENCE_VERIFIER = Verifier.with_vkeys(LOG_VKEYS)

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        note,
        signatures,
        checkpoint,
        vkey,
        cosignature,
        policy,
        proof,
        keyfile,
        bundle,
        tile,
        path,
        merkle_proof,
        add_checkpoint,
        sign_subtree,
        conflict,
        gossip,
        log_list,
        stored_head,
        order,
        evidence,
        config,
        client_state,
        http,
    )
}
