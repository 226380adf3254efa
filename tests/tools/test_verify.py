"""`tools/verify.py` and the package, which share nothing: both accept, or both refuse."""

from __future__ import annotations

import ast
import base64
import hashlib
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT
from tests.tools import papers as make
from tests.tools.papers import Papers
from tests.witness.support import SomeLog, signer
from tlog.client import TrustError, VerificationError, Verifier
from tlog.merkle import leaf_hash
from tlog.notes import (
    Algorithm,
    Checkpoint,
    Note,
    NoteError,
    NoteSignature,
    Signer,
    TlogProof,
    VerifierKey,
    cosign,
    parse_policy,
    sign_checkpoint,
)
from tlog.witness.conflict import Conflict, ConflictError, verify_conflict
from tools import verify

PROGRAM = ROOT / "tools" / "verify.py"
UNUSABLE, REFUSED, VERIFIED = "unusable", "refused", "verified"


def said_by_the_package(papers: Papers) -> str:
    try:
        if papers.policy is not None:
            policy = parse_policy(papers.policy)
            verifier, logs = Verifier(policy), [log.vkey for log in policy.logs]
        else:
            verifier = Verifier.with_vkeys(papers.vkeys)
            logs = [VerifierKey.parse(vkey) for vkey in papers.vkeys]
    except (NoteError, TrustError):
        return UNUSABLE
    try:
        if papers.file.startswith(b"tlog-conflict@v1\n"):
            verify_conflict(papers.file, logs)
        else:
            verifier.proof(papers.file, papers.entry)
    except (VerificationError, ConflictError):
        return REFUSED
    return VERIFIED


def said_by_the_program(papers: Papers) -> str:
    try:
        if papers.policy is not None:
            trust = verify.trust_policy(papers.policy)
        else:
            trust = verify.trust_keys(list(papers.vkeys))
    except verify.RefusedError:
        return UNUSABLE
    try:
        if papers.file.startswith(b"tlog-conflict@v1\n"):
            verify.verify_evidence(papers.file, trust)
        else:
            verify.verify_receipt(papers.file, papers.entry, trust)
    except verify.RefusedError:
        return REFUSED
    return VERIFIED


def both(papers: Papers) -> str:
    said = said_by_the_package(papers)
    assert said_by_the_program(papers) == said, papers
    return said


@pytest.mark.parametrize("kind", [make.receipt, make.evidence])
@pytest.mark.parametrize("seed", range(3))
def test_both_say_the_same(kind, seed: int) -> None:  # type: ignore[no-untyped-def]
    choose = random.Random(f"{kind.__name__} {seed}")
    whole: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for _ in range(110):
        papers = kind(choose)
        whole[both(papers)] += 1
        for _ in range(5):
            damaged = make.damaged(choose, papers)
            if choose.random() < 0.2:
                damaged = make.damaged(choose, damaged)
            broken[both(damaged)] += 1
    # None of them says the same of everything.
    assert whole[VERIFIED] > 20
    assert whole[REFUSED] > 5
    assert min(broken[said] for said in (VERIFIED, REFUSED, UNUSABLE)) > 20


# ---- bounds, which nothing random reaches ----

LOG = SomeLog()
VKEYS = tuple(str(key.vkey) for key in LOG.signers)


def a_receipt(*, note: bytes | None = None, extra: bytes | None = None) -> Papers:
    proof = TlogProof(0, (), signed(1), extra).encode()
    if note is not None:
        proof = proof.replace(signed(1), note)
    return Papers(None, VKEYS, proof, b"entry")


def signed(size: int) -> bytes:
    head = Checkpoint(LOG.origin, size, leaf_hash(b"entry"))
    return sign_checkpoint(head, LOG.signers, timestamp=1)


@pytest.mark.parametrize(("extra", "said"), [(64 << 10, VERIFIED), ((64 << 10) + 1, REFUSED)])
def test_extra_data(extra: int, said: str) -> None:
    line = b"extra " + base64.b64encode(bytes(extra)) + b"\nindex"
    papers = a_receipt()
    assert both(replace(papers, file=papers.file.replace(b"index", line, 1))) == said


