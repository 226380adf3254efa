"""Lines of a file or of standard input, for asyncio, in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from tlog.cli.errors import CommandError, one_line
from tlog.merkle import MAX_ENTRY_SIZE

CHUNK = 1 << 18
READ_AHEAD = 4


class Lines:
    """The lines of a file ("-": standard input), without their newlines, as they come.

    Read in a thread of their own, since neither a slow pipe nor a slow disk may hold up the loop.

    Attributes:
        size: bytes that the file has; None for a pipe or a terminal.
        read: bytes taken from the file so far.
    """

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size if path.is_file() else None
        self.read = 0
        self._path = path
        self._chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(READ_AHEAD)
        self._stopped = False

    def stop(self) -> None:
        """Give no more lines."""
        self._stopped = True
        self._chunks.put_nowait(b"")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        # A daemon: nobody waits for a terminal that says nothing more.
        threading.Thread(target=self._feed, args=(loop,), daemon=True).start()
        number, rest = 1, b""
        while (chunk := await self._chunks.get()) and not self._stopped:
            self._room.release()
            if isinstance(chunk, OSError):
                raise CommandError(f"{self._path}: {one_line(chunk)}")
            self.read += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield self._checked(number, line)
                number += 1
            self._checked(number, rest)
        if rest and not self._stopped:
            yield rest

    def _checked(self, number: int, line: bytes) -> bytes:
        if len(line) > MAX_ENTRY_SIZE:
            raise CommandError(
                f"line {number} of {self._path} is longer than {MAX_ENTRY_SIZE} bytes: no log "
                "takes it; append a hash of it, or split it"
            )
        return line

    def _feed(self, loop: asyncio.AbstractEventLoop) -> None:
        # When the loop is closed, nobody wants to read any more.
        with contextlib.suppress(RuntimeError):
            try:
                file = 0 if str(self._path) == "-" else os.open(self._path, os.O_RDONLY)
                while chunk := os.read(file, CHUNK):
                    self._room.acquire()
                    loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except OSError as error:
                loop.call_soon_threadsafe(self._chunks.put_nowait, error)
            else:
                loop.call_soon_threadsafe(self._chunks.put_nowait, b"")
