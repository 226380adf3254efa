"""Refusals of all rooms, said to a person or a script: one line and an exit code."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; `tlog --help` tells them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNVERIFIED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """What a verb itself refuses, or another room's refusal said with more context."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def exit_code(error: Exception) -> Exit | None:
    """The exit code for an error that was foreseen; None for a mistake in the program."""
    if isinstance(error, CommandError):
        return error.code
    # Whatever raised an error of a room has imported the room: this is no cost to `--help`.
    from tlog.client import ClientError, TimedOut, TrustError, Unreachable, VerificationError
    from tlog.log import LogError, StateRefused
    from tlog.notes import NoteError
    from tlog.store import StoreCorrupt, StoreError

    for kinds, code in (
        ((StateRefused, StoreCorrupt, TrustError, VerificationError), Exit.UNVERIFIED),
        ((Unreachable, TimedOut), Exit.UNREACHABLE),
        ((ClientError, LogError, NoteError, StoreError, OSError), Exit.FAILED),
    ):
        if isinstance(error, kinds):
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
