"""The indexer: whatever happens to it, what is recorded is found in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.audit.producer import access, signed
from tests.audit.tenant import tenant
from tlog.audit import AuditError, indexer
from tlog.audit.indexer import Indexer


@pytest.mark.parametrize("error", [AuditError("the disk is full"), RuntimeError("unforeseen")])
async def test_what_failed_once_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(indexer, "_RETRY", 0.05)
    real: Callable[[Indexer], Awaitable[None]] = Indexer._take_in
    failures = [error]

    async def fails_once(self: Indexer) -> None:
        if failures:
            raise failures.pop()
        await real(self)

    async with tenant(tmp_path) as records:
        assert records.index is not None
        await records.index.caught_up(2, patience=10)
        monkeypatch.setattr(Indexer, "_take_in", fails_once)
        await records.accept([signed(access())])
        assert await records.index.caught_up(3, patience=10) == 3
        assert not failures
