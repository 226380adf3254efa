"""A log that is asked to be cosigned by real witnesses over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support import free_port
from tlog.log import Log, LogConfig, create_log
from tlog.notes import Policy, VerifierKey, parse_policy
from tlog.remote import connections, gossip_connections
from tlog.serve.witness_http import witness_http_server
from tlog.serve.witness_service import witness_grpc_server
from tlog.store.heads import HeadStore
from tlog.witness import Node, Witness, add_log, create_witness

ORIGIN = "log.example/remote"


class Station:
    """A witness that can be stopped, started again where it was, and started from scratch."""

    def __init__(self, directory: Path, scheme: str) -> None:
        self.scheme = scheme
        # Where it is may be told, and it be stopped, before it is started again there.
        self.address = f"127.0.0.1:{free_port()}"
        self._directory = directory
        self._stack = contextlib.AsyncExitStack()
        self.vkeys = create_witness(directory, name=f"witness.example/{directory.name}")
        self.witness: Witness | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    def trust(self, vkeys: Sequence[VerifierKey]) -> None:
        add_log(self._directory, vkeys)

    async def start(self) -> None:
        outward = await self._stack.enter_async_context(gossip_connections())
        node = await self._stack.enter_async_context(Node.opened(self._directory, outward))
        self.witness = node.witness
        server = {"http": witness_http_server, "grpc": witness_grpc_server}[self.scheme]
        port = await self._stack.enter_async_context(server(node, self.address))
        self.address = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._stack.aclose()
        self.witness = None

    def forget(self) -> None:
        """Lose what was cosigned, while it is stopped."""
        shutil.rmtree(self._directory / "db")
        HeadStore.create(self._directory).close()

    def size(self) -> int:
        """Of the only checkpoint that it has cosigned."""
        assert self.witness is not None
        (note,) = self.witness.checkpoints()
        return int(note.split(b"\n")[1])


def write_policy(
    directory: Path,
    vkeys: Sequence[VerifierKey],
    witnesses: Sequence[tuple[VerifierKey, str]],
    k: int,
) -> Policy:
    """A policy of `k` of these witnesses, in the log's directory."""
    lines = [f"log {vkey}" for vkey in vkeys]
    names = []
    for number, (vkey, url) in enumerate(witnesses):
        names.append(f"w{number}")
        lines.append(f"witness w{number} {vkey} {url}")
    lines += [f"group all-of-them {k} {' '.join(names)}", "quorum all-of-them"]
    data = "".join(f"{line}\n" for line in lines).encode()
    (directory / "policy").write_bytes(data)
    return parse_policy(data)


def make_log(directory: Path, **settings: Any) -> tuple[VerifierKey, ...]:
    """Create a log that publishes every commit; its verifier keys."""
    defaults = {"checkpoint_interval": 0, "quorum_timeout": 2.0}
    return create_log(
        directory, LogConfig(origin=ORIGIN, name="remote", **{**defaults, **settings})
    )


@contextlib.asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Log]:
    """The log, connected to the witnesses of its policy."""
    async with connections() as connect, Log.opened(directory, connect=connect) as log:
        yield log


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
