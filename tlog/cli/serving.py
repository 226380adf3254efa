"""What the verbs that serve share: where they listen, how they wait, and how they stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

from tlog.cli.errors import Exit

_YOUNG = 20_000
"""Objects that come before the collector looks at them."""


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


async def until(stop: asyncio.Event) -> None:
    """Serve until it is set, now that all is up."""
    spare_collector()
    await stop.wait()


def spare_collector() -> None:
    """Have less looked at for garbage, now that all is up."""
    # What is there by now stays: no collection holds up all calls to look at it again.
    gc.collect()
    gc.freeze()
    # A batch of events is thousands of objects, and none of them garbage until it is done.
    gc.set_threshold(_YOUNG)


def listening(address: str, port: int) -> str:
    """HOST:PORT as it may stand in a URL, with the port that was taken."""
    from tlog.serve import check_address

    host, _ = check_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
