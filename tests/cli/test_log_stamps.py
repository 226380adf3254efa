"""`tlog log stamps`, over what a server had stamped by real authorities."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.audit.authority import Station, settings_of
from tests.cli.conftest import Run
from tests.e2e.processes import Terminal
from tlog.client import AsyncClient
from tlog.log import LogConfig, create_log


def told(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


async def metrics(url: str) -> dict[str, float]:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{url}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("tlog_stamp_")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def serve_and_append(directory: Path) -> None:
    """Three checkpoints, stamped by one authority while the other is away."""
    one, two = (Station(directory.parent / name, name=name) for name in ("one", "two"))
    two.away = True
    create_log(directory, LogConfig(origin="example.com/log", name="log", checkpoint_interval=0))
    terminal = Terminal(directory.parent)
    async with one.serving(), two.serving():
        (directory / "timestamps.toml").write_text(settings_of(one, two, interval=0.05))
        with terminal.serving("log") as server:
            vkeys = server.ready["logs"][0]["vkeys"]
            state = directory.parent / "client"
            async with AsyncClient(server.grpc, log="log", vkeys=vkeys, state=state) as client:
                for number in range(3):
                    await client.append(b"%d" % number, wait="published")
                    await stamped(server.http, number + 1)
            read = await metrics(server.http)
            assert read['tlog_stamp_waiting{authority="two",log="log"}'] == 3
            since = 'tlog_stamp_waiting_since_timestamp_seconds{authority="%s",log="log"}'
            assert 0 == read[since % "one"] < read[since % "two"]
            assert read['tlog_stamp_failures_total{authority="one",log="log"}'] == 0
            assert read['tlog_stamp_failures_total{authority="two",log="log"}'] > 0
            assert -30 < read['tlog_stamp_clock_ahead_seconds{authority="one",log="log"}'] < 1
            # Beside a server that runs.
            done = await asyncio.to_thread(terminal.run, "log", "stamps", "log")
            assert done.returncode == 0, done.stderr
            code, said = server.stop()
            assert code == 0
            assert "no time-stamp" in said


async def stamped(url: str, size: int) -> None:
    async with asyncio.timeout(20):
        while True:
            read = await metrics(url)
            if read['tlog_stamp_stamped_size{authority="one",log="log"}'] == size:
                return
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def two_stamped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three entries, each in a checkpoint of its own, stamped by one of two."""
    directory = tmp_path_factory.mktemp("stamped") / "log"
    asyncio.run(serve_and_append(directory))
    return directory


def test_what_is_stamped_and_what_waits(run: Run, two_stamped: Path) -> None:
    result = run("log", "stamps", two_stamped, "--list", "--json")
    assert result.code == 0
    *stamps, one, two = told(result.out)
    assert [(stamp["size"], stamp["authority"], stamp["ok"]) for stamp in stamps] == [
        (size, "one", True) for size in (1, 2, 3)
    ]
    assert all(stamp["accuracy"] == 1.5 for stamp in stamps)
    assert one == {
        "authority": "one",
        "asked": True,
        "stamped": 3,
        "stamped_size": 3,
        "waiting": 0,
        "waiting_since": None,
    }
    assert (two["stamped"], two["waiting"]) == (0, 3)
    assert datetime.fromisoformat(two["waiting_since"]) < datetime.now(UTC)
    text = run("log", "stamps", two_stamped, "--list").out.decode()
    assert f"3 waiting since {two['waiting_since']}" in text
    assert f"size 3  one  {stamps[-1]['not_after']}" in text


def test_the_time_of_an_entry(run: Run, two_stamped: Path) -> None:
    stamps = told(run("log", "stamps", two_stamped, "--list", "--json").out)
    (bound,) = told(run("log", "stamps", two_stamped, "--entry", 1, "--json").out)
    assert (bound["including"], bound["excluding"], bound["authority"]) == (2, 1, "one")
    assert bound["not_after"] == stamps[1]["not_after"]
    assert bound["not_before"] < bound["not_after"]
    text = run("log", "stamps", two_stamped, "--entry", 1).out.decode()
    assert text == (
        f"entry 1  by {bound['not_after']}, says one of size 2; "
        f"after {bound['not_before']}, says the log of size 1\n"
    )
    (first,) = told(run("log", "stamps", two_stamped, "--entry", 0, "--json").out)
    assert (first["including"], first["not_before"], first["excluding"]) == (1, None, None)
    result = run("log", "stamps", two_stamped, "--entry", 3)
    assert result.code == 1
    assert "no stamped checkpoint includes entry 3 yet" in result.err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "answer = CAST(substr(answer, 1, length(answer) - 1) || x'00' AS BLOB)",
            "does not verify",
        ),
        ("answer = (SELECT answer FROM stamps WHERE size = 1)", "Mismatch between messages"),
        ("answer = 7", "does not verify"),
        ("authority = 'three'", "three: taken out of timestamps.toml before certificates"),
    ],
)
def test_a_damaged_stamp_is_named(run: Run, two_stamped: Path, change: str, says: str) -> None:
    with database(two_stamped) as stamps:
        stamps.execute(f"UPDATE stamps SET {change} WHERE size = 2")
        stamps.commit()
        result = run("log", "stamps", two_stamped)
        assert result.code == 3
        assert result.out.startswith(b"size 2  ")
        assert b"NOT VERIFIED" in result.out
        assert says in result.out.decode()
        assert "1 stamps do not verify" in result.err
        if "answer" in change:
            assert run("log", "stamps", two_stamped, "--entry", 1).code == 3


