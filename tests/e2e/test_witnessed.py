"""`tlog serve` with a policy: a real server, real witnesses, and a quorum that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.processes import Served, Terminal
from tests.remote.witnesses import Station
from tlog.client import AsyncClient, ClientError, LogStatus, MemoryState
from tlog.log import LogConfig, load_signers
from tlog.notes import Algorithm, Policy, Signer, VerifierKey, parse_policy

QUICK = "quorum_timeout = 0.5\n"


@dataclass
class Scene:
    terminal: Terminal
    stations: list[Station]
    policy: Policy

    @property
    def vkeys(self) -> list[VerifierKey]:
        return [log.vkey for log in self.policy.logs]

    def client(self, server: Served) -> AsyncClient:
        return AsyncClient(server.grpc, vkeys=self.vkeys, state=MemoryState(), timeout=30)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Served]:
        """The server; this loop stays free for the witnesses."""
        context = self.terminal.serving("mylog")
        server = await asyncio.to_thread(context.__enter__)
        try:
            yield server
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


@contextlib.asynccontextmanager
async def scene(terminal: Terminal, *, started: int = 3) -> AsyncIterator[Scene]:
    """A log made with a policy of two of three witnesses, of which some are there."""
    stations = [
        Station(terminal.directory / f"w{number}", scheme)
        for number, scheme in enumerate(("http", "grpc", "http"))
    ]
    try:
        for station in stations:
            await station.start()
        lines = [f"witness w{n} {it.vkeys[0]} {it.url}" for n, it in enumerate(stations)]
        lines += ["group all-of-them 2 w0 w1 w2", "quorum all-of-them"]
        (terminal.directory / "witnesses").write_text("".join(f"{line}\n" for line in lines))
        options = ("--origin", "example.com/mylog", "--interval", "0", "--policy", "witnesses")
        done = await asyncio.to_thread(terminal.run, "init", "mylog", *options)
        assert done.returncode == 0, done.stderr
        toml = terminal.directory / "mylog" / "log.toml"
        toml.write_text(toml.read_text().replace("quorum_timeout = 5.0\n", QUICK))
        assert QUICK in toml.read_text()
        policy = parse_policy((terminal.directory / "mylog" / "policy").read_bytes())
        for number, station in enumerate(stations):
            station.trust([log.vkey for log in policy.logs])
            await station.stop()
            if number < started:
                await station.start()
        yield Scene(terminal, stations, policy)
    finally:
        for station in stations:
            await station.stop()


async def until_away(client: AsyncClient) -> LogStatus:
    """The status of the log when it has noticed that two witnesses are away."""
    async with asyncio.timeout(20):
        while True:
            status = await client.log_status()
            if sum(one.away for one in status.witnesses) == 2 and status.signed_size == 2:
                return status
            await asyncio.sleep(0.02)


def metrics(server: Served) -> dict[tuple[str, ...], float]:
    """What Prometheus is told, by name and labels."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_what_is_published_has_its_quorum(terminal: Terminal) -> None:
    async with scene(terminal) as it, it.serving() as server, it.client(server) as client:
        receipt = await client.append(b"one", wait="published")
        assert receipt.proof is not None
        assert len(it.policy.open(receipt.proof.checkpoint).cosigned_by) >= 2
        (terminal.directory / "entry").write_text("two")
        for words in (
            ("append", "two", "--proof", "receipt"),
            ("verify", "receipt", "entry", "--max-age", "1h"),
            ("checkpoint", "--max-age", "90s"),
            ("entries", "0", "1"),
        ):
            done = await asyncio.to_thread(terminal.run, *words, "--policy", "mylog/policy")
            assert done.returncode == 0, done.stderr
        code, said = await asyncio.to_thread(server.stop)
        assert (code, said) == (0, "")


