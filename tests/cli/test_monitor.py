"""`tlog monitor`: what it is told, what it says, and where that goes."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.client.http_log import HttpLog, Receiver, signed
from tests.client.tiled import KEYS, numbered
from tests.e2e.processes import ROOT
from tests.notes.keyring import LOG_ED, LOG_PQ, W_ED
from tlog.cli import hooks
from tlog.cli.monitoring import read_settings
from tlog.client import Rule
from tlog.client import monitor as monitoring

ENTRIES = [b'{"n": %d, "actor": {"role": "%s"}}' % (n, (b"user", b"admin")[n % 7 == 0])
           for n in range(300)]  # fmt: skip
ADMINS = set(range(0, 300, 7))
VKEYS = [part for key in KEYS for part in ("--vkey", str(key))]


@pytest.fixture
def served() -> Iterator[HttpLog]:
    with HttpLog(ENTRIES) as log:
        yield log


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlog.client.walk.PAUSES", (0.01,))
    monkeypatch.setattr(monitoring, "FIRST_PAUSE", 0.01)


def once(run: Run, *args: str | Path) -> Any:
    return run("monitor", "--once", *args)


def test_what_is_found_is_printed_and_posted(run: Run, served: HttpLog, receiver: Receiver) -> None:
    result = once(
        run, served.url, *VKEYS, "--where", "actor.role=admin", "--webhook", receiver.url + "/x?y"
    )
    assert (result.code, len(result.out.splitlines())) == (0, len(ADMINS))
    first = result.out.decode().splitlines()[0]
    assert first == f"{served.url}: actor.role=admin: entry 0: {ENTRIES[0].decode()}"
    assert "300 entries, no alarm" in result.err
    assert receiver.indices("actor.role=admin") == ADMINS
    assert len(receiver.events) == len(ADMINS)
    again = once(run, served.url, *VKEYS, "--where", "actor.role=admin", "--json")
    assert (again.code, again.out, again.err) == (0, b"", "")


def test_json_lines_are_the_events_that_are_posted(
    run: Run, served: HttpLog, receiver: Receiver
) -> None:
    result = once(
        run, served.url, *VKEYS, "--match", '"n": 28[,}]', "--webhook", receiver.url, "--json"
    )
    assert [json.loads(line) for line in result.out.splitlines()] == receiver.events
    (event,) = receiver.events
    assert event["index"] == 28
    assert event["entry"] == ENTRIES[28].decode()


def test_an_alarm_is_exit_code_3_and_stays_so(
    run: Run, served: HttpLog, receiver: Receiver
) -> None:
    hook = ("--webhook", receiver.url)
    assert once(run, served.url, *VKEYS, *hook).code == 0
    served.show(ENTRIES[:10])
    for printed in (1, 0):
        result = once(run, served.url, *VKEYS, *hook)
        assert result.code == 3
        assert len(result.out.splitlines()) == printed
        assert f"alarms stand: {served.url}: rollback" in result.err
    assert receiver.alarms() == ["rollback"]
    assert [len(event["evidence"]) for event in receiver.events] == [2]
    served.show(ENTRIES)
    result = once(run, served.url, *VKEYS, *hook)
    assert (result.code, receiver.alarms()) == (0, ["rollback", "-rollback"])
    assert b"cleared: rollback" in result.out


def test_a_command_gets_each_event(run: Run, served: HttpLog, tmp_path: Path) -> None:
    script = tmp_path / "a hook.py"
    script.write_text(
        "import sys, pathlib\n"
        f"with open({str(tmp_path / 'got')!r}, 'a') as file: file.write(sys.stdin.read())\n"
        "print('the hook speaks')\n"
    )
    command = f"{sys.executable} '{script}'"
    result = once(run, served.url, *VKEYS, "--match", '"n": 28[,}]', "--command", command, "--json")
    assert result.code == 0
    (line,) = (tmp_path / "got").read_text().splitlines()
    assert json.loads(line) == json.loads(result.out)
    assert "the hook speaks" in result.err  # and not among the events


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("false", "command false ended with 1"),
        ("/nowhere/hook", "cannot be run: No such file"),
        ("sleep 60", "took over 0.2 s"),
    ],
)
def test_a_command_that_fails(
    run: Run, served: HttpLog, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    if command.startswith("sleep"):
        monkeypatch.setattr(hooks, "COMMAND_SECONDS", 0.2)
    started = time.monotonic()
    result = once(run, served.url, *VKEYS, "--match", '"n": 28[,}]', "--command", command)
    assert result.code == 1
    assert said in result.err.splitlines()[-1]
    assert time.monotonic() - started < 10
    # Nothing was lost by it.
    assert b"entry 28" in once(run, served.url, *VKEYS, "--match", '"n": 28[,}]').out


def test_a_webhook_that_refuses_is_asked_again(
    run: Run, served: HttpLog, receiver: Receiver
) -> None:
    receiver.refuse = 2
    args = (served.url, *VKEYS, "--match", '"n": 28[,}]', "--webhook", f"{receiver.url}/secret")
    assert once(run, *args).code == 0
    assert (len(receiver.events), receiver.refused) == (1, 2)


def test_the_webhooks_secret_is_not_said(run: Run, served: HttpLog, receiver: Receiver) -> None:
    receiver.refuse = 99
    hook = ("--match", '"n": 28[,}]', "--webhook")
    for url in (f"{receiver.url}/secret?secret", "http://127.0.0.1:1/secret"):
        result = once(run, served.url, *VKEYS, *hook, url)
        assert result.code == 1
        assert "webhook http://127.0.0.1:" in result.err
        assert "secret" not in result.err


def test_a_file_of_logs_and_rules(run: Run, receiver: Receiver, tmp_path: Path) -> None:
    with HttpLog(ENTRIES) as one, HttpLog(numbered(20)) as two:
        (tmp_path / "policy").write_text(
            f"log {LOG_ED.vkey}\nlog {LOG_PQ.vkey}\nwitness w {W_ED.vkey}\nquorum w\n"
        )
        config = tmp_path / "monitor.toml"
        config.write_text(
            f"""
            interval = 5
            state = "state"

            [alarms]
            webhook = "{receiver.url}"

            [[log]]
            name = "one"
            source = "{one.url}"
            policy = "policy"

            [[log]]
            name = "two"
            source = "{two.url}"
            vkeys = {json.dumps(list(map(str, KEYS)))}

            [[rule]]
            name = "admins"
            path = "actor.role"
            equals = "admin"
            webhook = "{receiver.url}"

            [[rule]]
            name = "sevens"
            regex = "7$"
            logs = ["two"]
            """
        )
        one.show(ENTRIES, note=signed(ENTRIES, witnesses=[W_ED]))
        result = once(run, "--config", config)
        assert result.code == 0, result.err
        assert receiver.indices("admins") == ADMINS
        assert [line for line in result.out.decode().splitlines() if ": sevens: " in line] == [
            "two: sevens: entry 7: entry 7",
            "two: sevens: entry 17: entry 17",
        ]
        assert len(list((tmp_path / "state").glob("*.json"))) == 2
        one.show(ENTRIES)
        assert once(run, "--config", config).code == 3
        assert receiver.alarms() == ["quorum"]


def test_the_file_in_the_readme_is_understood(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "monitor.toml").write_text(readme.split("```toml\n")[1].split("```")[0])
    settings = read_settings(tmp_path / "monitor.toml", {}, [])
    (log,), (rule,) = settings.log, settings.rule
    assert log.policy == tmp_path / "payments.policy"
    assert (rule.path, rule.equals, rule.command) == ("actor.role", "admin", ("./page", "me"))
    assert Rule.parse(rule.name, path=rule.path, equals=rule.equals)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("interval = 0", "interval: Input should be greater than or equal to 0.1"),
        ("nonsense = 1", "nonsense: Extra inputs are not permitted"),
        ("interval = ", "Invalid value"),
        ("[[log]]\nname='x'", "log.0.source: Field required"),
        ("[[log]]\nsource='http://x'", "a policy or vkeys are needed"),
        ("[[log]]\nsource='ftp://x'\nvkeys=['{key}']", "is not an address"),
        ("[[log]]\nsource='http://x'\nvkeys=['x']", "not a verifier key"),
        ("[[log]]\nsource='http://x'\n[[log]]\nsource='http://x'", "two logs are called"),
        ("[[rule]]\nname='r'\nregex='x'\nlogs=['nowhere']", "'nowhere', which is not there"),
        ("[[rule]]\nregex='x'", "rule.0.name: Field required"),
        ("[[log]]\nsource='http://x'\nvkeys=['{key}']\n[[rule]]\nname='r'", "looks for nothing"),
        (
            "[[log]]\nsource='http://x'\nvkeys=['{key}']\n[alarms]\nwebhook='ftp://x'",
            "a webhook is an http",
        ),
        ("[alarms]\ncommand=[]", "alarms.command"),
        ("", "nothing to follow"),
    ],
)
def test_a_file_that_is_not_understood(run: Run, tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "monitor.toml"
    config.write_text(text.replace("{key}", str(KEYS[0])))
    result = once(run, "--config", config)
    assert result.code in {1, 2}
    assert said in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "nothing to follow"),
        (("http://127.0.0.1:1",), "a policy or vkeys are needed"),
        (("http://127.0.0.1:1", "--match", "("), "no regular expression"),
        (("http://127.0.0.1:1", "--where", "a..b"), "is no path"),
        (("http://127.0.0.1:1", "--command", "'x"), "No closing quotation"),
        (("http://127.0.0.1:1", "--command", " "), "names no program"),
        (("http://127.0.0.1:1", "--interval", "0"), "greater than or equal"),
        (("http://127.0.0.1:1", "--metrics", "0.0.0.0:1"), "loopback"),
    ],
)
def test_flags_that_are_not_understood(run: Run, args: tuple[str, ...], said: str) -> None:
    keys = [] if said == "a policy or vkeys are needed" else VKEYS
    result = run("monitor", *args, *keys)
    assert result.code in {1, 2}
    assert said in result.err
    assert len(result.err.splitlines()) == 1


def test_a_log_that_is_away_is_exit_code_4(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert once(run, url, *VKEYS).code == 4


def test_an_entry_that_makes_a_rule_backtrack_does_not_hide(run: Run, served: HttpLog) -> None:
    served.show([b"aaa", b"a" * 64 + b"b", b"b"])
    result = once(run, served.url, *VKEYS, "--match", "^(a+)+$")
    assert result.code == 0
    assert [line.split(": ")[-2] for line in result.out.decode().splitlines()] == [
        "entry 0",
        "entry 1 (not decided in time)",
    ]


def test_what_strangers_write_does_not_reach_the_terminal(run: Run, served: HttpLog) -> None:
    served.show([b"\x1b[2J" + b"x" * 1000, b"\xff\x1b"])
    result = once(run, served.url, *VKEYS, "--match", "\x1b")
    assert result.code == 0
    assert b"\x1b" not in result.out
    assert all(len(line) < 300 for line in result.out.splitlines())
