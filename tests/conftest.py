"""For all tests: quiet, short logs, a SIGINT that arrives, bytecode, and the long ones first."""

import logging
import os
import signal
from pathlib import Path

import pytest
import structlog

ROOT = Path(__file__).parent
LONG = [ROOT / room for room in ("faults", "e2e")]

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
    items.sort(key=lambda item: not any(item.path.is_relative_to(room) for room in LONG))
