"""`tlog approver new-key`: a key for somebody who is to approve."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import Verb, output_option
from tlog.cli.ordering import NEW_FILE
from tlog.cli.output import Output


@click.command(
    "new-key",
    cls=Verb,
    examples=(
        "tlog approver new-key counsel counsel.key",
        "tlog approver new-key dpo dpo-2027.key --json",
    ),
)
@click.argument("name")
@click.argument("file", type=NEW_FILE)
@output_option
def new_key(*, name: str, file: Path, out: Output) -> None:
    """Make a key for the approver NAME, in a new FILE of your own. Prints its vkey.

    Whoever approves makes the key, and gives away the vkey only: who has another's key signs as
    them. It is sealed if TLOG_PASSPHRASE is set.
    """
    from tlog.audit.claims import check_producer_name
    from tlog.notes import Algorithm, Signer, passphrase_from_environment, save_signer

    check_producer_name("NAME", name)
    signer = Signer.generate(name, Algorithm.ED25519)
    save_signer(file, signer, passphrase=passphrase_from_environment())
    out.result(str(signer.vkey), name=name, key=str(file), vkey=str(signer.vkey))
