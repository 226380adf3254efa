"""`tlog fsck`: whole logs pass, damage is named, and nothing ends in a traceback."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Served, tlog_command
from tlog.log import Log, LogConfig, create_log

ENTRIES = [b"entry %d " % number * 20 for number in range(300)]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 300 entries that is not being served."""
    directory = tmp_path_factory.mktemp("fsck") / "mylog"
    create_log(directory, LogConfig(origin="example.com/mylog", name="mylog"))

    async def fill() -> None:
        async with Log.opened(directory) as log:
            await log.append_published(ENTRIES)

    asyncio.run(fill())
    return directory


@pytest.fixture
def mylog(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(original, tmp_path / "mylog")
    return tmp_path / "mylog"


def test_whole(run: Run, mylog: Path) -> None:
    result = run("fsck", mylog)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"{mylog}: whole, 300 entries\n".encode()


def test_json(run: Run, mylog: Path) -> None:
    said = json.loads(run("fsck", "--json", mylog).out)
    assert (said["ok"], said["tree_size"], said["problems"]) == (True, 300, [])
    assert len(bytes.fromhex(said["root_hash"])) == 32


def test_several_logs_are_all_told(run: Run, mylog: Path, tmp_path: Path) -> None:
    shutil.copytree(mylog, tmp_path / "bad")
    (tmp_path / "bad" / "HEAD").write_bytes(b"nonsense")
    result = run("fsck", mylog, tmp_path / "bad", "--json")
    assert result.code == 3
    assert [json.loads(line)["ok"] for line in result.out.splitlines()] == [True, False]
    assert "1 of 2" in result.err


def test_a_flipped_byte_in_what_is_stored_is_found(original: Path, tmp_path: Path) -> None:
    stored = [original / "HEAD", *original.glob("db/[0-9]*.sst")]
    assert len(stored) > 4
    for file in stored:
        copy = tmp_path / file.name
        shutil.copytree(original, copy)
        damaged = bytearray(file.read_bytes())
        # Entries of a bundle that is full now are still in the `tail`, where nobody reads them.
        position = max(40, damaged.rfind(b"entry 299 "))
        damaged[position] ^= 0x10
        (copy / file.relative_to(original)).write_bytes(damaged)
        # A process of its own: blocks of a copied file are found in the cache of the original.
        done = subprocess.run([*tlog_command(), "fsck", copy], capture_output=True, check=False)
        assert done.returncode in {1, 3}, f"{file.name} at {position}: {done.stdout!r}"
        assert b"Traceback" not in done.stderr
        assert str(copy).encode() in done.stdout + done.stderr


def test_another_key_finds_another_s_log(run: Run, mylog: Path, served: Served) -> None:
    result = run("fsck", mylog, "--vkey", served.vkeys[0])
    assert result.code == 3


def test_sealed_keys_are_not_needed_by_who_has_the_vkey(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = tmp_path / "sealed"
    config = LogConfig(origin="example.com/sealed", name="sealed")
    vkey = str(create_log(sealed, config, passphrase=b"secret")[0])

    async def start() -> None:
        async with Log.opened(sealed, passphrase=b"secret"):
            pass

    asyncio.run(start())
    result = run("fsck", sealed)
    assert result.code == 1
    assert "TLOG_PASSPHRASE" in result.err
    monkeypatch.setenv("TLOG_PASSPHRASE", "wrong")
    assert "wrong passphrase" in run("fsck", sealed).err
    assert run("fsck", sealed, "--vkey", vkey).code == 0
    monkeypatch.setenv("TLOG_PASSPHRASE", "secret")
    assert run("fsck", sealed).code == 0


def test_a_log_that_is_served_is_refused(run: Run, served: Served) -> None:
    result = run("fsck", served.directory)
    assert (result.code, result.out) == (1, b"")
    assert "another" in result.err


def test_no_log(run: Run, tmp_path: Path) -> None:
    result = run("fsck", tmp_path, "--json")
    assert result.code == 1
    assert "tlog init" in json.loads(result.err)["error"]
