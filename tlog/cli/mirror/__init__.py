"""`tlog mirror`: keep verified copies of logs. One small file per verb."""

from __future__ import annotations

import click

from tlog.cli.mirror.add_log import add_log
from tlog.cli.mirror.init import init
from tlog.cli.mirror.restore import restore
from tlog.cli.mirror.serve import serve
from tlog.cli.options import Verbs


@click.group(
    cls=Verbs,
    examples=(
        "tlog mirror init ./m1 --name mirror.example/1 > m1.vkeys",
        'tlog mirror add-log ./m1 --vkey "$VKEY" --url http://127.0.0.1:6963/mylog',
        "tlog mirror serve ./m1",
    ),
)
def mirror() -> None:
    """Run a mirror: it keeps verified copies of logs, and cosigns what is on its disk.

    A mirror follows the logs that have a URL, takes uploads of the others (c2sp.org/tlog-mirror),
    and serves its copies as the logs do. A log that is lost is made again from its copy.
    """


for _verb in (init, serve, add_log, restore):
    mirror.add_command(_verb)
