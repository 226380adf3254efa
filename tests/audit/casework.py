"""Events as cases and reports need them, without the labour of signing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tlog.audit.cases import CaseEvent


def happened(
    index: int,
    kind: str,
    at: str | datetime,
    claims: Mapping[str, Any] | None = None,
    *,
    request: str = "R-1",
    recorded: str | None = None,
) -> CaseEvent:
    time = at if isinstance(at, datetime) else datetime.fromisoformat(at)
    known = datetime.fromisoformat(recorded) if recorded else time
    return CaseEvent(index, kind, request, time, known, claims or {})
