"""`tlog hold`: legal holds, which keep what would be erased or expire. One small file per verb."""

from __future__ import annotations

import click

from tlog.cli.hold.list import list_holds
from tlog.cli.hold.place import place
from tlog.cli.hold.release import release
from tlog.cli.options import Verbs


@click.group(
    cls=Verbs,
    examples=(
        "tlog hold place --hold LIT-7 --subject alice@example.com --reason litigation "
        "--key dpo.key -o order.json",
        "tlog approve order.json --key ciso.key",
        "tlog hold place --order order.json",
        "tlog hold list --purpose audit",
    ),
)
def hold() -> None:
    """Keep the records of a subject, or of a request, whatever erasure or expiry would take them.

    Two approvers order a hold, and its release, as they do an erasure (see tlog erase).
    """


for _verb in (place, release, list_holds):
    hold.add_command(_verb)
