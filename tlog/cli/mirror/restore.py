"""`tlog mirror restore`: make a lost log's directory again."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, FILE, Verb, output_option, read_bounded
from tlog.cli.output import Output


def _copy(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[Path, str]:
    """The directory of a mirror, and after it an origin, which has slashes too."""
    from tlog.mirror.config import FILE_NAME

    end = text.find("/", 1)
    while end > 0:
        directory, origin = Path(text[:end]), text[end + 1 :]
        if origin and (directory / FILE_NAME).is_file():
            return directory, origin
        end = text.find("/", end + 1)
    raise click.BadParameter(f"{text!r} is not the directory of a mirror, /, and a log's origin")


@click.command(
    cls=Verb,
    examples=(
        "curl http://127.0.0.1:6973/$ORIGIN_HASH/checkpoint > newest    # of a witness",
        "tlog mirror restore ./m1/example.com/mylog ./mylog --checkpoint newest",
    ),
)
@click.argument("copy", metavar="DIR/ORIGIN", callback=_copy)
@click.argument("target", metavar="TARGET", type=DIRECTORY)
@click.option(
    "--checkpoint",
    type=FILE,
    help="The newest checkpoint of the log that anybody has: a log that has signed more than the "
    "mirror knows is not restored.",
)
@output_option
def restore(*, copy: tuple[Path, str], target: Path, checkpoint: Path | None, out: Output) -> None:
    """Make the directory of a lost log in TARGET from its copy in the stopped mirror DIR.

    Every entry is hashed again, and held against the head that the log has signed; the log goes on
    from there. Its private keys are not in the mirror: put TARGET/keys back from your backup, and
    log.toml and policy if you have them. A log that has signed more than the mirror holds is not
    restored, because it would fork; only others know what it signed after the mirror's last look.
    """
    from tlog.mirror import restore as make
    from tlog.notes import MAX_NOTE_SIZE

    directory, origin = copy
    newest = None if checkpoint is None else read_bounded(checkpoint, MAX_NOTE_SIZE)
    with out.progress(f"restoring {origin}") as progress:
        head = make(directory, origin, target, newest=newest, progress=progress)
    out.result(
        f"{target}: {head.size} entries of {origin}, as it has signed them",
        directory=str(target),
        origin=origin,
        tree_size=head.size,
        root_hash=head.checkpoint.root_hash.hex(),
    )
    if not (target / "keys").is_dir():
        out.hint(f"Put {target}/keys back from your backup.")
    if checkpoint is None:
        out.hint(
            f"If anybody has a head of more than {head.size} entries, do not serve it: see "
            "--checkpoint."
        )
    out.hint(f"Next: tlog serve {target}")
