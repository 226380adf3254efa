"""Witnesses that others wrote cosign our log, and count in its quorum."""

from __future__ import annotations

import concurrent.futures
import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace

import tlog
from tests.e2e.processes import Terminal
from tests.interop.witnesses import ORIGIN, Witnessed, init, require
from tlog.client import Head, LogStatus, Refused
from tlog.notes import VerifierKey
from tools.peers import PeerWitness, aics_witness, free_port, litewitness


@contextlib.contextmanager
def both(terminal: Terminal) -> Iterator[Witnessed]:
    """A log whose policy wants a cosignature of litewitness, w0, and of aics-witness, w1."""
    vkeys = init(terminal)
    logs = {ORIGIN: vkeys}
    with (
        litewitness(terminal.directory / "lite", logs) as lite,
        aics_witness(terminal.directory / "aics", logs) as aics,
    ):
        yield require_both(terminal, vkeys, lite, aics)


def require_both(
    terminal: Terminal, vkeys: tuple[VerifierKey, ...], *peers: PeerWitness
) -> Witnessed:
    return require(terminal, vkeys, *((peer.vkey, peer.url) for peer in peers))


def until_refused(client: tlog.Client, reason: str) -> LogStatus:
    """The status of the log when all its witnesses have said this."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = client.log_status()
        if all(reason in one.last_error for one in status.witnesses):
            return status
        time.sleep(0.02)
    raise AssertionError(status)


def first_head(client: tlog.Client) -> Head:
    """The published head of a log that has just begun."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(Refused):  # it waits for its quorum
            return client.checkpoint()
        time.sleep(0.02)
    return client.checkpoint()


def test_both_cosign_and_a_quorum_of_both_is_met(terminal: Terminal) -> None:
    with both(terminal) as log:
        with log.serving() as (_, client):
            # The head of the empty log was the first: it is cosigned like every other.
            head = first_head(client)
            assert head.checkpoint.size == 0
            assert log.policy.open(head.note).cosigned_by == ("w0", "w1")
            # Growth within a tile, over its edge, by a power of two, and by one.
            for count in (1, 1, 253, 1, 1, 255, 512, 3000, 1):
                entries = [b"%d of %d" % (number, count) for number in range(count)]
                assert log.append(client, entries) == ("w0", "w1")
            status = client.log_status()
            assert [one.cosigned_size for one in status.witnesses] == [4025, 4025]
            assert [one.failures for one in status.witnesses] == [0, 0]
        # A log that was started again goes on with the same witnesses.
        with log.serving() as (_, client):
            assert log.append(client, [b"after a restart"]) == ("w0", "w1")


def test_receipts_wait_for_a_peer_that_is_away(terminal: Terminal) -> None:
    vkeys, port = init(terminal), free_port()
    directory, logs = terminal.directory / "lite", {ORIGIN: vkeys}
    with (
        aics_witness(terminal.directory / "aics", logs) as aics,
        concurrent.futures.ThreadPoolExecutor() as threads,
    ):
        with litewitness(directory, logs, port=port) as lite:
            log = require_both(terminal, vkeys, lite, aics)
        with log.serving() as (_, client):
            waiting = threads.submit(log.append, client, [b"one", b"two"])
            deadline = time.monotonic() + 30
            while client.log_status().integrated_size < 2:
                assert time.monotonic() < deadline
            status = client.log_status()
            assert (status.published_size, waiting.done()) == (0, False)
            with litewitness(directory, logs, port=port):
                assert waiting.result(60) == ("w0", "w1")
                assert client.log_status().published_size == 2


def test_they_refuse_a_second_history_and_it_is_never_published(terminal: Terminal) -> None:
    with both(terminal) as log:
        directory = terminal.directory
        for name in ("behind", "ahead"):
            shutil.copytree(directory / "mylog", directory / name)
        with log.serving() as (_, client):
            assert log.append(client, [b"one", b"two", b"three"]) == ("w0", "w1")
        # It signs for the same origin with the same keys, but what they have seen is not in it.
        with replace(log, name="behind").serving() as (_, client):
            client.append_batch([b"another", b"history"])
            status = until_refused(client, "has cosigned size 3, this log has signed")
            assert (status.integrated_size, status.published_size) == (2, 0)
        # Beyond size 3 it has a consistency proof: from a tree of its own.
        with replace(log, name="ahead").serving() as (_, client):
            client.append_batch([b"another %d" % number for number in range(9)])
            status = until_refused(client, "422")
            assert (status.integrated_size, status.published_size) == (9, 0)
