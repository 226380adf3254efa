"""The command, run in this process; and a server for the verbs that need one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from tests.support import running_server
from tlog.cli import main
from tlog.log import LogConfig, create_log


@dataclass(frozen=True, slots=True)
class Result:
    """What a command said and how it ended."""

    code: int
    out: bytes
    err: str


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No state and no settings but the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in (
        "SERVER",
        "VKEY",
        "LOG",
        "GRPC",
        "HTTP",
        "LOGS",
        "PASSPHRASE",
        "PASSPHRASE_FILE",
        "POLICY",
        "MAX_AGE",
        "SERVICE_KEY",
        "PURPOSE",
    ):
        monkeypatch.delenv(f"TLOG_{name}", raising=False)
    yield
    structlog.reset_defaults()  # a verb has made it write to what was standard error then


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """`run("verb", …)` as if typed."""

    def run(*args: str | Path | int) -> Result:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        out, err = capfdbinary.readouterr()
        return Result(int(ended.value.code or 0), out, err.decode())

    return run


@dataclass(frozen=True, slots=True)
class Served:
    """A log that is being served."""

    target: str
    directory: Path
    vkeys: tuple[str, str]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests of a worker: they must not expect an empty log."""
    directory = tmp_path_factory.mktemp("served") / "audit"
    config = LogConfig(origin="example.com/audit", name="audit", checkpoint_interval=0.05)
    first, second = map(str, create_log(directory, config))
    with running_server(directory) as server:
        yield Served(server.target, directory, (first, second))


@pytest.fixture
def remote(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The served log, as the environment of the command says."""
    monkeypatch.setenv("TLOG_SERVER", served.target)
    monkeypatch.setenv("TLOG_VKEY", " ".join(served.vkeys))
    return served


def tlog_command() -> list[str]:
    """The command as a process of its own."""
    return [sys.executable, "-m", "tlog.cli"]
