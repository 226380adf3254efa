"""What README tells its reader to type of records, as it stands, in one session."""

from __future__ import annotations

import os
import pty
import re
import shlex
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.audit.authority import Station
from tests.cli.conftest import Run
from tests.e2e.processes import ROOT, Terminal

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README[README.index("\n## Records\n") : README.index("\n## What is promised")]


def test_the_commands_run_as_they_stand(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tsa-root.pem").write_bytes(
        (Station(tmp_path / "tsa").directory / "root.pem").read_bytes()
    )
    typed = 0
    master, slave = pty.openpty()
    with ExitStack() as stack:
        keys = stack.enter_context(os.fdopen(master, "w"))
        monkeypatch.setattr("sys.stdin", stack.enter_context(os.fdopen(slave)))
        keys.write("y\n")  # whoever approves is asked
        keys.flush()
        for language, block in re.findall(r"^```(sh|py)\n(.*?)^```$", SECTION, re.M | re.S):
            if language == "py":
                exec(block.replace("127.0.0.1:6962", os.environ["TLOG_SERVER"]), {})
                continue
            for line in block.splitlines():
                _, *words = shlex.split(os.path.expandvars(line))
                if words[0] == "serve":
                    server = stack.enter_context(Terminal(tmp_path).serving(*words[1:]))
                    monkeypatch.setenv("TLOG_SERVER", server.grpc)
                    vkeys = server.ready["logs"][0]["vkeys"]
                    lines = [*(f"log {vkey}" for vkey in vkeys), "quorum none"]
                    (tmp_path / "policy").write_text("".join(f"{each}\n" for each in lines))
                    continue
                done = run(*words)
                assert (line, done.code, done.err) == (line, 0, done.err)
                if words[:2] == ["records", "--subject"]:
                    assert b"request.received" in done.out
                if words[:2] == ["records", "init"]:
                    monkeypatch.setenv("SERVICE_KEY", done.out.decode().split()[-1])
                typed += 1
        assert typed == 18
    assert (tmp_path / "case.zip").exists()
