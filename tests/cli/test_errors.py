"""One error, one line, one code."""

from __future__ import annotations

import importlib

import pytest

from tlog.cli.errors import _CODES, CommandError, Exit, exit_code, one_line
from tlog.client import ClientError, TimedOut, Unreachable, VerificationError
from tlog.log import LogError, Overloaded, StateRefused
from tlog.notes import NoteError
from tlog.store import StoreCorrupt, StoreError, StoreLocked


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("x", Exit.INTERRUPTED), 130),
        (StateRefused("x"), 3),
        (StoreCorrupt("x"), 3),
        (VerificationError("fork", "x"), 3),
        (Unreachable("x"), 4),
        (TimedOut("x"), 4),
        (ClientError("x"), 1),
        (LogError("x"), 1),
        (Overloaded("x", retry_after=1), 1),
        (NoteError("x"), 1),
        (StoreError("x"), 1),
        (StoreLocked("x"), 1),
        (FileNotFoundError(2, "No such file", "x"), 1),
        (ValueError("a mistake"), None),
    ],
)
def test_codes(error: Exception, code: int | None) -> None:
    assert exit_code(error) == code


def test_the_names_in_the_table_exist() -> None:
    for module, name, _ in _CODES:
        assert issubclass(getattr(importlib.import_module(module), name), Exception)


def test_a_stranger_s_words_cannot_drive_a_terminal() -> None:
    assert one_line(LogError("a\x1b[31m\n  b\u202e")) == "a\\x1b[31m b\\u202e"


def test_errors_of_the_system_name_the_file() -> None:
    assert (
        one_line(PermissionError(13, "Permission denied", "keys/x")) == "keys/x: Permission denied"
    )
    assert one_line(OSError("odd")) == "odd"
