"""A terminal for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.processes import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """An empty directory to run commands in."""
    return Terminal(tmp_path)


@pytest.fixture
def mylog(terminal: Terminal) -> Path:
    """A log made by `tlog init`."""
    done = terminal.run("init", "mylog", "--origin", "example.com/mylog", "--interval", "0.1")
    assert done.returncode == 0, done.stderr
    return terminal.directory / "mylog"
