"""`tlog verify case.zip`: offline, and what is said of each record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.audit.approvers import CISO, DPO
from tests.audit.evidence import (
    ACCESSED,
    ERASURE,
    EXPIRY,
    FULFILLED,
    OWN_EXPIRY,
    RECEIVED,
    Case,
    case,
)
from tests.audit.producer import SHOP, signer_of
from tests.audit.tenant import LOG
from tests.cli.conftest import Run
from tlog.cli.verdict import _notes

BOTH = f"{CISO.vkey.label} of entry 3 and {DPO.vkey.label} of entry 2"


@pytest.fixture
def files(tmp_path: Path) -> Case:
    """The packages of a case and the policy, in files of this directory."""
    made = case()
    for name in ("before", "after", "others", "expired"):
        (tmp_path / f"{name}.zip").write_bytes(getattr(made, name))
    (tmp_path / "policy").write_bytes(made.policy)
    return made


def test_what_is_proven_and_what_is_not(run: Run, files: Case, tmp_path: Path) -> None:
    options = ("--policy", tmp_path / "policy", "--service-key", LOG.vkey)
    result = run("verify", *options, "--tsa-root", files.root_file, tmp_path / "before.zip")
    assert (result.code, result.err) == (0, "")
    lines = result.out.decode().splitlines()
    first = lines[: lines.index(f"entry {ACCESSED}  access.read")]
    assert first[0] == f"entry {RECEIVED}  request.received"
    for line in (
        f"  proven: in the tree; signed with the key {SHOP.vkey.label} of entry 0, valid then as "
        "far as keys/ tells",
        '  disclosed of all subjects: actor: {"id": "eve", "ip": "192.0.2.1"}',
        "  hidden of all subjects: at most 1 claims",
        "  disclosed of subject 1: id: alice@example.com",
        "  says: request_id: R-1",
    ):
        assert line in first
    times = [line for line in first if line.startswith("  time: ")]
    told = "says CN=TSA below a root of yours, in timestamps/one over size 6; not yet at "
    assert told in times[0]
    assert times[1].endswith(
        "says a stamp NOT VERIFIED against a root of yours, in timestamps/two over size 6"
    )
    assert "  time: bounded by no authority" in lines[lines.index("entry 6  request.fulfilled") :]
    (end,) = [number for number, line in enumerate(lines) if line.startswith("verified: ")]
    assert lines[end].startswith("verified: 3 records of example.com/records, in the tree of 7 sig")
    assert "w1.example+" in lines[end]
    assert "at 2027-01-15T08:00:00Z" in lines[end]
    assert [line.split(": ")[1] for line in lines[end + 1 :]] == [
        "completeness of the package", "completeness of the log", "truth", "hidden claims",
        "destruction", "expiry", "revocation",
    ]  # fmt: skip


def test_an_erasure(run: Run, files: Case, tmp_path: Path) -> None:
    result = run("verify", "--policy", tmp_path / "policy", tmp_path / "after.zip")
    assert result.code == 0
    text = result.out.decode()
    told = f"erased at entry {ERASURE} under request R-1, upon an order signed by {BOTH}; "
    told += "that entry is proven, and matched by its subject"
    assert f"gone of all subjects: {told}" in text
    assert f"gone of subject 1: {told}" in text
    assert "note: the producers' keys lead back to log+" in text
    assert "alice" not in text


def test_an_erasure_that_nobody_ordered(run: Run, files: Case, tmp_path: Path) -> None:
    """Whoever has the log's own key can destroy alone; whoever verifies is told that it was so."""
    (tmp_path / "alone.zip").write_bytes(files.unordered["nobody"])
    result = run("verify", "--policy", tmp_path / "policy", tmp_path / "alone.zip")
    assert result.code == 0
    told = "under request R-1, upon NO order of two approvers: it keeps none; that entry is proven"
    assert f"{told}, and matched by its subject" in result.out.decode()


def test_approvers_whom_the_log_made_alone(files: Case) -> None:
    verdict = files.verify(files.after)
    assert _notes(verdict) == []
    (note,) = _notes(replace(verdict, alone=[9]))
    assert note.startswith("entry 9 changes who approves, and has no order of the two approvers")


