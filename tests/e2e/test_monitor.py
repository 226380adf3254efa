"""`tlog monitor` as a process that is killed, again and again, and forgets nothing."""

from __future__ import annotations

import random
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.http_log import HttpLog, Receiver, wait_for
from tests.client.tiled import KEYS, numbered
from tests.e2e.processes import Terminal, ended

ENTRIES = numbered(6000)
ARGS = ("--interval", "0.1", "--match", r"entry \d*00$")


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.fixture
def served() -> Iterator[HttpLog]:
    with HttpLog(ENTRIES[:300]) as log:
        yield log


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def command(served: HttpLog, receiver: Receiver, *more: str) -> list[str]:
    vkeys = [part for key in KEYS for part in ("--vkey", str(key))]
    return ["monitor", served.url, *vkeys, *ARGS, "--webhook", receiver.url, *more]


def test_kill_9_loses_no_match_and_no_alarm(
    terminal: Terminal, served: HttpLog, receiver: Receiver
) -> None:
    chance = random.Random(9)
    # Each life sees a little more of the log, and is killed in the middle of telling it; the hook
    # refuses now and then, so that what is told is in all states between found and delivered.
    for life in range(4):
        size = 300 + life * 1200
        served.show(ENTRIES[:size])
        receiver.refuse = chance.randrange(2)
        told = len(receiver.events)
        with ended(terminal.start(*command(served, receiver))) as child:
            wait_for(lambda: len(receiver.events) > told)  # noqa: B023 -- it is called here
            time.sleep(chance.random() * 0.05)
            child.send_signal(signal.SIGKILL)
    served.show(ENTRIES)
    every = set(range(100, 6000, 100))
    with ended(terminal.start(*command(served, receiver))) as child:
        wait_for(lambda: receiver.indices() == every)
        # The log is forked while nobody is told: the monitor dies with an alarm on its hands.
        refused = receiver.refused
        receiver.refuse = 10**9
        served.show([b"forged", *ENTRIES[1:]])
        wait_for(lambda: receiver.refused > refused)
        child.send_signal(signal.SIGKILL)
    assert receiver.alarms() == []
    # The log behaves again before anybody looks: the alarm and its evidence are told all the same.
    served.show(ENTRIES)
    receiver.refuse = 0
    with ended(terminal.start(*command(served, receiver))) as child:
        wait_for(lambda: receiver.alarms() == ["fork", "-fork"])
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=20)
        assert child.returncode == 0, err
    (alarm,) = [event for event in receiver.events if event["event"] == "alarm"]
    assert len(alarm["evidence"]) == 2
    ids = [event["id"] for event in receiver.events]
    assert len(set(ids)) == len(every) + 2
    # At least once is not many times: each life repeats at most what it had read in one go.
    assert len(ids) < 3 * len(set(ids))


def test_metrics(terminal: Terminal, served: HttpLog, receiver: Receiver) -> None:
    with ended(
        terminal.start(*command(served, receiver, "--metrics", "127.0.0.1:0", "--stale-after", "9"))
    ) as child:
        assert child.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/metrics", child.stderr.readline().decode())
        assert found is not None

        def scrape() -> dict[str, float]:
            text = urllib.request.urlopen(found[0], timeout=5).read().decode()
            lines = [line for line in text.splitlines() if not line.startswith("#")]
            return {
                re.sub(rf',?log="{served.url}",?', "", name).removesuffix("{}"): float(value)
                for name, value in (line.rsplit(" ", 1) for line in lines)
            }

        wait_for(lambda: scrape()["tlog_monitor_entries_read"] == 300)
        now = scrape()
        assert now["tlog_monitor_up"] == 1
        assert now["tlog_monitor_head_size"] == 300
        assert now['tlog_monitor_matches_total{rule="entry \\\\d*00$"}'] == 2
        assert abs(now["tlog_monitor_checked_timestamp_seconds"] - time.time()) < 10
        assert abs(now["tlog_monitor_head_timestamp_seconds"] - time.time()) < 60
        assert now['tlog_monitor_alarm{kind="rollback"}'] == 0
        served.show(ENTRIES[:299])
        wait_for(lambda: scrape()['tlog_monitor_alarm{kind="rollback"}'] == 1)
        receiver.refuse = 10**9
        served.show(ENTRIES[:301])
        wait_for(lambda: scrape()["tlog_monitor_untold"] == 1)
        failed = f'tlog_monitor_failed_deliveries{{sink="webhook {receiver.url}"}}'
        wait_for(lambda: scrape()[failed] >= 1)
        served.status = 500
        wait_for(lambda: scrape()["tlog_monitor_up"] == 0)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
