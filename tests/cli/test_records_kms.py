"""`tlog records init` with a tenant key that only a KMS has: a program of its own, with its key."""

from __future__ import annotations

import json
import sys
import tomllib
from base64 import b64encode
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tlog.audit.tenancy import RecordsConfig
from tlog.audit.tenant_key import MAX_WRAPPED_SIZE
from tlog.log import LogConfig, create_log

KEY = bytes(range(7, 39))
# The key of the KMS lies beside it; a name for a tag shows that what was wrapped is looked at.
KMS = """#!{python} -I
import pathlib, sys
root = pathlib.Path(__file__).with_name("root").read_bytes()
verb, *names = sys.argv[1:]
given = sys.stdin.buffer.read()
if verb == "unwrap" and given.startswith(b"wrapped:"):
    sys.stdout.buffer.write(bytes(a ^ b for a, b in zip(given[8:], root)))
elif verb == "get" and names == ["tlog/the acme"] and not given:
    sys.stdout.buffer.write(bytes(a ^ b for a, b in zip(bytes({key}), root)))
elif verb == "random":
    import os
    sys.stdout.buffer.write(os.urandom(32))
elif verb == "short":
    sys.stdout.buffer.write(b"x" * 31)
else:
    sys.exit(9)
"""
WRAPPED = bytes(a ^ b for a, b in zip(KEY, bytes(range(100, 132)), strict=True))


@pytest.fixture
def kms(tmp_path: Path) -> Path:
    path = tmp_path / "the kms"
    path.write_text(KMS.format(python=sys.executable, key=list(WRAPPED)))
    path.chmod(0o700)
    (tmp_path / "root").write_bytes(bytes(range(100, 132)))
    (tmp_path / "wrapped").write_bytes(b"wrapped:" + WRAPPED)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    create_log(tmp_path / "log", LogConfig(origin="example.com/log", name="log"))
    return tmp_path / "log"


def nowhere(directory: Path) -> None:
    """The key is in no file of the log, however it is spelt."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        data = path.read_bytes()
        spelt = (KEY, KEY.hex().encode(), b64encode(KEY)[:42])
        assert not [each for each in spelt if each in data], path


def test_a_key_that_a_kms_wrapped(
    run: Run, plain: Path, kms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--tenant-key-command", "'./the kms' unwrap", "--wrapped-key", tmp_path / "wrapped")
    result = run("records", "init", plain, "--tenant", "acme", *words)
    assert result.code == 0, result.err
    assert "Keep a copy of" in result.err
    assert "without its command, nothing is read" in result.err
    assert (plain / "keys/tenant.key").read_bytes() == b"wrapped:" + WRAPPED
    assert (plain / "keys/tenant.key").stat().st_mode & 0o777 == 0o600
    settings = tomllib.loads((plain / "records.toml").read_text())
    assert settings == {"tenant": "acme", "tenant_key_command": [str(kms), "unwrap"]}
    assert RecordsConfig.load(plain).tenant_key_command == (str(kms), "unwrap")
    # Wherever the server is started, it opens the vault; and never without the KMS.
    monkeypatch.chdir("/")
    add = ("records", "add-producer", plain, "shop", "--key", tmp_path / "shop.key")
    assert run(*add).code == 0
    nowhere(plain)
    (tmp_path / "root").write_bytes(bytes(32))
    add = ("records", "add-producer", plain, "till", "--key", tmp_path / "till.key")
    assert "the tenant key is another one" in run(*add).err
    kms.unlink()
    assert "does not run: No such file" in run(*add).err


def test_a_key_that_the_command_knows_by_itself(
    run: Run, plain: Path, kms: Path, tmp_path: Path
) -> None:
    command = f'"{kms}" get "tlog/the acme"'
    words = ("--tenant", "acme", "--tenant-key-command", command)
    told = json.loads(run("records", "init", plain, *words, "--json").out)
    assert told["tenant"] == "acme"
    assert (plain / "keys/tenant.key").read_bytes() == b""
    add = ("records", "add-producer", plain, "shop", "--key", tmp_path / "shop.key")
    assert run(*add).code == 0
    nowhere(plain)


@pytest.mark.parametrize(
    ("command", "wrapped", "code", "says"),
    [
        ("KMS random", None, 1, "gives another key each time"),
        ("KMS short", None, 1, "has 31 bytes, a key has 32"),
        ("KMS unwrap", None, 1, "failed with status 9"),
        ("KMS unwrap", b"other", 1, "failed with status 9"),
        ("KMS unwrap", b"wrapped:", 1, "has 0 bytes, a key has 32"),
        ("KMS unwrap", b"x" * (MAX_WRAPPED_SIZE + 1), 1, "longer than 32768 bytes"),
        ("'", None, 2, "No closing quotation"),
        ("KMS 'a\nb'", None, 2, "on one line"),
    ],
)
def test_a_command_that_is_of_no_use_is_not_set_up(
    run: Run, plain: Path, kms: Path, tmp_path: Path, command: str, wrapped: bytes | None,
    code: int, says: str,
) -> None:  # fmt: skip
    words: list[object] = ["--tenant-key-command", command.replace("KMS", f"'{kms}'")]
    if wrapped is not None:
        (tmp_path / "wrapped").write_bytes(wrapped)
        words += ["--wrapped-key", tmp_path / "wrapped"]
    before = sorted(plain.rglob("*"))
    result = run("records", "init", plain, "--tenant", "acme", *words)
    assert (result.code, result.out) == (code, b"")
    assert says in result.err
    assert result.err.count("\n") == 1
    assert sorted(plain.rglob("*")) == before


def test_what_makes_no_sense_together(run: Run, plain: Path, kms: Path, tmp_path: Path) -> None:
    wrapped = ("--wrapped-key", tmp_path / "wrapped")
    result = run("records", "init", plain, "--tenant", "acme", *wrapped)
    assert result.code == 2
    assert "--tenant-key-command" in result.err
    result = run("records", "init", plain, "--tenant", "acme", "--tenant-key-command", "")
    assert result.code == 2
    assert not (plain / "vault").exists()
