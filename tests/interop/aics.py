"""aics-tlog, a verifier that others wrote."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tools.peers import program


def aics(*arguments: str | Path | int) -> tuple[int, Any]:
    """Run aics-tlog; its exit code and the JSON it printed."""
    done = subprocess.run(
        [program("aics-tlog"), *map(str, arguments)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)
