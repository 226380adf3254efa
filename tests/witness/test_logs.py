"""The list of logs: what its editors refuse, and what a running witness makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.witness.support import NAME, ORIGIN, Clock, SomeLog, signer
from tlog.notes import Algorithm, VerifierKey
from tlog.witness import (
    FreezeReason,
    LogList,
    WitnessError,
    add_log,
    freeze,
    logs,
    rekey,
    remove,
    set_url,
    unfreeze,
)

KEY = SomeLog().signers[0].vkey
NEW = signer(ORIGIN, Algorithm.ED25519, 1).vkey
PQ = signer(ORIGIN, Algorithm.MLDSA44).vkey
SPACED = "an origin  with spaces "


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    logs.create_log_list(tmp_path)
    return tmp_path


def as_lines(directory: Path) -> list[str]:
    return (directory / "logs").read_text().splitlines()


def test_edits(directory: Path) -> None:
    add_log(directory, [KEY, PQ])
    add_log(directory, [KEY], origin=SPACED)
    with (directory / "logs").open("a") as file:
        file.write("\n# the operator's own words\n")
    found = LogList(directory)
    assert [(log.origin, log.vkeys, log.frozen) for log in found] == [
        (ORIGIN, (KEY, PQ), None),
        (SPACED, (KEY,), None),
    ]
    rekey(directory, ORIGIN, [NEW])
    freeze(directory, SPACED)
    found.refresh()
    log, spaced = found
    assert log.vkeys == (NEW,)
    assert spaced.frozen is FreezeReason.OPERATOR
    freeze(directory, SPACED, reason=FreezeReason.CONFLICT)
    freeze(directory, SPACED)
    found.refresh()
    assert [log.frozen for log in found] == [None, FreezeReason.CONFLICT]
    unfreeze(directory, SPACED)
    freeze(directory, SPACED)
    remove(directory, SPACED)
    found.refresh()
    assert [log.origin for log in found] == [ORIGIN]
    assert as_lines(directory)[1:] == [f"log {NEW}", "", "# the operator's own words"]
    assert found.problem is None


def test_edits_that_are_refused(directory: Path) -> None:
    add_log(directory, [KEY])
    before = as_lines(directory)
    witness = signer(NAME, Algorithm.ED25519_COSIGNATURE).vkey
    many = [signer(ORIGIN, Algorithm.ED25519, number).vkey for number in range(2, 19)]
    edits: list[tuple[str, Callable[[], None]]] = [
        ("already", lambda: add_log(directory, [KEY])),
        ("key of a witness", lambda: add_log(directory, [witness])),
        ("more than 16", lambda: add_log(directory, many)),
        ("more than one line", lambda: add_log(directory, [NEW], origin="a\nb")),
        ("more than one line", lambda: add_log(directory, [NEW], origin=f"a\nlog {NEW}")),
        ("control character", lambda: add_log(directory, [NEW], origin="a\tb")),
        ("0 bytes", lambda: add_log(directory, [NEW], origin="")),
        ("256 bytes", lambda: add_log(directory, [NEW], origin="x" * 256)),
        ("not known", lambda: rekey(directory, "elsewhere", [NEW])),
        ("no keys", lambda: rekey(directory, ORIGIN, [])),
        ("not known", lambda: freeze(directory, "elsewhere")),
        ("not frozen", lambda: unfreeze(directory, ORIGIN)),
        ("not known", lambda: remove(directory, "elsewhere")),
    ]
    for expected, edit in edits:
        with pytest.raises(WitnessError, match=expected) as caught:
            edit()
        assert "\n" not in str(caught.value)
        assert as_lines(directory) == before
    # The end of another origin is not that origin.
    add_log(directory, [NEW], origin=f"a {ORIGIN}")
    freeze(directory, f"a {ORIGIN}")
    with pytest.raises(WitnessError, match="not frozen"):
        unfreeze(directory, ORIGIN)


@pytest.mark.parametrize(
    "line",
    [
        b"log",
        b"log ",
        b"log nonsense",
        b"log %s " % str(NEW).encode(),
        b"log %s\r" % str(NEW).encode(),
        b" log %s" % str(NEW).encode(),
        b"log %s" % str(NEW).encode()[:-4],
        b"log %s" % str(KEY).encode(),
        b"log \xff",
        b"frozen " + ORIGIN.encode(),
        b"frozen whim " + ORIGIN.encode(),
        b"frozen operator elsewhere",
        b"frozen operator a\nfrozen conflict a",
        b"frozen operator",
        b"url http://a elsewhere",
        b"url nowhere " + ORIGIN.encode(),
        b"url http://a",
        b"url http://a %s\nurl http://b %s" % (ORIGIN.encode(), ORIGIN.encode()),
        b"thaw " + ORIGIN.encode(),
        b"x" * 100_000,
    ],
)
def test_a_damaged_list_is_reported_and_changes_nothing(directory: Path, line: bytes) -> None:
    add_log(directory, [KEY])
    whole = (directory / "logs").read_bytes()
    clock = Clock()
    found = LogList(directory, clock=clock)
    (directory / "logs").write_bytes(whole + line + b"\n")
    assert found.find("unknown") is None
    assert found.problem is not None
    assert len(found.problem) < 1000
    assert found.find(ORIGIN) is not None
    with pytest.raises(WitnessError):
        LogList(directory)
    with pytest.raises(WitnessError, match="not changed"):
        add_log(directory, [NEW])
    (directory / "logs").write_bytes(whole)
    add_log(directory, [NEW])
    clock.now += 1
    log = found.find(ORIGIN)
    assert log is not None
    assert log.vkeys == (KEY, NEW)
    assert found.problem is None


def test_a_missing_list(directory: Path) -> None:
    add_log(directory, [KEY])
    found = LogList(directory)
    (directory / "logs").unlink()
    assert found.find("unknown") is None
    assert found.problem is not None
    assert found.find(ORIGIN) is not None
    with pytest.raises(WitnessError, match="tlog witness init"):
        add_log(directory, [KEY])
    with pytest.raises(WitnessError, match="tlog witness init"):
        add_log(directory / "nowhere", [KEY])


def test_known_logs_are_looked_up_once_a_second(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_log(directory, [KEY])
    clock = Clock()
    found = LogList(directory, clock=clock)
    looked: list[object] = []
    identity = logs._identity

    def counted(status: os.stat_result) -> tuple[int, int, int]:
        looked.append(status)
        return identity(status)

    monkeypatch.setattr(logs, "_identity", counted)
    for _ in range(10):
        found.find(ORIGIN)
        clock.now += 0.25
    assert len(looked) == 2
    found.find("unknown")
    assert len(looked) == 3


def test_ten_thousand_logs_are_read_again_quickly(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays is not parsed again."""
    vkeys = [VerifierKey(f"log.example/{n}", KEY.algorithm, KEY.public_key) for n in range(10_000)]
    add_log(directory, vkeys)
    found = LogList(directory)
    assert len(found) == 10_000
    parsed: list[bytes] = []
    parse = logs._parse_line

    def counted(line: bytes) -> object:
        parsed.append(line)
        return parse(line)

    monkeypatch.setattr(logs, "_parse_line", counted)
    add_log(directory, [KEY])
    parsed.clear()
    began = time.perf_counter()
    assert found.find(ORIGIN) is not None
    assert time.perf_counter() - began < 1
    assert len(parsed) <= 3