@pytest.mark.parametrize(("count", "said"), [(63, VERIFIED), (64, REFUSED)])
def test_signatures(count: int, said: str) -> None:
    line = "— stranger.example AAAAAAA=\n".encode()
    assert both(a_receipt(note=signed(1) + line * count)) == said


@pytest.mark.parametrize(("more", "said"), [(0, VERIFIED), (1, REFUSED)])
def test_the_length_of_a_note(more: int, said: str) -> None:
    line = "— {} AAAAAAA=\n"
    rest = (256 << 10) + more - len(signed(1)) - len(line.format("").encode())
    assert both(a_receipt(note=signed(1) + line.format("x" * rest).encode())) == said


def forged(text: str, *, more: bytes = b"", path: tuple[bytes, ...] = ()) -> Papers:
    """A receipt whose log signed a text that is no checkpoint of ours."""
    key = LOG.signers[0]
    line = NoteSignature(LOG.origin, key.vkey.key_id, key.sign(text.encode())).encode()
    proof = TlogProof(0, path, signed(1)).encode()
    return Papers(
        None, VKEYS, proof.replace(signed(1), f"{text}\n".encode() + line + more), b"entry"
    )


def text_of(*, origin: str = LOG.origin, size: object = 1, more: str = "") -> str:
    return f"{origin}\n{size}\n{TREE}\n{more}"


TREE = base64.b64encode(leaf_hash(b"entry")).decode()


@pytest.mark.parametrize(("size", "said"), [(2**63 - 1, VERIFIED), (2**63, REFUSED)])
def test_sizes(size: int, said: str) -> None:
    path = (bytes(32),) * 63
    root = verify.root_of_inclusion(0, size, leaf_hash(b"entry"), list(path))
    text = f"{LOG.origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    assert both(forged(text, path=path)) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((text_of(more=f"a{chr(odd)}b\n"), REFUSED) for odd in range(1, 32) if odd != 10),
        *((text_of(more=f"a{odd}b\n"), VERIFIED) for odd in "\x7f\x85\xa0\u2028\U0001f642"),
        (text_of(more="\n"), REFUSED),
        (text_of(more="a\n\nb\n"), REFUSED),
        (text_of(more="a"), REFUSED),
        (text_of(size="01"), REFUSED),
        (text_of(size="+1"), REFUSED),
        (text_of(size="\u0661"), REFUSED),
        (text_of(size=""), REFUSED),
        (text_of(origin=""), REFUSED),
        (text_of(origin="another"), REFUSED),
        (text_of().replace(TREE, TREE[:-1]), REFUSED),
        (text_of().replace(TREE + "\n", ""), REFUSED),
    ],
)
def test_texts(text: str, said: str) -> None:
    assert both(forged(text)) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("— stranger.example AAAAAAA=\n", VERIFIED),
        ("— stranger.example AAAAAA==\n", REFUSED),
        ("— stranger.example AAAAAAB=\n", REFUSED),
        ("— stranger.example AAAAAAA=", REFUSED),
        ("— stranger.example AAAAAAA= \n", REFUSED),
        ("— stranger.example  AAAAAAA=\n", REFUSED),
        ("- stranger.example AAAAAAA=\n", REFUSED),
        ("—  AAAAAAA=\n", REFUSED),
        ("— AAAAAAA=\n", REFUSED),
        ("— a+b AAAAAAA=\n", REFUSED),
        *((f"— a{space}b AAAAAAA=\n", REFUSED) for space in "\x85\xa0\u1680\u2028\u3000\t\x1f"),
        *((f"— a{odd}b AAAAAAA=\n", VERIFIED) for odd in "\x7f\u200b\ufeff"),
    ],
)
def test_signature_lines(line: str, said: str) -> None:
    assert both(forged(text_of(), more=line.encode())) == said


