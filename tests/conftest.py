"""For all tests: quiet, short logs, a SIGINT that arrives, bytecode, and the long ones first."""

import logging
import os
import signal
from pathlib import Path

import pytest
import structlog

LONG = [str(Path(__file__).parent / room) for room in ("faults", "e2e")]

structlog.configure(
    processors=[structlog.processors.KeyValueRenderer()],
    wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
)

# A shell's `&` makes what it starts deaf to Ctrl-C, and that passes to every child.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Hundreds of processes are started, and each would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that start servers first, and so on one worker: at the end all others share the rest.

    Beside one such test there is something left of two processors, beside three there is not.
    """

    def rank(item: pytest.Item) -> int:
        room = str(item.path.parent)
        return LONG.index(room) if room in LONG else len(LONG)

    items.sort(key=rank)
