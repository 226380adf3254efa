"""`tlog approver`: who approves, once two do. One small file per verb."""

from __future__ import annotations

import click

from tlog.cli.approver.new_key import new_key
from tlog.cli.approver.register import register
from tlog.cli.approver.rotate import rotate
from tlog.cli.options import Verbs


@click.group(
    cls=Verbs,
    examples=(
        "tlog approver new-key counsel counsel.key",
        'tlog approver register --vkey "$VKEY" --reason "joins in May" --key dpo.key -o order.json',
        "tlog approve order.json --key ciso.key",
        "tlog approver register --order order.json",
    ),
)
def approver() -> None:
    """Register another approver, or give one another key, upon an order of two.

    The operator registers the first two with tlog records add-producer --role approver, and nobody
    after that: two approvers order it, as they do an erasure (see tlog erase).

    A key that is lost or stolen is revoked by the operator alone (tlog records revoke-key). When
    fewer than two approvers have valid keys, the operator registers others alone again. Nothing
    keeps an operator from bringing that about; the log shows the revocations, and that the new
    approvers were registered without an order.
    """


for _verb in (new_key, register, rotate):
    approver.add_command(_verb)
