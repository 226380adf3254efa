"""`tlog witness`: run a witness, edit what it trusts, and ask one. One small file per verb."""

from __future__ import annotations

import click

from tlog.cli.options import Verbs
from tlog.cli.witness.add_log import add_log
from tlog.cli.witness.add_peer import add_peer
from tlog.cli.witness.clear import clear
from tlog.cli.witness.conflicts import conflicts
from tlog.cli.witness.freeze import freeze
from tlog.cli.witness.init import init
from tlog.cli.witness.rekey import rekey
from tlog.cli.witness.remove import remove
from tlog.cli.witness.serve import serve
from tlog.cli.witness.set_url import set_url
from tlog.cli.witness.status import status
from tlog.cli.witness.submit import submit
from tlog.cli.witness.unfreeze import unfreeze
from tlog.cli.witness.verify_conflict import verify_conflict


@click.group(
    cls=Verbs,
    examples=(
        "tlog witness init ./w1 --name witness.example/1 > w1.vkeys",
        'tlog witness add-log ./w1 --vkey "$VKEY" --url http://127.0.0.1:6963/mylog',
        "tlog witness serve ./w1",
    ),
)
def witness() -> None:
    """Run a witness: it cosigns heads of logs that follow from one another.

    A witness keeps the last head that it cosigned of each log that it trusts, and compares heads
    with its peers. A log that shows different histories to different people is caught, and the
    evidence is a file that verifies offline. The verbs that take DIR edit the directory of a
    witness, also while it serves; those that take --witness ask a running one.
    """


for _verb in (
    *(init, serve, add_log, rekey, set_url, freeze, unfreeze, remove, add_peer),
    *(status, conflicts, clear, verify_conflict, submit),
):
    witness.add_command(_verb)
