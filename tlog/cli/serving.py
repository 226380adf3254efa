"""What the verbs that serve share: how they stop, and how they say where they listen."""

from __future__ import annotations

import asyncio
import os
import signal

from tlog.cli.errors import Exit


def stop_on_signals() -> asyncio.Event:
    """An event that the first signal sets; the second one does not wait for anything."""
    stop = asyncio.Event()

    def signalled() -> None:
        if stop.is_set():
            os._exit(Exit.INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)
    return stop


def listening(address: str, port: int) -> str:
    """HOST:PORT as it may stand in a URL, with the port that was taken."""
    from tlog.serve import check_address

    host, _ = check_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
