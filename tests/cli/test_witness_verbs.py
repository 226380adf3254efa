"""What the verbs of `tlog witness` say, and what they refuse."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, tlog_command
from tests.witness.support import ORIGIN, SomeLog
from tlog.cli.errors import Exit
from tlog.witness import Conflict, EvidenceStore, LogList, WitnessConfig

LOG, FORK = SomeLog(), SomeLog(forked_at=5)
VKEY = str(LOG.signers[0].vkey)


@pytest.fixture
def directory(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A witness that trusts one log."""
    for name in ("WITNESS", "WITNESS_GRPC", "WITNESS_HTTP"):
        monkeypatch.delenv(f"TLOG_{name}", raising=False)
    assert run("witness", "init", tmp_path / "w", "--name", "witness.example/1").code == 0
    assert run("witness", "add-log", tmp_path / "w", "--vkey", VKEY).code == 0
    return tmp_path / "w"


def conflict(directory: Path, size: int = 9) -> bytes:
    """Evidence against the log, kept in the directory."""
    found = Conflict.between(LOG.note(size), FORK.note(size))
    assert EvidenceStore(directory).keep(found)
    return found.encode()


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The witness in a process of its own; its gRPC address."""
    ports = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    child = subprocess.Popen(
        [*tlog_command(), "witness", "serve", "--json", str(directory), *ports],
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())["grpc"]
    finally:
        child.terminate()
        assert child.wait(30) == 0


def test_init_prints_the_keys_one_a_line(tmp_path: Path, run: Run) -> None:
    result = run("witness", "init", tmp_path / "w", "--name", "witness.example/1")
    first, second = result.out.decode().splitlines()
    assert first.startswith("witness.example/1+")
    assert second.startswith("witness.example/1+")
    assert "not sealed" in result.err
    assert "Next: tlog witness add-log" in result.err
    again = run("witness", "init", tmp_path / "w", "--name", "x", "--json")
    assert again.code == Exit.FAILED
    assert "not empty" in json.loads(again.err)["error"]
    assert run("witness", "init", tmp_path / "v", "--name", "a b").code == Exit.FAILED
    assert not (tmp_path / "v").exists()


def test_sealed_keys(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOG_PASSPHRASE", "secret")
    assert "not sealed" not in run("witness", "init", tmp_path / "w", "--name", "w").err
    monkeypatch.delenv("TLOG_PASSPHRASE")
    result = run("witness", "serve", tmp_path / "w")
    assert result.code == Exit.FAILED
    assert "TLOG_PASSPHRASE" in result.err


def test_the_list_of_logs_is_edited(directory: Path, run: Run) -> None:
    other = str(SomeLog("other.example").signers[0].vkey)
    result = run("witness", "add-log", directory, "--vkey", other, "--url", "http://a/", "--json")
    assert json.loads(result.out)["origins"] == ["other.example"]
    assert run("witness", "set-url", directory, ORIGIN, "--url", "grpc://a:1/x").code == 0
    assert run("witness", "rekey", directory, ORIGIN, "--vkey", other).code == 0
    assert run("witness", "freeze", directory, "other.example").code == 0
    known = {log.origin: log for log in LogList(directory)}
    assert known["other.example"].url == "http://a"
    assert known["other.example"].frozen == "operator"
    assert known[ORIGIN].url == "grpc://a:1/x"
    assert list(map(str, known[ORIGIN].vkeys)) == [other]
    assert run("witness", "unfreeze", directory, "other.example").code == 0
    assert run("witness", "remove", directory, ORIGIN).code == 0
    assert [log.origin for log in LogList(directory)] == ["other.example"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("add-log", "w"), Exit.USAGE, "--vkey is needed"),
        (("add-log", "w", "--vkey", "nonsense"), Exit.USAGE, "vkey"),
        (("add-log", "w", "--vkey", VKEY), Exit.FAILED, "already"),
        (("add-log", "w", "--vkey", VKEY, "--url", "nowhere"), Exit.USAGE, "not an address"),
        (("add-log", "nothing", "--vkey", VKEY), Exit.FAILED, "tlog witness init"),
        (("rekey", "w", ORIGIN), Exit.USAGE, "--vkey is needed"),
        (("rekey", "w", "unknown", "--vkey", VKEY), Exit.FAILED, "not known"),
        (("set-url", "w", "unknown", "--url", "http://a"), Exit.FAILED, "not known"),
        (("freeze", "w", "unknown"), Exit.FAILED, "not known"),
        (("unfreeze", "w", ORIGIN), Exit.FAILED, "not frozen"),
        (("unfreeze", "nothing", ORIGIN), Exit.FAILED, "tlog witness init"),
        (("remove", "w", "unknown"), Exit.FAILED, "not known"),
        (("clear", "w", ORIGIN), Exit.FAILED, "not frozen"),
        (("clear", "nothing", ORIGIN), Exit.FAILED, "tlog witness init"),
        (("conflicts", "nothing"), Exit.FAILED, "tlog witness init"),
        (("conflicts", "w", "--output", "o"), Exit.USAGE, "already"),
        (("serve", "nothing"), Exit.FAILED, "tlog witness init"),
        (("serve", "w", "--grpc", "0.0.0.0:1"), Exit.FAILED, "loopback"),
        (("serve", "w", "--grpc", "127.0.0.1:0", "--http", "x"), Exit.FAILED, "HOST:PORT"),
        (("add-peer", "w", "--url", "grpc://a:1"), Exit.USAGE, "one --vkey"),
        (("add-peer", "w", "--vkey", VKEY, "--url", "grpc://a:1"), Exit.FAILED, "of a witness"),
        (("verify-conflict", "w/logs"), Exit.USAGE, "--vkey is needed"),
        (("status", "--witness", "127.0.0.1:1"), Exit.UNREACHABLE, "UNAVAILABLE"),
        (("conflicts", "--witness", "127.0.0.1:1"), Exit.UNREACHABLE, "UNAVAILABLE"),
        (("status", "--witness", "nowhere"), Exit.FAILED, "not an address"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_refused(
    directory: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: Exit,
    said: str,
) -> None:
    monkeypatch.chdir(directory.parent)
    before = (directory / "logs").read_bytes()
    result = run("witness", *words)
    assert (result.code, result.out) == (code, b"")
    assert result.err.startswith("tlog: ")
    assert result.err.count("\n") == 1
    assert said in result.err
    assert (directory / "logs").read_bytes() == before
    assert not (directory.parent / "nothing").exists()


def test_peers_are_added(directory: Path, run: Run, tmp_path: Path) -> None:
    made = run("witness", "init", tmp_path / "v", "--name", "witness.example/2")
    vkey = made.out.decode().split()[1]
    words = ("witness", "add-peer", directory, "--vkey", vkey)
    assert run(*words, "--url", "http://127.0.0.1:1").code == Exit.FAILED
    assert WitnessConfig.load(directory).peers == ()
    assert run(*words, "--url", "grpc://127.0.0.1:1").code == 0
    (peer,) = WitnessConfig.load(directory).peers
    assert (peer.name, peer.vkey) == ("witness.example/2", vkey)
    own = run("witness", "init", tmp_path / "u", "--name", "witness.example/1").out.decode().split()
    result = run("witness", "add-peer", directory, "--vkey", own[0], "--url", "grpc://a:1")
    assert "this witness itself" in result.err


# ---- evidence


def test_evidence_is_verified_offline(directory: Path, run: Run, tmp_path: Path) -> None:
    data = conflict(directory)
    (file,) = (directory / "conflicts").glob("*.conflict")
    result = run("witness", "verify-conflict", file, "--vkey", VKEY)
    assert result.code == 0
    assert result.out.startswith(b"proven: the log ")
    assert b"a split view" in result.out
    said = json.loads(run("witness", "verify-conflict", file, "--vkey", VKEY, "--json").out)
    assert (said["proven"], said["kind"], said["origin"]) == (True, "same-size", ORIGIN)
    assert [head["tree_size"] for head in said["heads"]] == [9, 9]
    other = str(SomeLog("other.example").signers[0].vkey)
    wrong = run("witness", "verify-conflict", file, "--vkey", other)
    assert wrong.code == Exit.UNVERIFIED
    assert wrong.err.startswith("tlog: NOT PROVEN: ")
    damaged = tmp_path / "damaged"
    for index in range(0, len(data), 7):
        damaged.write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        refused = run("witness", "verify-conflict", damaged, "--vkey", VKEY)
        assert (refused.code, refused.out) == (Exit.UNVERIFIED, b""), index
    damaged.write_bytes(b"x" * 1_000_000)
    assert run("witness", "verify-conflict", damaged, "--vkey", VKEY).code == Exit.FAILED


def test_evidence_is_listed_and_cleared(directory: Path, run: Run) -> None:
    assert run("witness", "conflicts", directory).out == b""
    conflict(directory)
    assert run("witness", "freeze", directory, ORIGIN).code == 0
    (line,) = run("witness", "conflicts", directory, "--json").out.splitlines()
    said = json.loads(line)
    assert Path(said["file"]).exists()
    result = run("witness", "unfreeze", directory, ORIGIN)
    assert result.code == Exit.FAILED
    assert "tlog witness clear" in result.err
    cleared = json.loads(run("witness", "clear", directory, ORIGIN, "--json").out)["cleared"]
    assert [Path(path).suffix for path in cleared] == [".cleared"]
    assert run("witness", "conflicts", directory).out == b""
    assert run("witness", "verify-conflict", cleared[0], "--vkey", VKEY).code == 0


def test_a_damaged_file_of_evidence_is_told_of_and_hides_no_other(
    directory: Path, run: Run
) -> None:
    conflict(directory)
    (directory / "conflicts" / f"{0:032x}.conflict").write_bytes(b"garbage")
    result = run("witness", "conflicts", directory)
    assert result.out.count(b"\n") == 1
    assert "cannot be read" in result.err


def test_heads_are_submitted_and_evidence_comes_back(
    directory: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {}
    for name, note in (
        *(("nine", LOG.note(9)), ("other nine", FORK.note(9)), ("twelve", LOG.note(12))),
        *(("unknown", SomeLog("other.example").note(9)), ("garbage", b"garbage")),
    ):
        files[name] = tmp_path / name
        files[name].write_bytes(note)
    with serving(directory) as address:
        monkeypatch.setenv("TLOG_WITNESS", address)
        verdicts = [("nine", b"new"), ("nine", b"known"), ("twelve", b"claimed")]
        for name, verdict in verdicts:
            result = run("witness", "submit", files[name])
            assert (result.code, result.out) == (0, verdict + b"\n"), result.err
        for name, said in (("unknown", "NOT_FOUND"), ("garbage", "INVALID_ARGUMENT")):
            result = run("witness", "submit", files[name])
            assert result.code == Exit.FAILED
            assert said in result.err
        result = run("witness", "submit", files["other nine"], "--output", tmp_path / "found")
        assert result.code == Exit.UNVERIFIED
        assert result.out.startswith(b"conflict\n")
        (file,) = (tmp_path / "found").iterdir()
        assert run("witness", "verify-conflict", file, "--vkey", VKEY).code == 0
        told = json.loads(run("witness", "status", "--json").out)
        assert told["logs"] == [
            {"origin": ORIGIN, "tree_size": None, "frozen": "conflict", "url": ""}
        ]
        lines = run("witness", "status").out.decode()
        assert f"log       {ORIGIN}  never cosigned  FROZEN: conflict\n" in lines
        listed = run("witness", "conflicts", "--output", tmp_path / "again")
        assert listed.code == 0
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