ADD = """
import sys
from pathlib import Path
from tlog.notes import Algorithm, Signer
from tlog.witness import add_log
for number in range(15):
    name = f"log.example/{sys.argv[2]}/{number}"
    add_log(Path(sys.argv[1]), [Signer.generate(name, Algorithm.ED25519).vkey])
"""


def test_editors_in_several_processes(directory: Path) -> None:
    (directory / "logs.new").write_bytes(b"left by a crash")
    found = LogList(directory)
    commands = [[sys.executable, "-c", ADD, str(directory), str(number)] for number in range(3)]
    children = [subprocess.Popen(command) for command in commands]
    while any(child.poll() is None for child in children):
        found.refresh()
        assert found.problem is None
        time.sleep(0.01)
    assert [child.returncode for child in children] == [0, 0, 0]
    found.refresh()
    assert len(found) == 45


def test_urls(directory: Path) -> None:
    add_log(directory, [KEY], url="https://log.example/prefix")
    add_log(directory, [NEW], origin=f"b {ORIGIN}")
    found = LogList(directory, clock=Clock())
    assert [log.url for log in found] == ["https://log.example/prefix", None]
    set_url(directory, ORIGIN, "grpc://127.0.0.1:6962")
    set_url(directory, f"b {ORIGIN}", "http://b")
    found.refresh()
    assert [log.url for log in found] == ["grpc://127.0.0.1:6962", "http://b"]
    rekey(directory, ORIGIN, [NEW])
    found.refresh()
    log = found.find(ORIGIN)
    assert log is not None
    assert (log.url, log.vkeys) == ("grpc://127.0.0.1:6962", (NEW,))
    before = (directory / "logs").read_bytes()
    for url in ("", "nowhere", "http://a b", "http://é", "http://a\nlog x", "http://" + "a" * 2048):
        with pytest.raises(WitnessError, match="not a URL"):
            set_url(directory, ORIGIN, url)
    with pytest.raises(WitnessError, match="not known"):
        set_url(directory, "elsewhere", "http://a")
    assert (directory / "logs").read_bytes() == before
    remove(directory, ORIGIN)
    add_log(directory, [KEY])
    found.refresh()
    log = found.find(ORIGIN)
    assert log is not None
    assert log.url is None


def test_a_conflict_freezes_a_log_though_the_list_cannot_be_written(directory: Path) -> None:
    add_log(directory, [KEY])
    whole = (directory / "logs").read_bytes()
    clock = Clock()
    found = LogList(directory, clock=clock)
    (directory / "logs").write_bytes(whole + b"nonsense\n")
    with pytest.raises(WitnessError, match="not changed"):
        found.freeze(ORIGIN)
    for _ in range(3):
        assert [log.frozen for log in (found.find(ORIGIN), *found) if log] == [
            FreezeReason.CONFLICT
        ] * 2
        clock.now += 10
    # Mended, it does not thaw by itself; and once it is written down, `unfreeze` decides.
    (directory / "logs").write_bytes(whole)
    clock.now += 10
    log = found.find(ORIGIN)
    assert log is not None
    assert log.frozen is FreezeReason.CONFLICT
    found.freeze(ORIGIN)
    unfreeze(directory, ORIGIN)
    clock.now += 10
    log = found.find(ORIGIN)
    assert log is not None
    assert log.frozen is None
