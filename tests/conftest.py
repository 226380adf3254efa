"""For all tests: quiet, short logs, and a SIGINT that arrives."""

import logging
import signal

import structlog

structlog.configure(
    processors=[structlog.processors.KeyValueRenderer()],
    wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
)

# A shell's `&` makes what it starts deaf to Ctrl-C, and that passes to every child.
signal.signal(signal.SIGINT, signal.default_int_handler)
