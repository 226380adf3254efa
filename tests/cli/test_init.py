"""`tlog init`: two keys on standard output, and a directory that a server can open."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tlog.audit.index import Index
from tlog.log import LogConfig, load_signers
from tlog.notes import Algorithm, NoteError, Signer, VerifierKey, parse_policy


def test_prints_the_two_vkeys_alone_one_a_line(run: Run, tmp_path: Path) -> None:
    result = run("init", tmp_path / "mylog", "--origin", "example.com/mylog")
    assert result.code == 0
    keys = [VerifierKey.parse(line) for line in result.out.decode().splitlines()]
    assert [key.algorithm for key in keys] == [Algorithm.ED25519, Algorithm.MLDSA44]
    assert {key.name for key in keys} == {"example.com/mylog"}
    assert "not sealed" in result.err
    config = LogConfig.load(tmp_path / "mylog")
    signers = load_signers(tmp_path / "mylog", config, passphrase=None)
    assert [signer.vkey for signer in signers] == keys


def test_nobody_else_may_look_into_its_directories(run: Run, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        (tmp_path / "shared").mkdir(mode=0o750)
        for name in ("above/mylog", "shared"):
            made = tmp_path / name
            assert run("init", made, "--origin", "example.com/mylog", "--name", "mylog").code == 0
            assert run("records", "init", made, "--tenant", "acme").code == 0
            Index(made).close()
    finally:
        os.umask(before)
    modes = {
        str(each.relative_to(tmp_path)): each.stat().st_mode & 0o777
        for each in tmp_path.rglob("*")
        if each.is_dir()
    }
    assert modes.pop("above") == 0o777
    assert modes.pop("shared") == 0o750  # as whoever made it wanted it
    assert modes.pop("above/mylog") == 0o700
    within = ("keys", "db", "vault", "vault/db", "index")
    assert modes == {
        f"{name}/{each}": 0o700 for name in ("above/mylog", "shared") for each in within
    }


def test_settings_reach_the_log(run: Run, tmp_path: Path) -> None:
    options = ("--name", "other", "--dedup", "--interval", "0", "--json")
    result = run("init", tmp_path / "mylog", "--origin", "example.com/mylog", *options)
    said = json.loads(result.out)
    config = LogConfig.load(tmp_path / "mylog")
    assert (config.name, config.dedup, config.checkpoint_interval) == ("other", True, 0)
    assert (said["name"], said["origin"], len(said["vkeys"])) == ("other", "example.com/mylog", 2)
    assert result.err == ""


def test_the_name_is_by_default_that_of_the_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run("init", ".", "--origin", "example.com/here").code == 0
    assert LogConfig.load(tmp_path / "here").name == "here"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("mylog",), 2, "--origin"),
        (("mylog", "--origin", "a b"), 2, "space"),
        (("mylog", "--origin", ""), 2, "empty"),
        (("mylog", "--origin", "a" * 256), 2, "255"),
        (("mylog", "--origin", "a\x1bb"), 2, "control"),
        (("mylog", "--origin", "ok", "--name", "no/slash"), 2, "letters"),
        (("my log", "--origin", "ok"), 2, "letters"),
        (("mylog", "--origin", "ok", "--interval", "-1"), 2, "interval"),
        (("mylog", "--origin", "ok", "--interval", "soon"), 2, "interval"),
        (("full", "--origin", "ok"), 1, "not empty"),
        (("file", "--origin", "ok"), 2, "file"),
        ((), 2, "DIR"),
    ],
)
def test_refusals(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    result = run("init", *args)
    assert (result.code, result.out) == (code, b"")
    assert says in result.err
    assert sorted(tmp_path.rglob("*")) == before, "a refusal leaves nothing behind"


def test_a_passphrase_seals_the_keys(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLOG_PASSPHRASE", "correct horse")
    result = run("init", tmp_path / "mylog", "--origin", "example.com/mylog")
    assert result.code == 0
    assert "not sealed" not in result.err
    config = LogConfig.load(tmp_path / "mylog")
    with pytest.raises(NoteError, match="sealed"):
        load_signers(tmp_path / "mylog", config, passphrase=None)
    assert load_signers(tmp_path / "mylog", config, passphrase=b"correct horse")


OTHER = Signer.from_seed("example.com/mylog", Algorithm.ED25519, bytes(32))


def witness(name: str = "w", url: str = "https://w.example/prefix/") -> str:
    vkey = Signer.from_seed(
        f"{name}.example", Algorithm.ED25519_COSIGNATURE, name.encode() * 32
    ).vkey
    return f"witness {name} {vkey} {url}".rstrip() + "\n"


def test_a_policy_is_installed_with_the_keys_of_the_log(run: Run, tmp_path: Path) -> None:
    text = "# ours\n" + witness("a") + witness("b", "grpc://[::1]:6972") + "quorum a\n"
    (tmp_path / "witnesses").write_text(text)
    made = run(
        *("init", tmp_path / "mylog", "--origin", "example.com/mylog"),
        *("--policy", tmp_path / "witnesses"),
    )
    assert made.code == 0, made.err
    installed = (tmp_path / "mylog" / "policy").read_bytes()
    assert installed.endswith(text.encode())
    policy = parse_policy(installed)
    assert [str(log.vkey) for log in policy.logs] == made.out.decode().splitlines()
    assert [one.name for one in policy.witnesses] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (witness(), "no quorum line"),
        (witness() + "quorum other\n", "line 2: 'other' is not defined"),
        (witness(url="") + "quorum w\n", "no URL is given for 'w'"),
        (witness(url="ftp://w.example/") + "quorum w\n", "is not an address"),
        (witness(url="http://user@w.example/") + "quorum w\n", "is not an address"),
        (witness("a") + witness("b", "") + "group g 2 a b\nquorum g\n", "given for 'b'"),
        (
            f"log {OTHER.vkey}\nquorum none\n",
            "take the line out",
        ),
        ("quorum none", "newline"),
    ],
)
def test_policies_that_are_refused(run: Run, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "policy").write_text(text)
    result = run(
        *("init", tmp_path / "mylog", "--origin", "example.com/mylog"),
        *("--policy", tmp_path / "policy"),
    )
    assert (result.code, result.out) == (1, b"")
    assert says in result.err
    assert not (tmp_path / "mylog").exists()
