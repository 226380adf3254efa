"""`tlog audit`: over HTTP, gRPC and from a directory; and what makes it refuse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Run, tlog_command
from tests.support import free_port
from tlog.cli.sources import place_of
from tlog.client import AuditFile
from tlog.log import Log, LogConfig, create_log
from tlog.notes import Algorithm, Signer, VerifierKey
from tlog.serve import Logs, http_server
from tlog.store import RocksStore
from tlog.witness import verify_conflict

ENTRIES = [b"entry %d " % number * 3 for number in range(1000)]


@dataclass(frozen=True, slots=True)
class Mylog:
    """A log in a directory, and its keys."""

    directory: Path
    vkeys: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """The keys as options."""
        return [word for vkey in self.vkeys for word in ("--vkey", vkey)]

    def append(self, entries: list[bytes]) -> None:
        async def append() -> None:
            async with Log.opened(self.directory) as log:
                await log.append_published(entries)

        asyncio.run(append())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Mylog:
    directory = tmp_path_factory.mktemp("audited") / "mylog"
    config = LogConfig(origin="example.com/mylog", name="mylog", checkpoint_interval=0)
    mylog = Mylog(directory, tuple(map(str, create_log(directory, config))))
    mylog.append(ENTRIES)
    return mylog


@pytest.fixture
def mylog(original: Mylog, tmp_path: Path) -> Mylog:
    shutil.copytree(original.directory, tmp_path / "mylog")
    return Mylog(tmp_path / "mylog", original.vkeys)


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The log's URL; its server is a process of its own."""
    with server(directory) as addresses:
        yield addresses["http"]


