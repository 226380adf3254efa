"""`tlog verify`: offline, and no damage gets through."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tlog.merkle import leaf_hash
from tlog.notes import Algorithm, Checkpoint, Signer, TlogProof, sign_checkpoint

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