@pytest.mark.parametrize("key", make.WITNESSES[:2])
@pytest.mark.parametrize(("time", "said"), [(0, VERIFIED), (2**63 - 1, VERIFIED), (2**63, REFUSED)])
def test_times(key: Signer, time: int, said: str) -> None:
    stamp, size = time.to_bytes(8, "big"), (1).to_bytes(8, "big")
    message = f"cosignature/v1\ntime {time}\n{text_of()}".encode()
    if key.vkey.algorithm is Algorithm.MLDSA44:
        name, origin = key.vkey.name.encode(), LOG.origin.encode()
        message = b"subtree/v1\n\0" + bytes([len(name)]) + name + stamp + bytes([len(origin)])
        message += origin + bytes(8) + size + leaf_hash(b"entry")
    line = NoteSignature(key.vkey.name, key.vkey.key_id, stamp + key.sign(message)).encode()
    policy = f"log {VKEYS[0]}\nwitness w {key.vkey}\nquorum w\n".encode()
    assert both(replace(forged(text_of(), more=line), policy=policy)) == said


def test_a_log_signs_for_itself_only() -> None:
    policy = f"log {VKEYS[0]}\nlog {signer('another', Algorithm.ED25519).vkey}\nquorum none\n"
    assert both(replace(forged(text_of()), policy=policy.encode())) == VERIFIED
    assert both(replace(forged(text_of(origin="another")), policy=policy.encode())) == REFUSED


def test_key_ids() -> None:
    for digit in range(8):
        place = VKEYS[0].index("+") + 1 + digit
        other = "0" if VKEYS[0][place] != "0" else "1"
        vkey = VKEYS[0][:place] + other + VKEYS[0][place + 1 :]
        assert both(replace(a_receipt(), vkeys=(vkey,))) == UNUSABLE
    assert both(replace(a_receipt(), vkeys=(VKEYS[0].upper(),))) == UNUSABLE


# ---- proofs that are too short, too long, or of another shape ----

LEAF, A, B = leaf_hash(b"entry"), b"a" * 32, b"b" * 32
UP = verify.node_hash


def noted(size: int, root: bytes, *keys: Signer, origin: str = LOG.origin) -> bytes:
    head = Checkpoint(origin, size, root)
    signatures = [make.signature(head, key, 1) for key in keys or LOG.signers]
    return Note(head.body(), tuple(signatures)).encode()


@pytest.mark.parametrize(
    ("index", "size", "path", "root", "said"),
    [
        (0, 1, (), LEAF, VERIFIED),
        (1, 1, (), LEAF, REFUSED),
        (0, 0, (), LEAF, REFUSED),
        (0, 2, (), LEAF, REFUSED),
        (0, 1, (A,), UP(A, LEAF), REFUSED),
        (0, 1, (A,), UP(LEAF, A), REFUSED),
        (0, 2, (A,), UP(LEAF, A), VERIFIED),
        (1, 2, (A,), UP(LEAF, A), REFUSED),
        (2, 3, (A,), UP(A, LEAF), VERIFIED),
        (2, 3, (A, B), UP(B, UP(A, LEAF)), REFUSED),
    ],
)
def test_inclusion(index: int, size: int, path: tuple[bytes, ...], root: bytes, said: str) -> None:
    proof = TlogProof(index, path, noted(size, root)).encode()
    assert both(Papers(None, VKEYS, proof, b"entry")) == said


def some_evidence(
    kind: str, heads: list[bytes], *, root: bytes | None = None, path: tuple[bytes, ...] = ()
) -> Papers:
    lines = [verify.EVIDENCE, kind]
    if root is not None:
        hashes = [base64.b64encode(element).decode() for element in (root, *path)]
        lines += [f"root {hashes[0]}", *hashes[1:]]
    header = "".join(f"{line}\n" for line in lines).encode()
    return Papers(None, VKEYS, header + b"".join(b"\n" + head for head in heads))


