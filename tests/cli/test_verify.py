"""`tlog verify`: offline, and no damage gets through."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tlog.merkle import leaf_hash
from tlog.notes import (
    Algorithm,
    Checkpoint,
    Signer,
    TlogProof,
    cosign,
    parse_proof,
    parse_unverified,
    sign_checkpoint,
)

ENTRY = b"the entry\n"


@dataclass(frozen=True, slots=True)
class Files:
    """A proof, its entry, and the keys of its log."""

    proof: Path
    entry: Path
    vkeys: tuple[str, str]

    @property
    def keys(self) -> list[str]:
        """Both keys as options."""
        return ["--vkey", self.vkeys[0], "--vkey", self.vkeys[1]]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    signers = [
        Signer.from_seed("example.com/log", algorithm, bytes([algorithm]) * 32)
        for algorithm in (Algorithm.ED25519, Algorithm.MLDSA44)
    ]
    checkpoint = Checkpoint("example.com/log", 1, leaf_hash(ENTRY))
    note = sign_checkpoint(checkpoint, signers, timestamp=1_700_000_000)
    proof, entry = tmp_path / "receipt.tlog-proof", tmp_path / "entry"
    proof.write_bytes(TlogProof(index=0, hashes=(), checkpoint=note).encode())
    entry.write_bytes(ENTRY)
    return Files(proof, entry, (str(signers[0].vkey), str(signers[1].vkey)))


def test_a_good_proof(run: Run, files: Files) -> None:
    result = run("verify", *files.keys, files.proof, files.entry)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(
        b"verified: entry 0 of example.com/log, in the tree of 1 signed by"
    )


def test_json(run: Run, files: Files) -> None:
    said = json.loads(run("verify", "--json", *files.keys, files.proof, files.entry).out)
    assert said["verified"] is True
    assert (said["origin"], said["index"], said["tree_size"]) == ("example.com/log", 0, 1)
    assert len(said["signed_by"]) == 2


def test_keys_may_come_from_the_environment(
    run: Run, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLOG_VKEY", " ".join(files.vkeys))
    assert run("verify", files.proof, files.entry).code == 0


@pytest.mark.parametrize("key", [0, 1])
def test_one_key_is_enough_for_who_asks_for_one(run: Run, files: Files, key: int) -> None:
    assert run("verify", "--vkey", files.vkeys[key], files.proof, files.entry).code == 0


def test_every_key_that_is_given_must_have_signed(run: Run, files: Files) -> None:
    other = Signer.generate("example.com/log", Algorithm.ED25519).vkey
    result = run("verify", *files.keys, "--vkey", str(other), files.proof, files.entry)
    assert result.code == 3
    assert "has not signed" in result.err


def test_every_flipped_byte_is_refused(run: Run, files: Files) -> None:
    good = files.proof.read_bytes()
    signatures = good.index("—".encode())
    # Of the signatures some: tests/notes has every bit of them.
    for position in (*range(signatures + 40), *range(signatures + 40, len(good), 29)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        files.proof.write_bytes(bad)
        result = run("verify", *files.keys, files.proof, files.entry)
        assert result.code == 3, f"byte {position}"
        assert result.out == b""
        assert "NOT VERIFIED" in result.err
        assert "Traceback" not in result.err


@pytest.mark.parametrize("entry", [b"", b"the entry", b"the entrx\n", b"the entry\n\n"])
def test_another_entry_is_refused(run: Run, files: Files, entry: bytes) -> None:
    files.entry.write_bytes(entry)
    result = run("verify", "--json", *files.keys, files.proof, files.entry)
    assert result.code == 3
    assert "NOT VERIFIED" in json.loads(result.err)["error"]


def test_another_log_s_key_is_refused(run: Run, files: Files) -> None:
    other = Signer.generate("example.com/other", Algorithm.ED25519).vkey
    assert run("verify", "--vkey", str(other), files.proof, files.entry).code == 3


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"c2sp.org/tlog-proof@v1\n\n", b"x" * 300_000]
)
def test_what_is_no_proof_is_refused(run: Run, files: Files, content: bytes) -> None:
    files.proof.write_bytes(content)
    assert run("verify", *files.keys, files.proof, files.entry).code in {1, 3}


def test_usage(run: Run, files: Files) -> None:
    assert run("verify", files.proof, files.entry).code == 2
    assert run("verify", "--vkey", "nonsense", files.proof, files.entry).code == 2
    assert run("verify", *files.keys, "-", "-").code == 2
    assert run("verify", *files.keys, files.proof, files.entry.parent / "gone").code == 2
    assert run("verify", *files.keys, files.proof).code == 2


# ---- policies ----

WITNESSES = [
    Signer.from_seed(f"w{n}.example", Algorithm.ED25519_COSIGNATURE, bytes([n]) * 32)
    for n in range(2)
]


def witnessed(files: Files, *ages: float) -> Path:
    """The proof, cosigned that many seconds ago by one witness each; gives the policy of both."""
    proof = parse_proof(files.proof.read_bytes())
    note = proof.checkpoint
    for witness, age in zip(WITNESSES, ages, strict=False):
        at = int(time.time() - age)
        note += cosign(parse_unverified(note).checkpoint, witness, timestamp=at).encode()
    files.proof.write_bytes(replace(proof, checkpoint=note).encode())
    lines = [f"log {files.vkeys[0]}", *(f"witness {w.vkey.name} {w.vkey}" for w in WITNESSES)]
    lines += ["group both all w0.example w1.example", "quorum both"]
    policy = files.proof.with_name("policy")
    policy.write_text("".join(f"{line}\n" for line in lines))
    return policy


def test_a_policy_wants_its_quorum(run: Run, files: Files) -> None:
    policy = witnessed(files, 1)
    result = run("verify", "--policy", policy, files.proof, files.entry)
    assert result.code == 3
    assert "NOT VERIFIED: quorum check failed: quorum 'both' is not met" in result.err
    assert "missing 'w1.example'" in result.err
    # The keys alone ask for no witness.
    assert run("verify", *files.keys, files.proof, files.entry).code == 0


def test_cosignatures_too_old(run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = witnessed(files, 1, 7300)
    for options in ((), ("--max-age", "3h"), ("--max-age", "1d"), ("--max-age", "86400")):
        result = run("verify", "--policy", policy, *options, files.proof, files.entry)
        assert result.code == 0, result.err
    assert b"w1.example" in result.out
    result = run("verify", "--policy", policy, "--max-age", "1h", files.proof, files.entry)
    assert (result.code, result.out) == (3, b"")
    assert "freshness check failed" in result.err
    assert "by 'w1.example' 2 h 1 min ago" in result.err
    monkeypatch.setenv("TLOG_POLICY", str(policy))
    monkeypatch.setenv("TLOG_MAX_AGE", "10m")
    assert run("verify", files.proof, files.entry).code == 3


def test_cosignatures_of_the_future(run: Run, files: Files) -> None:
    policy = witnessed(files, 1, -600)
    result = run("verify", "--policy", policy, "--max-age", "1h", files.proof, files.entry)
    assert result.code == 3
    assert "in the future" in result.err


def test_keys_and_a_policy_must_both_hold(run: Run, files: Files) -> None:
    policy = witnessed(files, 1, 1)
    options = ("--policy", policy)
    assert run("verify", *options, *files.keys, files.proof, files.entry).code == 0
    other = Signer.from_seed("example.com/log", Algorithm.ED25519, bytes(32)).vkey
    result = run("verify", *options, "--vkey", str(other), files.proof, files.entry)
    assert result.code == 3


@pytest.mark.parametrize(
    ("policy", "options", "code", "says"),
    [
        (None, ("--max-age", "1h"), 2, "needs a --policy"),
        ("quorum", ("--max-age", "0"), 2, "length of time"),
        ("quorum", ("--max-age", "-1h"), 2, "length of time"),
        ("quorum", ("--max-age", "1w"), 2, "length of time"),
        ("quorum", (), 1, "no quorum line"),
        ("quorum none", ("--max-age", "1h"), 1, "needs a quorum of witnesses"),
        ("none", (), 1, "line 1"),
    ],
)
def test_policies_that_are_refused(
    run: Run, files: Files, policy: str | None, options: tuple[str, ...], code: int, says: str
) -> None:
    given: tuple[str | Path, ...] = ()
    if policy is not None:
        file = files.proof.with_name("policy")
        text = {"quorum": "# none\n", "none": "nonsense\n"}.get(policy, f"{policy}\n")
        file.write_text(text)
        given = ("--policy", file)
    else:
        given = tuple(files.keys)
    result = run("verify", *given, *options, files.proof, files.entry)
    assert (result.code, result.out) == (code, b"")
    assert says in result.err