def test_an_authority_that_was_taken_out(run: Run, two_stamped: Path) -> None:
    """Its stamps verify as before, by the certificates that were kept with them."""
    settings = two_stamped / "timestamps.toml"
    before = settings.read_text()
    two, three = (Station(two_stamped.parent / name, name=name) for name in ("two", "three"))
    entry = run("log", "stamps", two_stamped, "--entry", 1).out
    settings.write_text(settings_of(two, three, interval=1))
    try:
        result = run("log", "stamps", two_stamped, "--list", "--json")
        assert result.code == 0, result.err
        *stamps, asked, new, earlier = told(result.out)
        assert [(each["authority"], each["ok"]) for each in stamps] == [("one", True)] * 3
        assert [each["asked"] for each in (asked, new, earlier)] == [True, True, False]
        assert (earlier["authority"], earlier["stamped"]) == ("one", 3)
        text = run("log", "stamps", two_stamped).out.decode()
        assert "one  3 checkpoints stamped, the last of size 3, asked no more\n" in text
        assert run("log", "stamps", two_stamped, "--entry", 1).out == entry
        with database(two_stamped) as stamps_db:
            stamps_db.execute("DROP TABLE authorities")
            stamps_db.execute("PRAGMA user_version = 1")
            stamps_db.commit()
            result = run("log", "stamps", two_stamped)
            assert result.code == 3
            assert "back and start the server once" in result.out.decode()
    finally:
        settings.write_text(before)


def test_a_damaged_checkpoint_is_named(run: Run, two_stamped: Path) -> None:
    with database(two_stamped) as stamps:
        stamps.execute("UPDATE checkpoints SET note = CAST(note || x'00' AS BLOB) WHERE size = 3")
        stamps.commit()
        result = run("log", "stamps", two_stamped)
        assert result.code == 3
        assert result.out.startswith(b"size 3  one  NOT VERIFIED")


def test_keys_of_another_log(run: Run, two_stamped: Path, tmp_path: Path) -> None:
    config = LogConfig(origin="example.com/log", name="log")
    vkey, _ = create_log(tmp_path / "other", config)
    result = run("log", "stamps", two_stamped, "--vkey", vkey)
    assert result.code == 3
    assert b"not signed by a known key" in result.out


def test_a_log_without_stamps(run: Run, tmp_path: Path) -> None:
    create_log(tmp_path / "log", LogConfig(origin="example.com/log", name="log"))
    result = run("log", "stamps", tmp_path / "log")
    assert result.code == 1
    assert "has no timestamps.toml" in result.err
    one, two = (Station(tmp_path / name, name=name) for name in ("one", "two"))
    settings = tmp_path / "log" / "timestamps.toml"
    settings.write_text(settings_of(one, two, interval=1))
    result = run("log", "stamps", tmp_path / "log")
    assert result.code == 1
    assert "has no time-stamps" in result.err
    settings.write_text(settings_of(one, interval=1))
    for verb in (("log", "stamps"), ("serve",)):
        result = run(*verb, tmp_path / "log")
        assert result.code == 1
        assert "name two authorities at least, of different operators" in result.err
    settings.write_text("interval = 0\n")
    for verb in (("log", "stamps"), ("serve",)):
        result = run(*verb, tmp_path / "log")
        assert result.code == 1
        assert "timestamps.toml: interval" in result.err


@contextlib.contextmanager
def database(directory: Path) -> Any:
    """The stamps of a log, put back at the end."""
    path = directory / "stamps.db"
    before = path.read_bytes()
    try:
        with contextlib.closing(sqlite3.connect(path)) as opened:
            yield opened
    finally:
        path.write_bytes(before)
