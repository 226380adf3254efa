"""A mirror over real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.mirror.support import a_mirror
from tlog.mirror import Followers, Mirror
from tlog.notes.codec import decode_base64
from tlog.remote import open_source
from tlog.serve import mirror_http_server
from tlog.witness import AddCheckpoint

OCTETS = {"content-type": "application/octet-stream"}


@dataclass(frozen=True)
class Info:
    """The body of a 202 or a 409, read as the specification has it."""

    size: int
    next_entry: int
    ticket: bytes

    @classmethod
    def of(cls, response: httpx.Response) -> Info:
        assert response.headers["content-type"] == "text/x.tlog.mirror-info"
        size, next_entry, ticket, rest = response.content.decode("ascii").split("\n")
        assert rest == ""
        assert size == str(int(size))
        assert next_entry == str(int(next_entry))
        return cls(int(size), int(next_entry), decode_base64(ticket))


class Face:
    """What a client of the mirror does."""

    def __init__(self, mirror: Mirror, client: httpx.AsyncClient, port: int) -> None:
        self.mirror = mirror
        self.client = client
        self.port = port

    async def add_checkpoint(
        self, old: int, proof: tuple[bytes, ...], note: bytes
    ) -> httpx.Response:
        body = AddCheckpoint(old, proof, note).encode()
        return await self.client.post("/add-checkpoint", content=body)

    async def add_entries(self, body: bytes, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self.client.post("/add-entries", content=body, headers={**OCTETS, **named})
        # "mirrors SHOULD send an `Accept-Encoding` header that includes `gzip`"
        assert response.headers["accept-encoding"] == "gzip"
        assert response.headers["cache-control"] == "no-store"
        if response.status_code not in {200, 202, 409}:
            line = response.text
            assert line.endswith("\n")
            assert line[:-1].isprintable()
            assert len(line) < 1000
        return response


@contextlib.asynccontextmanager
async def served(
    directory: Path, *, clock: Callable[[], float] | None = None, **limits: float
) -> AsyncIterator[Face]:
    """The mirror of a directory behind HTTP."""
    async with a_mirror(directory, clock=clock) as mirror:
        if limits:
            mirror.config = mirror.config.model_copy(update=limits)
        followers = Followers(mirror, open_source)
        async with (
            mirror_http_server(mirror, followers, "127.0.0.1:0") as port,
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False
            ) as client,
        ):
            yield Face(mirror, client, port)