@pytest.mark.parametrize(
    ("old", "new", "root", "path", "new_root", "said"),
    [
        (1, 2, A, (B,), UP(A, B), VERIFIED),
        (1, 2, A, (), A, REFUSED),
        (1, 2, A, (B, B), UP(B, UP(A, B)), REFUSED),
        (3, 4, UP(B, A), (A, A, B), UP(B, UP(A, A)), VERIFIED),
        (3, 4, UP(A, UP(B, A)), (A, A, B, A), UP(A, UP(B, UP(A, A))), REFUSED),
        (3, 4, UP(B, A), (A, B), UP(B, A), REFUSED),
        (3, 4, A, (), A, REFUSED),
        (0, 2, A, (B,), UP(A, B), REFUSED),
        (2, 2, A, (), A, REFUSED),
        (2, 1, A, (B,), UP(A, B), REFUSED),
    ],
)
def test_consistency(
    old: int, new: int, root: bytes, path: tuple[bytes, ...], new_root: bytes, said: str
) -> None:
    heads = [noted(old, B), noted(new, new_root)]
    assert both(some_evidence("inconsistent", heads, root=root, path=path)) == said


def test_contradictions() -> None:
    one, two = noted(5, A), noted(5, B)
    empty = hashlib.sha256().digest()
    assert both(some_evidence("same-size", [one, two])) == VERIFIED
    assert both(some_evidence("empty-tree", [noted(0, A)])) == VERIFIED
    for papers in (
        some_evidence("same-size", [two, one]),
        some_evidence("same-size", [one, one]),
        some_evidence("same-size", [one]),
        some_evidence("same-size", [one, noted(6, B)]),
        some_evidence("same-size", [one, two], root=A),
        some_evidence("inconsistent", [one, two]),
        some_evidence("empty-tree", [noted(0, empty)]),
        some_evidence("empty-tree", [noted(0, A), noted(0, B)]),
        some_evidence("empty-tree", [one]),
        some_evidence("another", [one, two]),
    ):
        assert both(papers) == REFUSED


def test_evidence_of_another_log() -> None:
    other, witness = signer("log.example/two", Algorithm.ED25519), make.WITNESSES[0]
    heads = [noted(5, A), noted(5, B, other, origin="log.example/two")]
    policy = f"log {VKEYS[0]}\nlog {other.vkey}\nquorum none\n"
    assert both(replace(some_evidence("same-size", heads), policy=policy.encode())) == REFUSED
    # A witness sees to it that what it cosigns is consistent, but has no tree of its own.
    name = witness.vkey.name
    heads = [noted(5, A, witness, origin=name), noted(5, B, witness, origin=name)]
    policy = f"log {witness.vkey}\nquorum none\n"
    assert both(replace(some_evidence("same-size", heads), policy=policy.encode())) == REFUSED


# ---- policies ----


@pytest.mark.parametrize(
    "line",
    [
        "log {0}",
        "log {1}",
        "witness none {1}",
        "witness w0 {1}",
        "witness g {1}",
        "witness w1 {0}",
        "witness w1 {1} url more",
        "group g all w0",
        "group h 2 w0",
        "group h 0 w0",
        "group h 01 w0",
        "group h 18446744073709551617 w0",
        "group h any",
        "group h any none",
        "group h any w0 w0",
        "group h any later",
        "group w0 any w1",
        "group none any g",
        "quorum g",
        "quorum none",
        "quorum later",
        "quorum",
        "Log {0}",
        "log\x0b{0}",
        "\x7f",
        "#\r",
        "witness w2 {0}",
        "log {2}",
        "log {2} # no comment",
        "log {3}",
        "witness w2 {4}",
        "# a comment",
        "witness \u212a {1}",
        "witness K {1}",
    ],
)
def test_policies(line: str) -> None:
    """A line more or less in a policy, before and after its quorum: allowed or not by both."""
    keys = [LOG.signers[0].vkey, *(key.vkey for key in make.WITNESSES[1:3])]
    # The same public keys under other names.
    for key in (keys[0], make.WITNESSES[0].vkey):
        keys.append(VerifierKey("another.example", key.algorithm, key.public_key))
    first = [f"log {keys[0]}", f"witness w0 {make.WITNESSES[0].vkey}", "group g any w0"]
    for lines in ([*first, line.format(*keys), "quorum g"], [*first, "quorum g", line]):
        policy = "".join(f"{line.format(*keys)}\n" for line in lines).encode()
        for data in (policy, policy.replace(b"\ngroup g any w0", b""), policy[:-1]):
            both(replace(a_receipt(), policy=data))


