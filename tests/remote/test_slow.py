"""Witnesses that are slow to greet, on a loaded machine or far away, are waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.serve.witness.faces import served
from tests.serve.witness.transcripts import LOG
from tests.witness.support import a_witness, times_of
from tlog.notes import parse_signatures
from tlog.remote import connect

FAR = 0.5  # seconds, longer than the pause after the first attempt that failed


@contextlib.asynccontextmanager
async def far_away(port: int) -> AsyncIterator[tuple[int, list[float]]]:
    """A way to a port on which what comes back begins to come late; when it was taken."""
    begun: list[float] = []
    loop = asyncio.get_running_loop()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.append(loop.time())
        back, forth = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65_536):
                    sink.write(data)
            sink.close()

        async def pump_late() -> None:
            await asyncio.sleep(FAR)
            await pump(back, writer)

        await asyncio.gather(pump(reader, forth), pump_late())

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], begun


async def test_the_first_attempt_is_enough(tmp_path: Path) -> None:
    async with (
        a_witness(tmp_path) as witness,
        served(witness) as faces,
        far_away(faces.grpc_port) as (port, begun),
    ):
        remote = connect(f"grpc://127.0.0.1:{port}")
        async with asyncio.timeout(20):
            times_of(LOG.note(5), parse_signatures(await remote.add_checkpoint(*LOG.request(0, 5))))
        await remote.aclose()
        assert len(begun) == 1