@contextlib.contextmanager
def server(directory: Path) -> Iterator[dict[str, str]]:
    grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    child = subprocess.Popen(
        [*tlog_command(), "serve", directory, "--grpc", grpc, "--http", http, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline()
        yield {
            "http": f"http://{http}/mylog",
            "grpc": grpc,
            "grpc://": f"grpc://{grpc}/mylog",
            "served": str(directory),
        }
    finally:
        child.kill()
        child.communicate()


@pytest.fixture(scope="module")
def addresses(
    original: Mylog, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """How a copy of the log is reached."""
    served = tmp_path_factory.mktemp("served") / "mylog"
    shutil.copytree(original.directory, served)
    with server(served) as found:
        yield found


def test_a_directory(run: Run, mylog: Mylog) -> None:
    result = run("audit", mylog.directory, *mylog.keys)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(
        f"{mylog.directory}: whole, 1000 entries, 1000 of them new; signed by ".encode()
    )
    mylog.append([b"one", b"more"])
    assert b" 1002 entries, 2 of them new" in run("audit", mylog.directory, *mylog.keys).out
    assert b"1002 of them new" in run("audit", mylog.directory, *mylog.keys, "--full").out


@pytest.mark.parametrize("way", ["http", "grpc", "grpc://"])
def test_a_server(run: Run, original: Mylog, addresses: dict[str, str], way: str) -> None:
    result = run("audit", addresses[way], *original.keys, "--json")
    assert (result.code, result.err) == (0, "")
    said = json.loads(result.out)
    assert (said["ok"], said["tree_size"], said["hashed"]) == (True, 1000, 1000)
    assert said["tiles_compared"] is (way == "http")
    assert (said["origin"], said["previous_size"]) == ("example.com/mylog", None)
    assert len(said["signed_by"]) == 2
    again = json.loads(run("audit", addresses[way], *original.keys, "--json").out)
    assert (again["hashed"], again["previous_size"]) == (0, 1000)


def test_the_directory_of_a_server_is_refused(
    run: Run, original: Mylog, addresses: dict[str, str]
) -> None:
    result = run("audit", addresses["served"], *original.keys)
    assert (result.code, "being served" in result.err) == (1, True)


def test_a_backup_is_only_read(run: Run, mylog: Mylog) -> None:
    before = {
        path: path.read_bytes()
        for path in mylog.directory.rglob("*")
        if path.is_file() and not path.name.startswith("LOG")
    }
    assert run("audit", mylog.directory, *mylog.keys).code == 0
    assert {path: path.read_bytes() for path in before} == before
    # Nor are its keys needed.
    shutil.rmtree(mylog.directory / "keys")
    (mylog.directory / "log.toml").unlink()
    assert run("audit", mylog.directory, *mylog.keys, "--full").code == 0


def test_a_policy(run: Run, mylog: Mylog, tmp_path: Path) -> None:
    witness = Signer.generate("witness.example", Algorithm.ED25519_COSIGNATURE)
    policy = tmp_path / "policy"
    policy.write_text(f"log {mylog.vkeys[0]}\nquorum none\n")
    assert run("audit", mylog.directory, "--policy", policy).code == 0
    policy.write_text(f"log {mylog.vkeys[0]}\nwitness w {witness.vkey}\nquorum w\n")
    result = run("audit", mylog.directory, "--policy", policy)
    assert (result.code, result.out) == (3, b"")
    assert "NOT WHOLE: quorum check failed" in result.err
    policy.write_text("nonsense\n")
    assert run("audit", mylog.directory, "--policy", policy).code == 1


def test_usage(run: Run, mylog: Mylog, tmp_path: Path) -> None:
    assert run("audit", mylog.directory).code == 2
    assert run("audit", *mylog.keys).code == 2
    assert run("audit", mylog.directory, "--policy", tmp_path / "gone").code == 2


def test_nobody_there(run: Run, mylog: Mylog, tmp_path: Path) -> None:
    port = free_port()
    for source in (f"http://127.0.0.1:{port}/mylog", f"127.0.0.1:{port}"):
        result = run("audit", source, *mylog.keys, "--json")
        assert (result.code, json.loads(result.err)["exit_code"]) == (4, 4)
    result = run("audit", tmp_path / "nothing", *mylog.keys)
    assert (result.code, "no log here" in result.err) == (1, True)
    assert run("audit", "https://", *mylog.keys).code == 1


def test_a_rollback_and_a_fork(run: Run, original: Mylog, mylog: Mylog, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    state = ("--state", kept / "state")
    forked = Mylog(tmp_path / "forked", mylog.vkeys)
    shutil.copytree(mylog.directory, forked.directory)
    mylog.append([b"this"])
    forked.append([b"that"])
    longer = Mylog(tmp_path / "longer", mylog.vkeys)
    shutil.copytree(forked.directory, longer.directory)
    longer.append([b"and more"])
    assert run("audit", mylog.directory, *mylog.keys, *state).code == 0
    for log, check, proof in (
        (original, "rollback", "*.heads"),
        (forked, "fork", "*.conflict"),
        (longer, "consistency", "*.conflict"),
    ):
        place = contextlib.nullcontext(str(log.directory))
        with serving(log.directory) if log is longer else place as source:
            result = run("audit", source, *mylog.keys, *state)
        assert (result.code, result.out) == (3, b"")
        assert f"NOT WHOLE: {check} check failed" in result.err
        (evidence,) = kept.glob(proof)
        assert str(evidence) in result.err
        if proof == "*.conflict":
            # Nobody needs the auditor's word.
            keys = [VerifierKey.parse(vkey) for vkey in mylog.vkeys]
            conflict = verify_conflict(evidence.read_bytes(), keys)
            assert conflict.checkpoints()[0].size == 1001
        else:
            assert evidence.read_text().count("example.com/mylog\n") == 2
        evidence.unlink()
    # Without the memory, one side of a split view is a whole log.
    assert run("audit", longer.directory, *mylog.keys).code == 0


def test_evidence_that_cannot_be_kept_does_not_hide_the_fork(
    run: Run, mylog: Mylog, original: Mylog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ("--state", tmp_path / "kept")
    mylog.append([b"this"])
    assert run("audit", mylog.directory, *mylog.keys, *state).code == 0

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = run("audit", original.directory, *mylog.keys, *state)
    assert (result.code, "No space left" in result.err) == (3, True)


def test_one_log_has_one_state_however_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for names in (
        ("http://h/log", "http://h/log/"),
        ("h:1", "grpc://h:1", "grpc://h:1/"),
        (f"{tmp_path}/log", f"{tmp_path}/log/", f"{tmp_path}/other/../log"),
    ):
        assert len({place_of(name) for name in names}) == 1


def test_damage_on_the_disk(run: Run, mylog: Mylog) -> None:
    store = RocksStore.open(mylog.directory)
    key = (2).to_bytes(8, "big")
    bundle = bytearray(store.read_bundle(2, 256))
    bundle[100] ^= 1
    store._families["bundles"][key] = bytes(bundle)
    store.close()
    result = run("audit", mylog.directory, *mylog.keys)
    assert result.code == 3
    assert "in tile/entries/002 does not hash to its leaf in tile/0/002" in result.err


def test_other_keys(run: Run, mylog: Mylog) -> None:
    other = Signer.generate("example.com/mylog", Algorithm.ED25519)
    result = run("audit", mylog.directory, "--vkey", str(other.vkey))
    assert (result.code, "NOT WHOLE: signature" in result.err) == (3, True)


# Saves whenever it can, not every two seconds.
EAGER = "from tlog.client import walk; walk.SAVE_SECONDS = 0; from tlog.cli import main; main()"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_audit_that_is_ended_goes_on(
    run: Run, original: Mylog, tmp_path: Path, how: signal.Signals
) -> None:
    """A server that stops answering half way; the process is ended, and the next one goes on."""
    state = tmp_path / "state"

    async def held() -> int:
        hold = asyncio.Event()
        async with Log.opened(directory) as log:
            encoded = log.reader.encoded_bundle

            def bundle(index: int, width: int) -> bytes:
                if index == 40:
                    hold.set()
                    raise TimeoutError
                return encoded(index, width)

            log.reader.encoded_bundle = bundle  # type: ignore[method-assign]
            async with http_server(Logs([log]), "127.0.0.1:0") as port:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", EAGER, "audit", f"http://127.0.0.1:{port}/mylog"),
                    *(*original.keys, "--state", str(state)),
                    stderr=asyncio.subprocess.PIPE,
                )
                await asyncio.wait_for(hold.wait(), 30)
                if how is signal.SIGKILL:
                    deadline = time.monotonic() + 20
                    while (kept := AuditFile(state).load()) is None or not kept.edge.size:
                        assert time.monotonic() < deadline
                        await asyncio.sleep(0.02)
                child.send_signal(how)
                await asyncio.wait_for(child.communicate(), 30)
                assert child.returncode is not None
                return child.returncode

    directory = tmp_path / "mylog"
    shutil.copytree(original.directory, directory)
    Mylog(directory, original.vkeys).append([b"%d" % index for index in range(14_000)])
    assert asyncio.run(held()) == (130 if how is signal.SIGINT else -signal.SIGKILL)
    progress = AuditFile(state).load()
    assert progress is not None
    assert 0 < progress.edge.size < 15_000
    result = run("audit", directory, *original.keys, "--state", state, "--json")
    assert json.loads(result.out)["hashed"] == 15_000 - progress.edge.size
