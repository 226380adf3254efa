"""`--policy` and `--max-age`: whose cosignatures a verb wants to see, and how fresh."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlog.cli.options import FILE, read_bounded

if TYPE_CHECKING:
    from tlog.notes import Policy

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Duration(click.ParamType[float]):
    """A length of time, in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value))
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is not a length of time such as 90s, 10m, 24h or 7d", param, ctx)
        return int(match[1]) * _UNITS[match[2] or "s"]


def policy_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """`--policy` and `--max-age`, given to the verb as one `policy`; None if there is none."""

    @click.option(
        "--policy",
        "file",
        type=FILE,
        envvar="TLOG_POLICY",
        help="Trust policy (c2sp.org/tlog-policy): its logs, and the quorum of its witnesses. "
        "[env: TLOG_POLICY]",
    )
    @click.option(
        "--max-age",
        type=_Duration(),
        envvar="TLOG_MAX_AGE",
        metavar="DURATION",
        help="The policy's quorum must have cosigned within this time: 90s, 10m, 24h, 7d. "
        "[env: TLOG_MAX_AGE]",
    )
    @functools.wraps(verb)
    def call(*, file: Path | None, max_age: float | None, **others: Any) -> Any:
        return verb(policy=_policy(file, max_age), **others)

    return call


def _policy(file: Path | None, max_age: float | None) -> Policy | None:
    if file is None:
        if max_age is not None:
            raise click.UsageError("--max-age needs a --policy: its witnesses say what is fresh")
        return None
    from tlog.cli.errors import CommandError
    from tlog.notes import MAX_POLICY_SIZE, NoteError, parse_policy

    try:
        return parse_policy(read_bounded(file, MAX_POLICY_SIZE)).with_max_age(max_age)
    except NoteError as error:
        raise CommandError(f"{file}: {error}") from None
