"""What the clients answer with, beside heads and proofs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tlog.notes import TlogProof

Wait = Literal["durable", "published"]
"""What an append waits for: that the entry survives a crash, or that a published checkpoint, which
its proof leads to, includes it."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an appended entry stands; with a proof when its publication was waited for."""

    index: int
    proof: TlogProof | None = None


@dataclass(frozen=True, slots=True)
class LogInfo:
    """What a server says of one of its logs. Nothing of it is verified."""

    name: str
    origin: str
    vkeys: tuple[str, ...]
    tree_size: int
