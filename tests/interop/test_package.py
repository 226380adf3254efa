"""The files of an evidence package verify with implementations of C2SP that others wrote.

By the words of its VERIFY.txt: torchwood takes the place of `tools/verify.py` in the second step,
with the same policy, and aics-tlog verifies the path that the fourth one speaks of.
"""

from __future__ import annotations

import re
import subprocess
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.audit.evidence import RECEIVED, WITNESS, case
from tests.interop.aics import aics
from tlog.notes import Algorithm, Signer
from tools.peers import program


def unpack(package: bytes, directory: Path) -> Path:
    """A package unpacked, with the policy of whoever verifies it beside its files."""
    ZipFile(BytesIO(package)).extractall(directory)
    (directory / "YOUR-POLICY").write_bytes(case().policy)
    return directory


@pytest.fixture(params=["before", "after", "everything", "others"])
def unpacked(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return unpack(getattr(case(), request.param), tmp_path)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return unpack(case().after, tmp_path)


def torchwood(directory: Path, *files: str, policy: str = "YOUR-POLICY") -> str:
    """Why a checkpoint, or a proof of an entry, does not verify; nothing when it does."""
    done = subprocess.run(
        [program("proof"), policy, *files],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) is (done.stderr == ""), done
    assert done.returncode in (0, 1), done
    return done.stderr


def guided(directory: Path) -> list[tuple[str, str]]:
    """The files that VERIFY.txt has its reader verify: each proof, with its entry."""
    guide = (directory / "VERIFY.txt").read_text()
    command = re.search(r"verify\.py --policy YOUR-POLICY (\S+) (\S+)$", guide, re.M)
    assert command is not None
    records = re.findall(r"^    ((?:records|keys)/\d+)  ", guide, re.M)
    assert len(records) == len(list(directory.rglob("leaf.json"))) > 2
    proof, leaf = command.groups()
    return [(proof.replace("RECORD", each), leaf.replace("RECORD", each)) for each in records]


def test_each_record_is_in_the_log(unpacked: Path) -> None:
    for proof, leaf in guided(unpacked):
        assert torchwood(unpacked, proof, leaf) == ""
        # The policy that the package brings says the same.
        assert torchwood(unpacked, proof, leaf, policy="policy") == ""


def test_the_checkpoint_is_signed_and_cosigned(unpacked: Path) -> None:
    assert torchwood(unpacked, "checkpoint") == ""
    words = ("verify-checkpoint", "--note", unpacked / "checkpoint")
    keys = ("--log-key", str(case().vkeys[0]), "--witness-key", str(WITNESS.vkey))
    code, said = aics(*words, *keys, "--quorum", 1)
    assert (code, said["ok"], said["cosignatures"]) == (0, True, 1), said


def test_a_record_is_proven_by_no_proof_of_another(one: Path) -> None:
    pairs = guided(one)
    for proof, leaf in pairs:
        for _, other in pairs:
            assert (torchwood(one, proof, other) == "") is (leaf == other)


def changed(data: bytes, place: int) -> bytes:
    """One bit of a byte is changed: no base64 of the same bytes, and no other spelling of them."""
    return data[:place] + bytes([data[place] ^ (0x10, 0x20)[place % 2]]) + data[place + 1 :]


@pytest.mark.parametrize("name", ["proof.tlog-proof", "leaf.json"])
def test_a_damaged_file_of_a_record_is_refused(one: Path, name: str) -> None:
    record = one / f"records/{RECEIVED:06}"
    good = (record / name).read_bytes()
    for place in range(0, len(good), 11):
        (record / name).write_bytes(changed(good, place))
        files = (str(record / "proof.tlog-proof"), str(record / "leaf.json"))
        assert torchwood(one, *files) != "", place


def test_a_damaged_checkpoint_is_refused(one: Path) -> None:
    good = (one / "checkpoint").read_bytes()
    for place in range(0, len(good), 11):
        (one / "checkpoint").write_bytes(changed(good, place))
        assert torchwood(one, "checkpoint") != "", place


def test_the_quorum_counts(one: Path) -> None:
    (proof, leaf), *_ = guided(one)
    stranger = Signer.generate("w1.example", Algorithm.ED25519_COSIGNATURE).vkey
    policy = case().policy.replace(str(WITNESS.vkey).encode(), str(stranger).encode())
    (one / "other").write_bytes(policy)
    assert "policy" in torchwood(one, proof, leaf, policy="other")
    assert "policy" in torchwood(one, "checkpoint", policy="other")
    text, _, cosignature = (one / "checkpoint").read_bytes().rpartition(b"\n\xe2\x80\x94 ")
    assert cosignature.startswith(b"w1.example ")
    (one / "checkpoint").write_bytes(text + b"\n")
    assert "policy" in torchwood(one, "checkpoint")


def test_a_stamped_head_leads_to_the_checkpoint(one: Path) -> None:
    # No witness has cosigned what was stamped.
    lines = [f"log {vkey}" for vkey in case().vkeys]
    (one / "log").write_text("".join(f"{line}\n" for line in [*lines, "quorum none"]))
    _, new_size, new_root, *_ = (one / "checkpoint").read_text().split("\n")
    stamps = re.findall(r"^    (timestamps/.*)$", (one / "VERIFY.txt").read_text(), re.M)
    assert len(stamps) == 3
    for stamp in stamps:
        assert torchwood(one, f"{stamp}.note", policy="log") == ""
        assert torchwood(one, f"{stamp}.note") != ""
        _, size, root, *_ = (one / f"{stamp}.note").read_text().split("\n")
        ask = (
            *("verify-consistency", "--old-size", size, "--old-root", root),
            *("--new-size", new_size, "--new-root", new_root, "--proof", one / f"{stamp}.path"),
        )
        code, said = aics(*ask)
        assert (code, said["ok"]) == (0, True), said
        good = (one / f"{stamp}.path").read_bytes()
        (one / f"{stamp}.path").write_bytes(changed(good, len(good) // 2))
        code, said = aics(*ask)
        assert (code, said["ok"]) == (1, False)
