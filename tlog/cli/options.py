"""Options and argument types that several verbs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.notes import VerifierKey

F = TypeVar("F", bound=Callable[..., Any])

DIRECTORY = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path)


class Verb(click.Command):
    """A command that teaches by examples."""

    def __init__(self, *args: Any, examples: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own."""
        with formatter.section("Examples"):
            for example in self._examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def _vkeys(
    _ctx: click.Context, _param: click.Parameter, texts: Sequence[str]
) -> tuple[VerifierKey, ...]:
    if not texts:
        return ()
    from tlog.notes import NoteError, VerifierKey

    try:
        return tuple(map(VerifierKey.parse, texts))
    except NoteError as error:
        raise click.BadParameter(str(error)) from None


output_option = click.option(
    "--json",
    "out",
    is_flag=True,
    callback=lambda _ctx, _param, value: Output(as_json=value),
    help="Print results as JSON, one object a line; errors as an object on standard error.",
)


def vkey_option(help_text: str) -> Callable[[F], F]:
    """`--vkey`, as often as there are keys."""
    return click.option(
        "--vkey",
        "vkeys",
        multiple=True,
        callback=_vkeys,
        envvar="TLOG_VKEY",
        metavar="VKEY",
        help=f"{help_text} Repeatable. [env: TLOG_VKEY, separated by spaces]",
    )
