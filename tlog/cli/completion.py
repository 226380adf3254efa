"""`tlog completion`: let a shell complete verbs and options."""

from __future__ import annotations

import click

from tlog.cli.options import Verb


@click.command(
    cls=Verb,
    examples=(
        'eval "$(tlog completion bash)"   # in ~/.bashrc',
        "tlog completion fish > ~/.config/fish/completions/tlog.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the script that makes a shell complete verbs and options."""
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    kinds = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    script = kinds[shell](ctx.find_root().command, {}, "tlog", "_TLOG_COMPLETE")
    click.echo(script.source())
