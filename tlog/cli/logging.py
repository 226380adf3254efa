"""What a server tells its operator: structlog to standard error.

Of an error it tells the type and where it came from. Never the values of variables, nor the message
of an error of which it is not known to quote none: what is recorded would be in a file that no
erasure reaches.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import structlog

from tlog.log import LogError
from tlog.store import StoreError

if TYPE_CHECKING:
    from structlog.typing import EventDict, ExcInfo, Processor

_TOLD: Final = (LogError, StoreError, OSError)
"""Errors whose messages tell of the machine and the log, and not of what is recorded."""
_WITHHELD: Final = "(what it says is withheld: it may quote what is recorded)"


def configure_logging(*, as_json: bool) -> None:
    """Log for a person on a terminal, JSON lines otherwise; the libraries' warnings too."""
    readable = sys.stderr.isatty() and not as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Processor] = [
        structlog.processors.ExceptionRenderer(_without_values),
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if readable
        else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_without_quotes, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def _without_values(exc_info: ExcInfo) -> str:
    """A traceback of the places alone; the causes come first."""
    return "\n".join(_told(exc_info[1], set()))


def _told(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in seen:
        yield from _told(cause, seen)
        yield "\nwhich led to:\n"
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    said = str(error) if isinstance(error, _TOLD) else _WITHHELD
    yield f"{type(error).__module__}.{type(error).__qualname__}: {said}"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield "\nof which one is:\n"
            yield from _told(each, seen)


def _without_quotes(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """What asyncio says of an error that nobody waits for quotes it, and the arguments of calls."""
    record: logging.LogRecord = event["_record"]
    if record.name == "asyncio" and record.exc_info:
        event["event"] = "an error that nobody waited for"
    return event
