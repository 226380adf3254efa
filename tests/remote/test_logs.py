"""What gossip asks logs for, over gRPC and from tiles: proofs that verify, or a RemoteError."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.remote.test_hostile import http
from tests.remote.witnesses import ORIGIN
from tlog.log import Log, LogConfig, create_log
from tlog.merkle import CompactRange, leaf_hash, verify_consistency
from tlog.notes import open_checkpoint
from tlog.remote import RemoteError, RemoteLogs
from tlog.remote.logs import MAX_LOGS
from tlog.serve import Logs, grpc_server, http_server

SIZE = 66_000
ENTRIES = [b"%d" % index for index in range(SIZE)]
PAIRS = [
    *((1, 2), (1, 300), (255, 256), (256, 257), (256, 512), (3, 65_536), (300, 66_000)),
    *((65_535, 65_537), (65_536, 66_000), (65_999, 66_000), (65_800, 65_900), (1, 66_000)),
]


@contextlib.asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[Log, dict[str, str]]]:
    """A log of 66,000 entries, and how it is reached."""
    create_log(directory, LogConfig(origin=ORIGIN, name="remote", checkpoint_interval=0))
    async with Log.opened(directory) as log:
        for begin in range(0, SIZE, 11_000):
            await log.append_published(ENTRIES[begin : begin + 11_000])
        async with (
            grpc_server(Logs([log]), "127.0.0.1:0") as grpc_port,
            http_server(Logs([log]), "127.0.0.1:0") as http_port,
        ):
            yield (
                log,
                {
                    "grpc": f"grpc://127.0.0.1:{grpc_port}",
                    "named": f"grpc://127.0.0.1:{grpc_port}/remote",
                    "other": f"grpc://127.0.0.1:{grpc_port}/other",
                    "http": f"http://127.0.0.1:{http_port}/remote/",
                    "gone": f"http://127.0.0.1:{http_port}/other",
                },
            )


def roots(sizes: set[int]) -> dict[int, bytes]:
    tree, found = CompactRange(), {}
    for index, entry in enumerate(ENTRIES):
        tree.append(leaf_hash(entry))
        if index + 1 in sizes:
            found[index + 1] = tree.root()
    return found


async def test_proofs(tmp_path: Path) -> None:
    known = roots({size for pair in PAIRS for size in pair})
    async with served(tmp_path) as (log, urls):
        remote = RemoteLogs(urls.get)
        for way in ("grpc", "named", "http"):
            note = await remote.checkpoint(way)
            assert open_checkpoint(note, log.vkeys).checkpoint.size == SIZE
            for old, new in PAIRS:
                verify_consistency(
                    old_size=old,
                    new_size=new,
                    old_root=known[old],
                    new_root=known[new],
                    proof=await remote.consistency_proof(way, old, new),
                )
            assert await remote.consistency_proof(way, 0, 9) == []
            assert await remote.consistency_proof(way, 9, 9) == []
            for old, new in ((5, SIZE + 1), (9, 5), (-1, 5), (1, 1 << 63)):
                with pytest.raises(RemoteError):
                    await remote.consistency_proof(way, old, new)
        for way in ("other", "gone", "nobody"):
            with pytest.raises(RemoteError) as caught:
                await remote.checkpoint(way)
            assert str(caught.value).isprintable()
            with pytest.raises(RemoteError):
                await remote.consistency_proof(way, 1, 5)
        await remote.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        http("404 Not Found", b"no\n"),
        http("200 OK", b""),
        http("200 OK", bytes(31)),
        http("200 OK", bytes(100_000)),
        http("302 Found", b"", b"Location: /\r\n"),
        b"garbage",
    ],
)
async def test_tiles_that_are_none(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        remote = RemoteLogs({ORIGIN: url}.get)
        with pytest.raises(RemoteError):
            await remote.consistency_proof(ORIGIN, 5, 1000)
        await remote.aclose()


async def test_a_url_that_leads_nowhere_and_then_does(tmp_path: Path) -> None:
    urls: dict[str, str] = {ORIGIN: "nowhere"}
    remote = RemoteLogs(urls.get)
    with pytest.raises(RemoteError, match="not an address"):
        await remote.checkpoint(ORIGIN)
    create_log(tmp_path, LogConfig(origin=ORIGIN, name="remote", checkpoint_interval=0))
    async with Log.opened(tmp_path) as log, grpc_server(Logs([log]), "127.0.0.1:0") as port:
        urls[ORIGIN] = f"grpc://127.0.0.1:{port}"
        assert await remote.checkpoint(ORIGIN) == log.published.note
        # However many URLs there are, only some connections stay open.
        for number in range(MAX_LOGS + 10):
            urls[ORIGIN] = f"grpc://127.0.0.1:{port}" + "/" * number
            assert await remote.checkpoint(ORIGIN) == log.published.note
        assert len(remote._logs) == MAX_LOGS
        await remote.aclose()
