"""`tlog records`: provable records of who did what to whose data. One small file per verb."""

from __future__ import annotations

import click

from tlog.cli.options import Verbs
from tlog.cli.records.add_producer import add_producer
from tlog.cli.records.escrow import escrow
from tlog.cli.records.init import init
from tlog.cli.records.recover import recover
from tlog.cli.records.revoke_key import revoke_key
from tlog.cli.records.rotate_key import rotate_key
from tlog.cli.records.search import search
from tlog.cli.records.show import show


@click.group(
    cls=Verbs,
    default="search",
    examples=(
        "tlog init ./mylog --origin example.com/mylog",
        "tlog records init ./mylog --tenant acme",
        "tlog records add-producer ./mylog shop --key shop.key",
        "tlog serve ./mylog",
        'tlog records --subject alice@example.com --purpose "complaint 7"',
    ),
)
def records() -> None:
    """Keep records: signed events, whose personal data can be erased.

    Applications sign what they do, with a key that is registered (tlog.client.Producer). What is
    personal lies sealed in a vault, and only digests of it in the log.

    Without a verb, options are those of search: tlog records --subject WHO shows what happened to
    somebody's data, from receipt to fulfilment.
    """


for _verb in (search, show, init, add_producer, rotate_key, revoke_key, escrow, recover):
    records.add_command(_verb)