async def test_a_quorum_that_is_away_at_the_start_comes(terminal: Terminal) -> None:
    async with scene(terminal, started=1) as it, it.serving() as server:
        assert server.ready["logs"][0]["tree_size"] == 0
        async with it.client(server) as client:
            durable = await client.append(b"durable")
            assert durable.index == 0
            waiting = asyncio.create_task(client.append(b"waiting", wait="published"))
            (info,) = await client.list_logs()
            assert info.tree_size == 0
            status = await until_away(client)
            assert (status.integrated_size, status.signed_size, status.published_size) == (2, 2, 0)
            assert (status.quorum, status.fail_open) == ("all-of-them", False)
            assert "no quorum" in status.no_quorum
            assert [one.names for one in status.witnesses] == [("w0",), ("w1",), ("w2",)]
            assert [one.url for one in status.witnesses] == [one.url for one in it.stations]
            assert [one.away for one in status.witnesses] == [False, True, True]
            assert status.witnesses[1].last_error
            told = await asyncio.to_thread(it.terminal.run, "log", "status", "mylog")
            lines = told.stdout.decode().splitlines()
            assert lines[1] == "entries  2 durable, 2 signed, 0 published"
            assert lines[2].startswith("quorum   all-of-them: no quorum for the head of size ")
            assert " ms" in lines[3]
            assert all("  AWAY, never cosigned, " in line for line in lines[4:])
            values = await asyncio.to_thread(metrics, server)
            assert values["tlog_waiting_for_quorum", "mylog"] == 1
            assert values["tlog_fail_open", "mylog"] == 0
            for one in status.witnesses:
                key = ("mylog", one.url)
                assert values["tlog_witness_cosigned_size", *key] == one.cosigned_size
                assert values["tlog_witness_away", *key] == one.away
                assert values["tlog_witness_failures_total", *key] >= one.failures
                assert (values["tlog_witness_seconds", *key] > 0) is (not one.away)
            _, pending = await asyncio.wait([waiting], timeout=0.7)
            assert pending
            await it.stations[2].start()
            receipt = await waiting
            assert receipt.proof is not None
            assert it.policy.open(receipt.proof.checkpoint).cosigned_by == ("w0", "w2")
            code, said = await asyncio.to_thread(server.stop)
        assert code == 0
        assert "no quorum for the head of size 0: cosigned by 'w0'" in said
        assert "a quorum has cosigned" in said


async def test_a_quorum_that_is_away_does_not_hold_up_the_stop(terminal: Terminal) -> None:
    async with scene(terminal, started=1) as it, it.serving() as server:
        async with it.client(server) as client:
            waiting = asyncio.create_task(client.append(b"waiting", wait="published"))
            await client.append(b"durable")
            await asyncio.wait([waiting], timeout=0.7)
            started = time.monotonic()
            code, _ = await asyncio.to_thread(server.stop)
            assert code == 0
            assert time.monotonic() - started < 4
            with contextlib.suppress(ClientError):
                await waiting
                raise AssertionError("a receipt without its quorum")
        # What was durable is published when there is a quorum again.
        await it.stations[1].start()
        async with it.serving() as again, it.client(again) as client:
            receipt = await client.append(b"third", wait="published")
            assert receipt.index == 2


async def test_policies_that_a_log_cannot_be_served_with(terminal: Terminal, mylog: Path) -> None:
    own = str(load_signers(mylog, LogConfig.load(mylog), passphrase=None)[0].vkey)
    other = str(Signer.generate("example.com/mylog", Algorithm.ED25519).vkey)
    witness = Station(terminal.directory / "w0", "http").vkeys[0]
    refused = {
        f"witness w {witness} http://h/\nquorum w\n": "does not name this log",
        f"log {own}\nwitness w {witness}\nquorum w\n": "no URL is given for 'w'",
        f"log {own}\nwitness w {witness} ftp://h/\nquorum w\n": "is not an address",
        f"log {own}\nquorum w\n": "line 2",
        f"log {other}\nquorum none\n": "does not have",
        "quorum none": "newline",
    }
    for policy, says in refused.items():
        (mylog / "policy").write_text(policy)
        done = await asyncio.to_thread(
            terminal.run, "serve", "mylog", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"
        )
        assert (done.returncode, done.stdout) == (1, b""), policy
        assert says in done.stderr.decode()
        assert "mylog" in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1


async def test_fail_open_is_told_loudly(terminal: Terminal) -> None:
    async with scene(terminal, started=1) as it:
        toml = terminal.directory / "mylog" / "log.toml"
        toml.write_text(toml.read_text().replace("fail_open = false", "fail_open = true"))
        async with it.serving() as server, it.client(server) as client:
            receipt = await client.append(b"one", wait="published")
            assert receipt.proof is not None
            assert not it.policy.evaluate(receipt.proof.checkpoint).satisfied
            told = await asyncio.to_thread(terminal.run, "log", "status")
            assert b"\nFAIL OPEN: checkpoints are published without their quorum" in told.stdout
            assert (await asyncio.to_thread(metrics, server))["tlog_fail_open", "mylog"] == 1
            _, said = await asyncio.to_thread(server.stop)
            assert "published without a quorum: fail_open is on" in said
