"""Deadlines that a served log tells of by itself."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.client.http_log import Receiver, wait_for
from tests.e2e.processes import Terminal
from tlog.client import Producer


def test_a_server_that_is_killed_tells_of_every_deadline(terminal: Terminal, mylog: Path) -> None:
    assert terminal.run("records", "init", "mylog", "--tenant", "acme").returncode == 0
    added = terminal.run("records", "add-producer", "mylog", "shop", "--key", "shop.key")
    assert added.returncode == 0
    at = terminal.directory
    names = {f"R-{number}" for number in range(12)}
    with Receiver() as receiver:
        with (mylog / "records.toml").open("a") as file:
            file.write(f'deadline_webhook = "{receiver.url}/secret"\n')
        with (
            terminal.ready("serve", "mylog") as server,
            Producer(server.grpc, key=at / "shop.key", tenant="acme", spool=at / "spool") as shop,
        ):
            for name in sorted(names):
                shop.record(
                    "request.received",
                    subject="alice@example.com",
                    occurred_at=datetime.now(UTC) - timedelta(days=30),
                    request_id=name,
                    request_type="opt_out_sale_share",
                    channel="webform",
                )
            assert shop.flush(20), shop.problem
        # A start looks at once; this one ends somewhere among the alerts.
        before = len(receiver.events)
        with terminal.ready("serve", "mylog") as server:
            wait_for(lambda: len(receiver.events) > before)
            server.stop(signal.SIGKILL)
        with terminal.ready("serve", "mylog") as server:
            wait_for(lambda: {event["request_id"] for event in receiver.events} == names)
            assert server.stop()[0] == 0
        ids = {(event["request_id"], event["id"]) for event in receiver.events}
        assert len(ids) == len(names)
        assert {event["stage"] for event in receiver.events} == {"late"}
        # At least once: what was under way at a kill may come again, and nothing else does.
        assert len(receiver.events) <= len(names) + 4
