"""A handler for `logging`: what a program logs with `extra={"audit": {...}}` is recorded.

    logger.addHandler(AuditHandler(producer))
    logger.setLevel(logging.INFO)
    logger.info("shown", extra={"audit": {"type": "access.read", "subject": customer,
                                          "purpose": "support"}})

`audit` holds the arguments of `Producer.record`. The message of the log is not recorded. What the
logger itself lets not pass never comes here: without a level of its own that is all below WARNING.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tlog.client.producer import Producer


class AuditHandler(logging.Handler):
    """Records what is marked for it, of whatever level; all else passes by."""

    def __init__(self, producer: Producer) -> None:
        super().__init__()
        self._producer = producer

    def emit(self, record: logging.LogRecord) -> None:
        """Record it. Unlike other handlers this one raises when it fails.

        Raises:
            EventRefused, SpoolError: see `Producer.record`.
            TypeError: `audit` is no mapping with a `type`.
        """
        audit: Any = getattr(record, "audit", None)
        if audit is None:
            return
        if not isinstance(audit, Mapping) or not isinstance(audit.get("type"), str):
            raise TypeError('`extra` needs {"audit": {"type": "access.read", ...}}')
        claims = {str(name): value for name, value in audit.items() if name != "type"}
        claims.setdefault("occurred_at", datetime.fromtimestamp(record.created, UTC))
        self._producer.record(audit["type"], **claims)