def test_json(run: Run, files: Case, tmp_path: Path) -> None:
    result = run("verify", "--json", "--policy", tmp_path / "policy", tmp_path / "after.zip")
    one, two, verdict = map(json.loads, result.out.splitlines())
    assert [one["entry"], two["entry"]] == [RECEIVED, FULFILLED]
    assert one["parts"][1] == {
        "of": "of subject 1",
        "disclosed": {},
        "hidden": 2,
        "erased_at": ERASURE,
        "erased_under": "R-1",
        "ordered_by": ["ciso", "dpo"],
        "ordered_with": {CISO.vkey.label: 3, DPO.vkey.label: 2},
        "expired_at": None,
        "gone_matched": True,
    }
    assert two["parts"][0]["gone_matched"] is None
    assert one["times"][0]["root_is_yours"] is False
    assert verdict["verified"] is True
    assert (verdict["service_key_is_yours"], verdict["policy_is_yours"]) == (False, True)
    assert verdict["approvers_made_alone"] == []
    assert len(verdict["not_proven"]) == 7
    result = run("verify", "--json", "--policy", tmp_path / "policy", tmp_path / "expired.zip")
    told = [json.loads(line)["parts"][0] for line in result.out.splitlines()[:-1]]
    assert [(part["expired_at"], part["gone_matched"]) for part in told] == [
        (EXPIRY, True), (None, None), (OWN_EXPIRY, False), (None, None),
    ]  # fmt: skip


def test_what_nothing_but_the_package_says(run: Run, files: Case, tmp_path: Path) -> None:
    """That an entry of the log is about this record: where nothing in it shows that."""
    word = "that entry is proven; that it is about this record is the package's word: "
    result = run("verify", "--policy", tmp_path / "policy", tmp_path / "expired.zip")
    access, placed = result.out.decode().split("entry 12  ")
    assert f"expired at entry {EXPIRY}; that entry is proven, and matched by its class" in access
    assert word not in access
    assert f"{word}the type does not tell its class" in placed
    result = run("verify", "--policy", tmp_path / "policy", tmp_path / "others.zip")
    accessed = result.out.decode().split(f"entry {ACCESSED}  ")[1].split("entry 8  ")[0]
    shown = "its tokens cannot be compared with those of that entry"
    assert f"under request R-2, upon an order signed by {BOTH}; {word}{shown}" in accessed


def test_keys_from_the_environment_and_standard_input(
    run: Run, files: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLOG_SERVICE_KEY", str(signer_of("log", 99).vkey))
    vkeys = [word for vkey in files.vkeys for word in ("--vkey", str(vkey))]
    result = run("verify", *vkeys, tmp_path / "before.zip")
    assert (result.code, result.out) == (3, b"")
    assert "and not the one that you gave" in result.err
    monkeypatch.setenv("TLOG_SERVICE_KEY", str(LOG.vkey))
    assert run("verify", *vkeys, tmp_path / "before.zip").code == 0


@pytest.mark.parametrize("place", range(0, 60_000, 4999))
def test_damage(run: Run, files: Case, tmp_path: Path, place: int) -> None:
    bad = bytearray(files.before)
    bad[place] ^= 1
    (tmp_path / "bad.zip").write_bytes(bad)
    result = run("verify", "--policy", tmp_path / "policy", tmp_path / "bad.zip")
    assert result.out == b""
    assert result.code == (2 if place == 0 else 3)
    assert place == 0 or result.err.startswith("tlog: NOT VERIFIED: evidence check failed: ")
    assert result.err.count("\n") == 1


def test_usage(run: Run, files: Case, tmp_path: Path) -> None:
    policy, package = ("--policy", tmp_path / "policy"), tmp_path / "before.zip"
    key = ("--service-key", LOG.vkey)
    assert "there is nothing to verify against" in run("verify", package).err
    result = run("verify", *policy, tmp_path / "policy")
    assert (result.code, "no evidence package" in result.err) == (2, True)
    result = run("verify", *policy, *key, package, tmp_path / "policy")
    assert (result.code, "are for an evidence package" in result.err) == (2, True)
    assert run("verify", *policy, *key, *key, package).code == 2
    result = run("verify", *policy, "--tsa-root", tmp_path / "policy", package)
    assert (result.code, "holds no certificates in PEM" in result.err) == (1, True)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(65 << 20)
    assert "the most that fits" in run("verify", *policy, tmp_path / "large").err
