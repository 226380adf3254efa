"""Where events go: to the terminal, to a webhook, to a command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tlog.audit.errors import AlertError
from tlog.cli.errors import CommandError, printable
from tlog.cli.output import Output
from tlog.client import DeliveryError
from tlog.remote.http import HttpPeer, RemoteError

if TYPE_CHECKING:
    from tlog.audit.tenancy import Ways

COMMAND_SECONDS = 30.0
MAX_ANSWER_SIZE = 64 << 10
MAX_SHOWN = 200


class Print:
    """Standard output: a line for a person, the event itself for a program."""

    name = "standard output"

    def __init__(self, out: Output) -> None:
        self._out = out

    async def send(self, event: bytes) -> None:
        """See `Sink.send`."""
        fields = json.loads(event)
        self._out.result(printable(_line(fields)), **fields)


class Webhook:
    """A POST of the event; any status of 200 to 299 means that it arrived.

    Raises:
        CommandError: the URL is not one of HTTP.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isprintable():
            raise CommandError(f"a webhook is an http:// or https:// URL, not {printable(url)!r}")
        self._url = url
        # The rest of the URL is often a secret.
        self.name = f"webhook {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._peer = HttpPeer(secure=parts.scheme == "https")

    async def send(self, event: bytes) -> None:
        """See `Sink.send`."""
        try:
            answer = await self._peer.exchange(
                "POST",
                self._url,
                content=event + b"\n",
                content_type="application/json",
                limit=MAX_ANSWER_SIZE,
            )
        except RemoteError as error:
            raise DeliveryError(str(error).replace(self._url, self.name)) from None
        if not 200 <= answer.status < 300:
            raise DeliveryError(f"{self.name} answers {answer.reason()}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._peer.aclose()


class Command:
    """A program that gets the event on standard input; exit code 0 means that it arrived."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = tuple(arguments)
        self.name = f"command {arguments[0]}"

    async def send(self, event: bytes) -> None:
        """See `Sink.send`."""
        try:
            # Not a pipe: a program need not read all of it, or any.
            with tempfile.TemporaryFile() as file:
                file.write(event + b"\n")
                file.seek(0)
                child = await asyncio.create_subprocess_exec(
                    *self._arguments,
                    stdin=file,
                    stdout=sys.stderr,  # standard output is for events
                    start_new_session=True,
                )
        except OSError as error:
            raise DeliveryError(f"{self.name} cannot be run: {error.strerror}") from None
        await self._end(child)

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        """Wait for it, but not longer than it may take."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await child.wait()
        except TimeoutError:
            raise DeliveryError(f"{self.name} took over {COMMAND_SECONDS:g} s") from None
        finally:
            if child.returncode is None:
                # All that it started: it has a session of its own.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                await child.wait()
        if child.returncode != 0:
            raise DeliveryError(f"{self.name} ended with {child.returncode}")


class Alerts:
    """Another way of these, for the alerts of a records log: see `AlertSink`."""

    def __init__(self, way: Webhook | Command) -> None:
        self._way = way
        self.name = way.name

    async def send(self, event: bytes) -> None:
        """See `AlertSink.send`."""
        try:
            await self._way.send(event)
        except DeliveryError as error:
            raise AlertError(str(error)) from None


@contextlib.asynccontextmanager
async def alert_ways() -> AsyncIterator[Ways]:
    """Ways to whom alerts are for, and on leaving all are closed: leave their users before."""
    async with contextlib.AsyncExitStack() as stack:

        def ways(url: str, command: Sequence[str]) -> list[Alerts]:
            found: list[Alerts] = []
            if url:
                found.append(Alerts(webhook := Webhook(url)))
                stack.push_async_callback(webhook.aclose)
            if command:
                found.append(Alerts(Command(command)))
            return found

        yield ways


def _line(event: dict[str, Any]) -> str:
    if event["event"] == "match":
        text = event["entry"] if "entry" in event else f"base64 {event['entry_base64']}"
        shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
        unsure = "" if event["certain"] else " (not decided in time)"
        return f"{event['log']}: {event['rule']}: entry {event['index']}{unsure}: {shown}"
    if event["event"] == "alarm":
        return f"{event['log']}: ALARM {event['kind']}: {event['message']}"
    return f"{event['log']}: cleared: {event['kind']}, of {event['since']}"
