"""The command itself: the list of verbs, and the one way out of all of them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence

import click

from tlog.cli.append import append
from tlog.cli.approve import approve
from tlog.cli.approver import approver
from tlog.cli.audit import audit
from tlog.cli.checkpoint import checkpoint
from tlog.cli.completion import completion
from tlog.cli.entries import entries
from tlog.cli.erase import erase
from tlog.cli.errors import Exit, exit_code, one_line
from tlog.cli.evidence import evidence
from tlog.cli.export import export
from tlog.cli.fsck import fsck
from tlog.cli.hold import hold
from tlog.cli.init import init
from tlog.cli.log import log
from tlog.cli.logs import logs
from tlog.cli.mirror import mirror
from tlog.cli.monitor import monitor
from tlog.cli.options import Verbs
from tlog.cli.prove import prove
from tlog.cli.records import records
from tlog.cli.reindex import reindex
from tlog.cli.report import report
from tlog.cli.requests import requests
from tlog.cli.serve import serve
from tlog.cli.verify import verify
from tlog.cli.witness import witness

HELP = """tlog: an audit log that proves itself.

\b
A first session:
  tlog init ./mylog --origin example.com/mylog
  tlog serve ./mylog &
  tlog append --proof receipt.tlog-proof "hello"
  echo -n hello > entry
  tlog verify --vkey "$VKEY" receipt.tlog-proof entry

\b
Exit codes:
  0    done
  1    refused or failed: the message says why and what to do
  2    the command was not understood
  3    verification failed: somebody lies, or data is damaged
  4    the server cannot be reached
  5    a deadline has passed (tlog requests)
  130  interrupted with Ctrl-C (serve: a second Ctrl-C)

Results go to standard output, everything else to standard error. Each verb
explains itself: tlog VERB --help.
"""


@click.group(cls=Verbs, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tlog")
def cli() -> None:
    """See HELP."""


for _verb in (
    *(init, serve, append, checkpoint, prove, verify, entries, logs),
    *(log, audit, monitor, fsck, witness),
    *(mirror, records),
    *(requests, report, export, evidence),
    *(erase, approve, hold, approver),
    *(reindex, completion),
):
    cli.add_command(_verb)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(_run(list(sys.argv[1:] if args is None else args)))


def _run(arguments: list[str]) -> int:
    # Not the option's own value: it is not known yet when a command line is not understood.
    as_json = "--json" in arguments
    try:
        # It ends quietly by itself, with 1, when whoever reads the output goes away.
        return cli.main(arguments, prog_name="tlog", standalone_mode=False) or Exit.OK
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _say(error.format_message() + hint, Exit.USAGE, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", Exit.INTERRUPTED, as_json=as_json)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        return _say(one_line(error), code, as_json=as_json)


def _say(message: str, code: Exit, *, as_json: bool) -> Exit:
    line = json.dumps({"error": message, "exit_code": code}) if as_json else f"tlog: {message}"
    with contextlib.suppress(BrokenPipeError):
        click.echo(line, err=True)
    return code
