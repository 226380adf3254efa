"""Alerts: which there are, and that each arrives, whoever is away or killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.audit.producer import SHOP, access, received, signed
from tests.audit.tenant import create, opened, registration
from tests.client.http_log import Receiver
from tlog.audit import Draft, alerter
from tlog.audit.alert_store import FILE_NAME, AlertStore
from tlog.audit.alerter import Alerter
from tlog.audit.alerts import AlertSink, alerts_of
from tlog.audit.cases import read_cases
from tlog.audit.deadlines import Terms, find_deadlines
from tlog.audit.docket import Standing, is_open
from tlog.audit.errors import AlertError
from tlog.audit.records import Records
from tlog.cli import hooks
from tlog.cli.hooks import Alerts, Command, Webhook

from tests.audit.casework import happened  # isort: skip

START = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Taker:
    """Takes alerts, refuses them, or never answers."""

    name = "taker"

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.refuse: Callable[[dict[str, Any]], bool] = lambda _: False
        self.error: Exception = AlertError("not now")
        self.stuck = asyncio.Event()
        self.stuck.set()
        self.at_once = self.most = 0

    async def send(self, event: bytes) -> None:
        fields = json.loads(event)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.stuck.wait()
        finally:
            self.at_once -= 1
        if self.refuse(fields):
            self.refused.append(fields["id"])
            raise self.error
        self.told.append(fields)

    def stages(self) -> list[tuple[str, str, str]]:
        return sorted((e["request_id"], e["duty"], e["stage"]) for e in self.told)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerter, "PAUSE", 0.001)
    monkeypatch.setattr(alerter, "MAX_PAUSE", 0.01)


@contextlib.asynccontextmanager
async def tenant(directory: Path) -> AsyncIterator[tuple[Records, Clock]]:
    clock = Clock()
    create(directory)
    async with opened(directory, clock=clock) as records:
        await records.record(registration(SHOP))
        yield records, clock


@contextlib.asynccontextmanager
async def telling(
    directory: Path, records: Records, *sinks: AlertSink, warn: Sequence[int] = (10, 3)
) -> AsyncIterator[None]:
    store = AlertStore(directory)
    try:
        async with Alerter(records, store, sinks, warn=warn, look=0.002).running():
            yield
    finally:
        store.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def quiet(records: Records) -> None:
    """As long as several looks take."""
    await records.docket.catch_up()
    await asyncio.sleep(0.05)


def opt_out(request: str, at: datetime) -> Draft:
    """One deadline: 15 business days, here by March 23."""
    public = {"request_id": request, "request_type": "opt_out_sale_share", "channel": "email"}
    return received(public=public, occurred_at=at)


async def test_each_stage_is_told_once(tmp_path: Path) -> None:
    taker = Taker()
    async with tenant(tmp_path) as (records, clock):
        await records.record(opt_out("R-1", START))
        async with telling(tmp_path, records, taker):
            expected: list[tuple[str, str, str]] = []
            for days, stage in ((0, ""), (11, "10 days before"), (12, ""), (18, "3 days before"),
                                (21, ""), (22, "late"), (40, "")):  # fmt: skip
                clock.now = START + timedelta(days=days)
                expected += [("R-1", "answer", stage)] if stage else []
                await until(lambda: len(taker.told) >= len(expected))  # noqa: B023
                await quiet(records)
                assert taker.stages() == sorted(expected)
        (first, *_) = taker.told
        assert (
            first.items()
            >= {
                "event": "deadline",
                "tenant": "acme",
                "log": "records",
                "request_type": "opt_out_sale_share",
                "due": "2026-03-23",
                "days_left": 10,
                "received": "2026-03-02",
                "entry": 1,
            }.items()
        )
        assert len({each["id"] for each in taker.told}) == 3
        assert "alice" not in json.dumps(taker.told)
        # Over a restart, too.
        async with telling(tmp_path, records, taker):
            await quiet(records)
        assert len(taker.told) == 3


async def test_what_is_answered_or_extended_in_time(tmp_path: Path) -> None:
    taker = Taker()
    async with tenant(tmp_path) as (records, clock):
        await records.record(opt_out("R-1", START))
        public = {"request_id": "R-2", "request_type": "delete", "channel": "email"}
        await records.record(received(public=public, occurred_at=START))
        acknowledged = Draft("request.acknowledged", {"request_id": "R-2"}, {}, occurred_at=START)
        await records.record(acknowledged)
        clock.now = START + timedelta(days=19)
        taker.refuse = lambda alert: alert["request_id"] == "R-1"
        async with telling(tmp_path, records, taker):
            await until(lambda: taker.refused)
            done = Draft("optout.applied", {"request_id": "R-1"}, {}, [{"id": "a"}],
                         occurred_at=clock.now)  # fmt: skip
            await records.record(done)
            await quiet(records)
            taker.refuse = lambda _: False
            clock.now = START + timedelta(days=43)
            await until(lambda: taker.told)
            more = {"reason": "much", "extended_until": "2026-05-20T12:00:00Z"}
            extended = Draft("request.extended", {"request_id": "R-2", **more}, {},
                             occurred_at=clock.now)  # fmt: skip
            await records.record(extended)
            await quiet(records)
            clock.now = START + timedelta(days=77)
            await until(lambda: len(taker.told) == 2)
            await quiet(records)
    assert taker.stages() == [("R-2", "answer", "3 days before")] * 2
    assert [each["due"] for each in taker.told] == ["2026-04-16", "2026-05-20"]
    assert len({each["id"] for each in taker.told}) == 2


async def test_a_sink_that_fails_is_tried_again_and_holds_up_no_other(tmp_path: Path) -> None:
    bad, good = Taker(), Taker()
    bad.name, bad.refuse = "bad", lambda _: True
    async with tenant(tmp_path) as (records, clock):
        for number in range(12):
            await records.record(opt_out(f"R-{number:02}", START))
        clock.now = START + timedelta(days=30)
        async with telling(tmp_path, records, bad, good):
            await until(lambda: len(good.told) == 12)
            # None is told before all others were tried.
            await until(lambda: len(set(bad.refused)) == 12)
            bad.refuse = lambda _: False
            await until(lambda: len(bad.told) == 12)
    assert bad.stages() == good.stages()


@pytest.mark.parametrize("error", [OSError(28, "no space"), KeyError("alice"), RuntimeError()])
async def test_a_sink_that_fails_as_nobody_foresaw(tmp_path: Path, error: Exception) -> None:
    taker = Taker()
    taker.error, taker.refuse = error, lambda _: True
    async with tenant(tmp_path) as (records, clock):
        for number in range(12):
            await records.record(opt_out(f"R-{number:02}", START))
        clock.now = START + timedelta(days=30)
        with capture_logs() as said:
            async with telling(tmp_path, records, taker):
                await until(lambda: len(taker.refused) > 4 * alerter.AT_ONCE)
                taker.refuse = lambda _: False
                await until(lambda: len(taker.told) == 12)
    assert {(line["event"], line["log_level"]) for line in said} == {
        ("an alert was not told", "error")
    }
    assert all(line["exc_info"] is error for line in said)


async def test_a_sink_that_never_answers_keeps_no_record_from_being_made(tmp_path: Path) -> None:
    taker = Taker()
    taker.stuck.clear()
    async with tenant(tmp_path) as (records, clock):
        for number in range(12):
            await records.record(opt_out(f"R-{number:02}", START))
        clock.now = START + timedelta(days=30)
        async with telling(tmp_path, records, taker):
            await until(lambda: taker.at_once == alerter.AT_ONCE)
            for seq in range(1, 6):
                async with asyncio.timeout(5):
                    await records.accept([signed(access(occurred_at=clock.now), seq)])
            assert taker.most == alerter.AT_ONCE
        assert taker.at_once == 0  # nobody is left behind
        taker.stuck.set()
        async with telling(tmp_path, records, taker):
            await until(lambda: len(taker.told) == 12)
            await quiet(records)
    assert (len(taker.told), taker.most) == (12, alerter.AT_ONCE)


async def test_a_kill_between_the_sending_and_the_writing_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taker = Taker()
    async with tenant(tmp_path) as (records, clock):
        await records.record(opt_out("R-1", START))
        clock.now = START + timedelta(days=30)
        with monkeypatch.context() as patch:
            lost = AlertError("the disk is full")

            def fail(*_: object) -> None:
                raise lost

            patch.setattr(AlertStore, "put", fail)
            async with telling(tmp_path, records, taker):
                await until(lambda: taker.told)
        before = len(taker.told)
        async with telling(tmp_path, records, taker):
            await until(lambda: len(taker.told) == before + 1)
            await quiet(records)
        async with telling(tmp_path, records, taker):
            await quiet(records)
    assert len(taker.told) == before + 1
    assert len({each["id"] for each in taker.told}) == 1


@pytest.mark.parametrize("error", [AlertError("no"), OSError(5, "no"), ValueError("no")])
async def test_deadlines_that_cannot_be_reckoned_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    taker = Taker()
    async with tenant(tmp_path) as (records, clock):
        await records.record(opt_out("R-1", START))
        clock.now = START + timedelta(days=30)
        with monkeypatch.context() as patch:

            async def fail(*_: object) -> int:
                raise error

            patch.setattr(type(records.docket), "standings", fail)
            async with telling(tmp_path, records, taker):
                await quiet(records)
                patch.undo()
                await until(lambda: taker.told)


# ---- real ways ----


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


async def test_a_webhook_and_a_command(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = tmp_path / "got"
    script = f"import sys\nwith open({str(got)!r}, 'a') as f: f.write(sys.stdin.read())"
    webhook = Webhook(receiver.url + "/a?secret")
    receiver.refuse = 2
    async with tenant(tmp_path) as (records, clock):
        await records.record(opt_out("R-1", START))
        clock.now = START + timedelta(days=30)
        ways = (Alerts(webhook), Alerts(Command([sys.executable, "-c", script])))
        async with telling(tmp_path, records, *ways):
            await until(lambda: receiver.events and got.exists() and got.read_text())
            await quiet(records)
    await webhook.aclose()
    (line,) = got.read_text().splitlines()
    assert receiver.events == [json.loads(line)]
    assert receiver.refused == 2
    assert (receiver.events[0]["stage"], receiver.events[0]["request_id"]) == ("late", "R-1")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["false"], "command false ended with 1"),
        (["/nowhere/hook"], "cannot be run: No such file"),
        (["sleep", "60"], "took over 0.1 s"),
    ],
)
async def test_a_command_that_fails(
    monkeypatch: pytest.MonkeyPatch, command: list[str], said: str
) -> None:
    monkeypatch.setattr(hooks, "COMMAND_SECONDS", 0.1)
    with pytest.raises(AlertError, match=said):
        await Alerts(Command(command)).send(b"{}")


async def test_a_command_that_finds_no_room_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = tmp_path / "got"
    script = f"import sys\nwith open({str(got)!r}, 'a') as f: f.write(sys.stdin.read())"
    command = Alerts(Command([sys.executable, "-c", script]))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(AlertError, match="cannot be run: No such file"):
        await command.send(b"{}")
    async with tenant(tmp_path) as (records, clock):
        for number in range(alerter.AT_ONCE + 2):
            await records.record(opt_out(f"R-{number}", START))
        clock.now = START + timedelta(days=30)
        with capture_logs() as said:
            async with telling(tmp_path, records, command):
                await until(lambda: len(said) > 2 * alerter.AT_ONCE)
                monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
                await until(
                    lambda: (
                        got.exists() and len(got.read_text().splitlines()) == alerter.AT_ONCE + 2
                    )
                )


async def test_a_webhook_that_is_away() -> None:
    way = Webhook("http://127.0.0.1:1/secret")
    with pytest.raises(AlertError, match="webhook http://127.0.0.1:1 ") as raised:
        await Alerts(way).send(b"{}")
    assert "secret" not in str(raised.value)
    await way.aclose()


# ---- pure ----


def test_the_stage_is_the_nearest_one() -> None:
    claims = {"request_type": "opt_out_sale_share", "channel": "email"}
    (case,) = read_cases([happened(0, "request.received", START, claims)])
    for days in range(60):
        now = START + timedelta(days=days)
        found = find_deadlines(case, Terms(), now=now)
        standing = Standing(case, START.date(), tuple(filter(is_open, found)))
        alerts = list(alerts_of([standing], tenant="acme", log="l", warn=[1, 10, 3, 3, 0]))
        left = 21 - days
        stage = "late" if left < 0 else next(
            (f"{each} days before" for each in (0, 1, 3, 10) if left <= each), ""
        )  # fmt: skip
        assert [alert.fields["stage"] for alert in alerts] == ([stage] if stage else [])


# ---- the database ----


def test_what_was_told_stays_so(tmp_path: Path) -> None:
    store = AlertStore(tmp_path)
    store.put("a", "1")
    store.put("a", "1")
    store.put("b", "2")
    store.close()
    again = AlertStore(tmp_path)
    assert (again.told("a"), again.told("b"), again.told("c")) == ({"1"}, {"2"}, set())
    again.close()


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"x" * 5000)
    with pytest.raises(AlertError, match=r"alerts\.db: file is not a database"):
        AlertStore(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(AlertError, match="is of version 7, this reads 1"):
        AlertStore(tmp_path)
