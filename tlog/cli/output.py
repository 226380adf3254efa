"""How verbs speak: results on standard output, hints and progress on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Protocol

import click


class Bar(Protocol):
    """Is told how much is done by now, and of how much, if that was not known before."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """Show it."""


class Output:
    """Where a verb's words go. For a program, results are JSON lines, and hints are not said."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, text: str, **fields: object) -> None:
        """Say a result: the text to a person, the fields to a program."""
        line = json.dumps(fields, ensure_ascii=False) if self.as_json else text
        # JSON can spell out what UTF-8 cannot: halves of characters, as `\ud800`.
        sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()

    def raw(self, data: bytes, **fields: object) -> None:
        """Give bytes as they are, or the fields to a program."""
        if self.as_json:
            self.result("", **fields)
        else:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def hint(self, text: str) -> None:
        """Say something that is no result."""
        if not self.as_json:
            click.echo(text, err=True)

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Bar]:
        """Show a bar while something takes long, on a terminal only."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda done, total=None: None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        ) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done, total=None: bar.update(task, completed=done, total=total)
