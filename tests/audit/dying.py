"""Processes that are killed, as by `kill -9`, at a step that they are told."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

PATIENCE = 60.0

# Forked from a process that has imported what they need, and has opened nothing.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        f"tests.audit.test_{name}"
        for name in ("approvers", "crash", "erasing_faults", "expiry_faults")
    ]
)


class Dying:
    """Kills this process at a step, once it is `live`."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.live = False

    def at(self, step: str) -> None:
        """Die, if this is the step."""
        if self.live and step == self.where:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, *, before: str = "", after: str = "") -> None:
        """Die before, or after, a method of a class does its work."""
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.at(before)
            result = real(*args, **kwargs)
            self.at(after)
            return result

        setattr(owner, name, wrapped)


async def killed(work: Callable[..., Coroutine[Any, Any, None]], *given: object) -> None:
    """Do work in a process of its own, which must not live to the end of it.

    Args:
        work: a function of a module, that can be imported; what it patches stays in that process.
        given: its arguments.
    """
    process = _FORKS.Process(target=_run, args=(work, *given))
    process.start()
    await asyncio.to_thread(process.join, PATIENCE)
    code = process.exitcode
    process.kill()
    process.join()
    assert code == -signal.SIGKILL, given


def _run(work: Callable[..., Coroutine[Any, Any, None]], *given: object) -> None:
    asyncio.run(work(*given))
