"""tlog: an audit log that proves itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlog.client import AsyncClient, Auditor, Client, Verifier

__all__ = ["AsyncClient", "Auditor", "Client", "Verifier"]


def __getattr__(name: str) -> object:
    # Lazily: whoever imports one room must not load gRPC for all.
    if name in __all__:
        from tlog import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
