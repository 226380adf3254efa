"""`tools/verify.py` and the package, which share nothing: both accept, or both refuse."""

from __future__ import annotations

import ast
import base64
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
    NoteError,
    NoteSignature,
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


@pytest.mark.parametrize(("size", "said"), [(2**63 - 1, VERIFIED), (2**63, REFUSED)])
def test_sizes(size: int, said: str) -> None:
    path = [bytes(32)] * 63
    root = base64.b64encode(verify.root_of_inclusion(0, size, leaf_hash(b"entry"), path)).decode()
    text, key = f"{LOG.origin}\n{size}\n{root}\n", LOG.signers[0]
    line = NoteSignature(LOG.origin, key.vkey.key_id, key.sign(text.encode()))
    proof = TlogProof(0, tuple(path), signed(1)).encode()
    note = text.encode() + b"\n" + line.encode()
    assert both(Papers(None, VKEYS, proof.replace(signed(1), note), b"entry")) == said


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
        "# a comment",
        "witness \u212a {1}",
        "witness K {1}",
    ],
)
def test_policies(line: str) -> None:
    """A line more or less in a policy, before and after its quorum: allowed or not by both."""
    keys = [LOG.signers[0].vkey, *(key.vkey for key in make.WITNESSES[1:3])]
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
