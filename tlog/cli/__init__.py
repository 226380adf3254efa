"""The `tlog` command: here the parts are put together, one small file per verb.

Results go to standard output, everything else to standard error; `--json` makes both machine
readable. `errors` is the one place that turns the refusals of all rooms into a line and an exit
code; `options` has what several verbs share, `output` how they speak. The verbs import the rooms
when they run, so that `tlog --help` and the completion of a shell are fast.
"""

import os

# gRPC's own lines on standard error would stand between ours; what they say, our errors say.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from tlog.cli.app import main

__all__ = ["main"]
