"""Options and argument types that several verbs share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tlog.cli.errors import CommandError
from tlog.cli.output import Output

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from tlog.notes import VerifierKey

F = TypeVar("F", bound=Callable[..., Any])

DIRECTORY = click.Path(file_okay=False, path_type=Path)
INDEX = click.IntRange(0, 2**63 - 1)
FILE = click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path)


class _Teaching(click.Command):
    """A command that teaches by examples, and takes no option that says nothing."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words of a command line, once none of them is one that nobody can mean."""
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(list(args))
            for param in self.get_params(ctx):
                _check_words(ctx, param, given.get(param.name))
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own."""
        if not self._examples:
            return
        with formatter.section("Examples"):
            for example in self._examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def _check_words(ctx: click.Context, param: click.Parameter, given: Any) -> None:
    """Refuse a value that is empty, or text that is not UTF-8; what names a file may be any bytes.

    Of an option that is left out everything is meant, and of "$WHO" nothing when that is not set.
    """
    if given is None:
        given = param.resolve_envvar_value(ctx)  # an empty variable counts as none
    is_path = isinstance(param.type, click.Path)
    is_bytes = is_path or param.type is click.UNPROCESSED
    for word in given if isinstance(given, (list, tuple)) else [given]:
        if word == "" and (is_path or isinstance(param, click.Option)):
            raise click.BadParameter(
                "it is empty: is a variable of your shell not set? Set it, or leave this out",
                ctx,
                param,
            )
        if not is_bytes and isinstance(word, str) and any("\ud800" <= c <= "\udfff" for c in word):
            raise click.BadParameter("it is not UTF-8", ctx, param)


class Verbs(_Teaching, click.Group):
    """Verbs in the order in which they are met, not of the alphabet.

    Args:
        default: the verb that is meant where options stand in its place.
    """

    def __init__(self, *args: Any, default: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words after the group's name, with its default verb put in if need be."""
        if self._default and args and args[0][:1] == "-" and args[0] not in ctx.help_option_names:
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What may come next: options of the default verb, too."""
        found = super().shell_complete(ctx, incomplete)
        if self._default and incomplete[:1] == "-":
            verb = self.commands[self._default]
            found += verb.shell_complete(click.Context(verb, parent=ctx), incomplete)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)


class Verb(_Teaching):
    """A command whose function may be a coroutine."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it to its end."""
        result = super().invoke(ctx)
        if inspect.iscoroutine(result):
            import asyncio

            return asyncio.run(result)
        return result


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


def vkey_option(
    help_text: str, *, name: str = "vkey", variable: str | None = "TLOG_VKEY"
) -> Callable[[F], F]:
    """`--vkey`, or of another name, as often as there are keys, or from a variable."""
    env = f" Repeatable. [env: {variable}, separated by spaces]" if variable else ""
    return click.option(
        f"--{name}",
        f"{name.replace('-', '_')}s",
        multiple=True,
        callback=_vkeys,
        envvar=variable,
        metavar="VKEY",
        help=help_text + env,
    )


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a file ("-": standard input) of at most `limit` bytes.

    Raises:
        CommandError: it is longer.
    """
    with click.open_file(str(path), "rb") as file:
        data: bytes = file.read(limit + 1)
    if len(data) > limit:
        raise CommandError(f"{path} has more than {limit} bytes, the most that fits")
    return data