# ---- the command ----


def run(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """In isolated mode: no package of the project can be imported."""
    command = [sys.executable, "-I", str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_it_imports_the_standard_library_and_cryptography_only() -> None:
    names = set()
    for node in ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module or "")
    tops = {name.partition(".")[0] for name in names}
    assert tops - sys.stdlib_module_names == {"cryptography"}
    assert not tops & {"importlib", "runpy", "socket", "urllib", "http", "subprocess"}


def test_the_command(tmp_path: Path) -> None:
    papers, policy, entry, proof = a_receipt(), *(tmp_path / name for name in "abc")
    witness = make.WITNESSES[0]
    policy.write_text(f"log {VKEYS[0]}\nwitness w {witness.vkey}\nquorum w\n")
    entry.write_bytes(papers.entry)
    proof.write_bytes(papers.file)
    code, out, err = run("--vkey", VKEYS[0], proof, entry)
    assert (code, err) == (0, "")
    assert out.startswith(f"verified: entry 0 of {LOG.origin}, in the tree of 1, signed by ")
    assert run("--vkey", VKEYS[0], "-", entry, stdin=papers.file)[0] == 0
    code, out, err = run("--vkey", VKEYS[0], proof, "-", stdin=b"another")
    assert (code, out) == (3, "")
    assert err.startswith("NOT VERIFIED: these bytes are not proven")
    code, out, err = run("--policy", policy, proof, entry)
    assert (code, out) == (3, "")
    assert "quorum" in err
    note = cosign(Checkpoint(LOG.origin, 1, leaf_hash(b"entry")), witness, timestamp=99)
    proof.write_bytes(papers.file + note.encode())
    code, out, err = run("--policy", policy, proof, entry)
    assert (code, err) == (0, "")
    assert "witness.example/w0" in out
    assert "(1970-01-01 00:01:39 UTC)" in out
    assert out.count("\n") == 1


def test_the_command_with_evidence(tmp_path: Path) -> None:
    conflict = Conflict.between(LOG.note(5), SomeLog(forked_at=1).note(5))
    path = tmp_path / "evidence"
    path.write_bytes(conflict.encode())
    code, out, err = run("--vkey", VKEYS[0], path)
    assert (code, err) == (0, "")
    assert out.startswith(f"verified: the log {LOG.origin} contradicts itself (same-size)")
    other = signer(LOG.origin, Algorithm.ED25519, 5).vkey
    code, out, err = run("--vkey", str(other), path)
    assert (code, out) == (3, "")
    assert err.startswith("NOT VERIFIED: ")


def test_what_it_cannot_use(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(a_receipt().file)
    for code, arguments in (
        (1, ["--vkey", "nonsense", file, file]),
        (1, ["--policy", file, file, file]),
        (1, ["--policy", tmp_path / "none", file, file]),
        (1, ["--vkey", VKEYS[0], file, tmp_path / "none"]),
        (1, ["--vkey", VKEYS[0], "/dev/zero", file]),
        (2, ["--vkey", VKEYS[0], file]),
        (2, [file, file]),
        (2, ["--vkey", VKEYS[0], "--policy", file, file, file]),
        (3, ["--vkey", VKEYS[0], "/dev/null", file]),
    ):
        found, out, err = run(*arguments)
        assert (found, out) == (code, ""), arguments
        assert "Traceback" not in err
        assert err.count("\n") == 1 or code == 2


def test_what_it_prints_is_harmless(tmp_path: Path) -> None:
    file = tmp_path / "file"
    name = "log.example/\u202eevil\x9b"
    key = signer(name, Algorithm.ED25519)
    note = make.a_note(random.Random(1), Checkpoint(name, 1, leaf_hash(b"")), [key])
    file.write_bytes(TlogProof(0, (), note).encode())
    code, out, _ = run("--vkey", str(key.vkey), file, "/dev/null")
    assert code == 0
    assert out[:-1].isprintable()
