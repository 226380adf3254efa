"""The verbs that talk to a server, against a real one."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Served
from tests.support import free_port
from tlog.merkle import MAX_ENTRY_SIZE, leaf_hash
from tlog.notes import Algorithm, Signer, VerifierKey, open_checkpoint


def unique() -> str:
    """Text that no other test has appended."""
    return str(uuid.uuid4())


# ---- appending ----


def test_append_prints_the_index_alone(run: Run, remote: Served) -> None:
    text = unique()
    result = run("append", "--wait", "published", text)
    assert (result.code, result.err) == (0, "")
    index = int(result.out)
    assert run("entries", index, index + 1).out == text.encode() + b"\n"


def test_append_lines_prints_first_and_last(run: Run, remote: Served, tmp_path: Path) -> None:
    lines = [unique().encode() for _ in range(1500)]
    (tmp_path / "lines").write_bytes(b"\n".join(lines))
    result = run("append", "--lines", tmp_path / "lines", "--wait", "published")
    assert (result.code, result.err) == (0, "")
    first, last = map(int, result.out.decode().strip().split(".."))
    assert last - first == 1499
    assert run("entries", first, last + 1).out.splitlines() == lines


def test_append_files_whole_in_the_order_given(run: Run, remote: Served, tmp_path: Path) -> None:
    contents = [unique().encode() + b"\n\0\xff", b"", b"x" * MAX_ENTRY_SIZE]
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    result = run("append", "--json", "--wait", "published", "--file", *files)
    said = json.loads(result.out)
    assert (said["count"], said["consecutive"]) == (3, True)
    listed = run("entries", "--json", said["first"], said["last"] + 1).out.splitlines()
    assert [base64.b64decode(json.loads(line)["base64"]) for line in listed] == contents


def test_a_proof_verifies_offline(run: Run, remote: Served, tmp_path: Path) -> None:
    text, proof, entry = unique(), tmp_path / "receipt", tmp_path / "entry"
    entry.write_text(text)
    assert run("append", "--proof", proof, text).code == 0
    assert run("verify", proof, entry).code == 0


def test_several_entries_put_their_proofs_in_a_directory(
    run: Run, remote: Served, tmp_path: Path
) -> None:
    lines = [unique() for _ in range(1100)]
    (tmp_path / "lines").write_text("\n".join(lines))
    result = run("append", "--lines", tmp_path / "lines", "--proof", tmp_path / "new" / "proofs")
    first = int(result.out.decode().split("..")[0])
    proofs = list((tmp_path / "new" / "proofs").iterdir())
    assert len(proofs) == 1100
    for number in (0, 1023, 1024, 1099):
        (tmp_path / "entry").write_text(lines[number])
        proof = tmp_path / "new" / "proofs" / f"{first + number}.tlog-proof"
        assert run("verify", proof, tmp_path / "entry").code == 0


def test_one_entry_s_proof_goes_into_a_directory_too(
    run: Run, remote: Served, tmp_path: Path
) -> None:
    said = json.loads(run("append", "--json", "--proof", tmp_path, unique()).out)
    assert said["proof"] == str(tmp_path / f"{said['index']}.tlog-proof")
    assert Path(said["proof"]).exists()


def test_a_proof_without_a_place_is_refused_before_anything_is_appended(
    run: Run, remote: Served, tmp_path: Path
) -> None:
    size = _size(run)
    (tmp_path / "taken").touch()
    (tmp_path / "lines").write_text("a\nb\n")
    assert run("append", "--proof", tmp_path / "no" / "such", unique()).code == 2
    result = run("append", "--lines", tmp_path / "lines", "--proof", tmp_path / "taken")
    assert result.code == 2
    assert "directory" in result.err
    assert _size(run) == size


def test_too_long(run: Run, remote: Served, tmp_path: Path) -> None:
    long, fine = tmp_path / "long", tmp_path / "fine"
    long.write_bytes(b"x" * (MAX_ENTRY_SIZE + 1))
    fine.write_text(unique())
    size = _size(run)
    for args in (("--file", long), ("--file", fine, long), ("--lines", long)):
        result = run("append", *args)
        assert (result.code, result.out) == (1, b"")
        assert "65535" in result.err
    assert _size(run) == size


def test_what_came_before_a_bad_line_is_durable_and_told(
    run: Run, remote: Served, tmp_path: Path
) -> None:
    (tmp_path / "lines").write_bytes(b"a\nb\n" + b"x" * (MAX_ENTRY_SIZE + 1))
    result = run("append", "--lines", tmp_path / "lines")
    assert result.code == 1
    assert "line 3" in result.err
    assert "2 entries are durable" in result.err


def test_no_lines_is_no_error(run: Run, remote: Served, tmp_path: Path) -> None:
    (tmp_path / "lines").touch()
    result = run("append", "--lines", tmp_path / "lines")
    assert (result.code, result.out) == (0, b"")
    assert json.loads(run("append", "--json", "--lines", tmp_path / "lines").out) == {"count": 0}


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("two", "words"),
        ("text", "--lines", "FILE"),
        ("--lines", "FILE", "--file", "FILE"),
        ("--lines", "gone"),
        ("text", "--wait", "forever"),
    ],
)
def test_append_usage(run: Run, remote: Served, tmp_path: Path, args: tuple[str, ...]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert run("append", *(str(file) if arg == "FILE" else arg for arg in args)).code == 2


# ---- reading and proving ----


def test_the_checkpoint_is_the_note_alone(run: Run, remote: Served) -> None:
    result = run("checkpoint")
    assert result.code == 0
    vkeys = [VerifierKey.parse(vkey) for vkey in remote.vkeys]
    verified = open_checkpoint(result.out, vkeys, origin="example.com/audit")
    assert len(verified.signed_by) == 2
    said = json.loads(run("checkpoint", "--json").out)
    assert said["origin"] == "example.com/audit"
    assert open_checkpoint(said["note"].encode(), vkeys).checkpoint.size == said["tree_size"]


def test_prove_by_index_hash_and_entry(run: Run, remote: Served, tmp_path: Path) -> None:
    entry, proof = tmp_path / "entry", tmp_path / "proof"
    entry.write_text(unique())
    index = run("append", "--wait", "published", "--file", entry).out.decode().strip()
    for args in ([index], ["--hash", leaf_hash(entry.read_bytes()).hex()], ["--entry", entry]):
        result = run("prove", *args, "-o", proof)
        assert result.code == 0
        assert f"entry {index} ".encode() in result.out
        assert run("verify", proof, entry).code == 0
        proof.write_bytes(run("prove", *args).out)
        assert run("verify", proof, entry).code == 0
        assert json.loads(run("prove", "--json", *args).out)["index"] == int(index)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ((), 2),
        (("1", "--hash", "00" * 32), 2),
        (("--hash", "00" * 31), 2),
        (("--hash", "zz" * 32), 2),
        (("-1",), 2),
        (("--hash", "00" * 32), 1),
        ((str(2**62),), 1),
        ((str(2**64),), 2),
    ],
)
def test_prove_refusals(run: Run, remote: Served, args: tuple[str, ...], code: int) -> None:
    result = run("prove", *args)
    assert (result.code, result.out) == (code, b"")
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("args", [("5", "4"), ("0", str(2**62)), (str(2**62),)])
def test_a_range_that_is_none(run: Run, remote: Served, args: tuple[str, ...]) -> None:
    result = run("entries", *args)
    assert (result.code, result.out) == (1, b"")
    assert "range" in result.err


def test_logs(run: Run, remote: Served) -> None:
    assert b"audit  origin example.com/audit" in run("logs").out
    said = json.loads(run("logs", "--json").out)
    assert (said["name"], tuple(said["vkeys"])) == ("audit", remote.vkeys)


# ---- trust ----


def test_trust_on_first_use_is_said_once(
    run: Run, remote: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TLOG_VKEY")
    first, second = run("checkpoint"), run("checkpoint")
    assert (first.code, second.code) == (0, 0)
    assert "on first use" in first.err
    assert second.err == ""


def test_a_server_elsewhere_is_not_trusted_without_a_key(run: Run) -> None:
    result = run("checkpoint", "--server", "log.example.com:6962")
    assert result.code == 2
    assert "--vkey" in result.err


def test_a_key_that_is_not_the_log_s_is_code_3(run: Run, remote: Served) -> None:
    other = Signer.generate("example.com/audit", Algorithm.ED25519).vkey
    result = run("checkpoint", "--vkey", other, "--json")
    assert (result.code, result.out) == (3, b"")
    assert "signature" in json.loads(result.err)["error"]


def test_an_unknown_log_is_refused(run: Run, remote: Served) -> None:
    result = run("checkpoint", "--log", "other")
    assert result.code == 1
    assert "other" in result.err


@pytest.mark.parametrize("verb", [("checkpoint",), ("append", "x"), ("logs",), ("prove", "0")])
def test_nobody_there_is_code_4(run: Run, remote: Served, verb: tuple[str, ...]) -> None:
    result = run(*verb, "--server", f"127.0.0.1:{free_port()}", "--json")
    assert result.code == 4
    assert json.loads(result.err)["exit_code"] == 4


def _size(run: Run) -> int:
    size = json.loads(run("checkpoint", "--json").out)["tree_size"]
    assert isinstance(size, int)
    return size


# ---- how a log does ----


def test_the_status_of_a_log(run: Run, remote: Served) -> None:
    index = int(run("append", "--wait", "published", unique()).out)
    result = run("log", "status", remote.directory)
    assert (result.code, result.err) == (0, "")
    first, second = result.out.decode().splitlines()
    assert first.split() == ["log", "audit", "origin", "example.com/audit"]
    assert " durable, " in second
    said = json.loads(run("log", "status", "--json").out)
    assert said["published_size"] == said["signed_size"] == said["integrated_size"] > index
    assert (said["quorum"], said["fail_open"], said["witnesses"]) == ("", False, [])


def test_the_status_of_another_log_than_is_served(run: Run, remote: Served, tmp_path: Path) -> None:
    assert run("log", "status", tmp_path).code == 1
    options = ("--origin", "example.com/other", "--name")
    run("init", tmp_path / "same", *options, "audit")
    result = run("log", "status", tmp_path / "same")
    assert (result.code, result.out) == (1, b"")
    assert "another log of that name" in result.err
    run("init", tmp_path / "other", *options, "other")
    assert "no log is named 'other'" in run("log", "status", tmp_path / "other").err
    assert run("log", "status", tmp_path / "other", "--log", "audit").code == 2
