"""Refusals of all rooms, said to a person or a script: one line and an exit code."""

from __future__ import annotations

import sys
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; `tlog --help` tells them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNVERIFIED = 3
    UNREACHABLE = 4
    LATE = 5
    INTERRUPTED = 130


class CommandError(Exception):
    """What a verb itself refuses, or another room's refusal said with more context."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


# First match counts.
_CODES = (
    ("tlog.log", "StateRefused", Exit.UNVERIFIED),
    ("tlog.store", "StoreCorrupt", Exit.UNVERIFIED),
    ("tlog.client", "TrustError", Exit.UNVERIFIED),
    ("tlog.client", "VerificationError", Exit.UNVERIFIED),
    ("tlog.client", "Unreachable", Exit.UNREACHABLE),
    ("tlog.client", "TimedOut", Exit.UNREACHABLE),
    ("tlog.client", "ClientError", Exit.FAILED),
    ("tlog.log", "LogError", Exit.FAILED),
    ("tlog.witness", "WitnessError", Exit.FAILED),
    ("tlog.audit", "AuditError", Exit.FAILED),
    ("tlog.notes", "NoteError", Exit.FAILED),
    ("tlog.store", "StoreError", Exit.FAILED),
    ("builtins", "OSError", Exit.FAILED),
)


def exit_code(error: Exception) -> Exit | None:
    """The exit code for an error that was foreseen; None for a mistake in the program."""
    if isinstance(error, CommandError):
        return error.code
    for module, name, code in _CODES:
        # Whatever raised a room's error has imported the room; the others need not be loaded.
        room = sys.modules.get(module)
        if room is not None and isinstance(error, getattr(room, name)):
            return code
    return None


def one_line(error: Exception) -> str:
    """An error's message, made harmless to a terminal: a stranger may have worded it."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Text with control characters spelt out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
