"""The HTTP face of a witness (c2sp.org/tlog-witness), with health and metrics on one port.

Status codes to the letter of the specification, which the refusals of `tlog.witness` carry; every
refusal has one line of text that says why, but for the 409, whose body is the size.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from starlette.requests import Request

from tlog.serve.cosigner_http import MUTABLE, READS, CosignerApp, check_method, signed
from tlog.serve.http_answers import Answer, NotFound, text
from tlog.serve.http_body import read_body
from tlog.serve.http_listener import http_listener
from tlog.serve.witness_metrics import WitnessMetrics
from tlog.witness import Node, parse_add_checkpoint, parse_sign_subtree

# SPEC tlog-witness: "The origin hash is the SHA-256 hash of the log's origin, hex encoded, in
# lowercase."
_CHECKPOINT: Final = re.compile(r"([0-9a-f]{64})/checkpoint")

_Handler = Callable[[Request], Awaitable[Answer]]


class WitnessApp(CosignerApp):
    """The HTTP face of a witness, as an ASGI application."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._witness = node.witness
        super().__init__()
        self._registry.register(WitnessMetrics(node, self._answered))
        self._writes: dict[str, _Handler] = {
            "add-checkpoint": self._add_checkpoint,
            "sign-subtree": self._sign_subtree,
        }
        self._reads: dict[str, _Handler] = {
            "": self._index,
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._metrics,
        }

    def _kind(self, path: str) -> str:
        """What a path asks for; "other" if nothing."""
        if path in self._writes:
            return path
        if path in self._reads:
            return "server"
        return "checkpoint" if _CHECKPOINT.fullmatch(path) else "other"

    async def _answer(self, request: Request, path: str) -> Answer:
        if (write := self._writes.get(path)) is not None:
            # SPEC tlog-witness: "The request MUST be an HTTP POST."
            check_method(request, ("POST",))
            return await write(request)
        if (read := self._reads.get(path)) is not None:
            check_method(request, READS)
            return await read(request)
        if (match := _CHECKPOINT.fullmatch(path)) is not None:
            # SPEC tlog-witness: "The request MUST be an HTTP GET."
            check_method(request, READS)
            note = self._witness.checkpoint(bytes.fromhex(match[1]))
            return Answer(note, media_type="text/plain", headers=MUTABLE)
        raise NotFound(
            "a witness has add-checkpoint, sign-subtree and "
            "<origin hash, 64 lowercase hex digits>/checkpoint, nothing else"
        )

    # ---- the protocol ----

    async def _add_checkpoint(self, request: Request) -> Answer:
        limit = self._witness.config.max_body_size
        asked = parse_add_checkpoint(await _body(request, limit), max_size=limit)
        return signed(await self._witness.add_checkpoint(asked.old_size, asked.proof, asked.note))

    async def _sign_subtree(self, request: Request) -> Answer:
        limit = self._witness.config.max_body_size
        asked = parse_sign_subtree(await _body(request, limit), max_size=limit)
        return signed(
            await self._witness.sign_subtree(
                asked.start, asked.end, asked.root_hash, asked.proof, asked.note
            )
        )

    # ---- for operators ----

    async def _index(self, request: Request) -> Answer:
        lines = [self._witness.config.name, *map(str, self._witness.vkeys)]
        return text("".join(f"{line}\n" for line in lines), headers=MUTABLE)

    async def _readyz(self, request: Request) -> Answer:
        reason = self._node.failure
        return text(f"{reason or 'ready'}\n", status=503 if reason else 200, headers=MUTABLE)


def witness_http_server(node: Node, address: str) -> AbstractAsyncContextManager[int]:
    """Serve a witness over HTTP: see `http_listener`."""
    return http_listener(WitnessApp(node), address)


async def _body(request: Request, limit: int) -> bytes:
    too_long = f"the body is over {limit} bytes, the most that this witness takes"
    return await read_body(request, limit, too_long)
