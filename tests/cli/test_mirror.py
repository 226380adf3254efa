"""The verbs of `tlog mirror`, in this process."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.mirror.support import LOG, mirrored
from tlog.cli.errors import Exit
from tlog.mirror import Mirror
from tlog.notes import VerifierKey
from tlog.witness import LogList, hash_origin

KEYS = [argument for vkey in LOG.vkeys for argument in ("--vkey", str(vkey))]


@pytest.fixture
def m1(run: Run, tmp_path: Path) -> Path:
    made = run("mirror", "init", tmp_path / "m1", "--name", "mirror.example/m1")
    assert made.code == 0
    vkeys = [VerifierKey.parse(line) for line in made.out.decode().splitlines()]
    assert [vkey.name for vkey in vkeys] == ["mirror.example/m1"] * 2
    return tmp_path / "m1"


def fill(directory: Path, size: int) -> None:
    async def upload() -> None:
        async with Mirror.opened(directory) as mirror:
            await mirrored(mirror, 0, size)

    asyncio.run(upload())


def test_init_refuses_what_is_there_and_bad_names(run: Run, m1: Path, tmp_path: Path) -> None:
    again = run("mirror", "init", m1, "--name", "mirror.example/m2")
    assert (again.code, "not empty" in again.err) == (1, True)
    bad = run("mirror", "init", tmp_path / "m2", "--name", "a name", "--json")
    assert bad.code == 1
    assert "name" in json.loads(bad.err)["error"]
    assert not (tmp_path / "m2").exists()
    assert os.stat(m1 / "keys").st_mode & 0o777 == 0o700


def test_add_log(run: Run, m1: Path, tmp_path: Path) -> None:
    added = run("mirror", "add-log", m1, *KEYS, "--url", "http://127.0.0.1:1/x", "--json")
    assert added.code == 0
    assert json.loads(added.out)["hashes"] == [hash_origin(LOG.origin).hex()]
    (log,) = LogList(m1)
    assert (log.origin, log.vkeys, log.url) == (
        LOG.origin,
        tuple(LOG.vkeys),
        "http://127.0.0.1:1/x",
    )
    assert "tlog mirror add-log" in (m1 / "logs").read_text()
    for arguments, code, says in (
        ([m1, *KEYS], Exit.FAILED, "already"),
        ([m1], Exit.USAGE, "--vkey"),
        ([m1, *KEYS, "--url", "grpc://127.0.0.1:1"], Exit.USAGE, "http"),
        ([m1, *KEYS, "--url", "nowhere"], Exit.USAGE, "nowhere"),
        ([tmp_path, *KEYS], Exit.FAILED, "tlog mirror init"),
    ):
        refused = run("mirror", "add-log", *arguments)
        assert (refused.code, says in refused.err) == (code, True), refused.err


def test_restore(run: Run, m1: Path, tmp_path: Path) -> None:
    run("mirror", "add-log", m1, *KEYS)
    target = tmp_path / "mylog"
    early = run("mirror", "restore", f"{m1}/{LOG.origin}", target)
    assert (early.code, "no copy" in early.err) == (1, True)
    fill(m1, 600)
    newest = tmp_path / "newest"
    newest.write_bytes(LOG.note(700))
    ahead = run("mirror", "restore", f"{m1}/{LOG.origin}", target, "--checkpoint", newest)
    assert (ahead.code, "would fork" in ahead.err) == (1, True)
    newest.write_bytes(LOG.note(600))
    restored = run(
        "mirror", "restore", f"{m1}/{LOG.origin}", target, "--checkpoint", newest, "--json"
    )
    assert restored.code == 0
    said = json.loads(restored.out)
    assert (said["tree_size"], said["origin"]) == (600, LOG.origin)
    assert said["root_hash"] == LOG.checkpoint(600).root_hash.hex()
    again = run("mirror", "restore", f"{m1}/{LOG.origin}", target)
    assert (again.code, "exists" in again.err) == (1, True)
    # Without keys it cannot be served, and says so.
    assert run("serve", target, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0").code == 1
    for text in (str(m1), f"{tmp_path}/no/{LOG.origin}", f"{m1}/"):
        unknown = run("mirror", "restore", text, tmp_path / "x")
        assert (unknown.code, "not the directory of a mirror" in unknown.err) == (2, True)


def test_serve_refuses(run: Run, m1: Path, tmp_path: Path) -> None:
    nothing = run("mirror", "serve", tmp_path / "none")
    assert (nothing.code, "tlog mirror init" in nothing.err) == (1, True)
    public = run("mirror", "serve", m1, "--http", "0.0.0.0:0")
    assert (public.code, "loopback" in public.err) == (1, True)
