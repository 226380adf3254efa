"""`tlog init`: make a log."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.making import tell_made
from tlog.cli.options import DIRECTORY, FILE, Verb, output_option, read_bounded
from tlog.cli.output import Output

NAME_RULE = (
    "a name is 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first"
)


@click.command(
    cls=Verb,
    examples=(
        "tlog init ./mylog --origin example.com/mylog > mylog.vkeys",
        "tlog init ./mylog --origin example.com/mylog --policy witnesses",
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--origin",
    required=True,
    help="The log's identity for ever: a name like a URL without its scheme, of a domain you own.",
)
@click.option("--name", help="How requests and URLs address the log. [default: the name of DIR]")
@click.option("--dedup", is_flag=True, help="Give equal entries one index.")
@click.option(
    "--interval",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Least time between two checkpoints; 0 signs every commit.",
)
@click.option(
    "--policy",
    type=FILE,
    help="Witnesses with their URLs and the quorum, as c2sp.org/tlog-policy: no checkpoint is "
    "published without it. Kept as DIR/policy, with the log's keys put in.",
)
@output_option
def init(
    *,
    directory: Path,
    origin: str,
    name: str | None,
    dedup: bool,
    interval: float,
    policy: Path | None,
    out: Output,
) -> None:
    """Make a log in DIR, and print its two verifier keys, one a line.

    Whoever is to verify the log needs these keys, from you and not from the server. The private
    keys lie in DIR/keys; they are sealed when TLOG_PASSPHRASE or TLOG_PASSPHRASE_FILE is set.
    """
    from pydantic import ValidationError

    from tlog.log import LogConfig, create_log
    from tlog.notes import passphrase_from_environment

    try:
        config = LogConfig(
            origin=origin,
            name=name or directory.resolve().name,
            dedup=dedup,
            checkpoint_interval=interval,
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        reason = NAME_RULE if field == "name" else first["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"--{field} {first['input']!r}: {reason}") from None
    passphrase = passphrase_from_environment()
    text = None if policy is None else _read_policy(policy)
    tell_made(
        out,
        directory,
        create_log(directory, config, passphrase=passphrase, policy=text),
        sealed=passphrase is not None,
        following=f"tlog serve {directory}",
        **config.model_dump(),
    )
    if policy is not None:
        out.hint(f"Give {directory}/policy to whoever verifies the log: it names its keys too.")


def _read_policy(path: Path) -> bytes:
    """Read a policy and check that the URLs in it are ones that can be asked."""
    from tlog.notes import MAX_POLICY_SIZE, parse_policy
    from tlog.remote.addresses import parse_address

    data = read_bounded(path, MAX_POLICY_SIZE)
    for witness in parse_policy(data).witnesses:
        if witness.url:
            parse_address(witness.url)
    return data
