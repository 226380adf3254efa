"""`tlog monitor`: follow logs, and raise the alarm."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlog.cli.errors import CommandError, Exit
from tlog.cli.options import FILE, Verb, output_option, read_bounded, vkey_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlog.cli.monitoring import Deliveries, LogSection, MonitorSettings
    from tlog.client import Monitor, Rule, Sink, Verifier, Watch
    from tlog.notes import VerifierKey

# Longer than a sink may take: what is about to arrive shall not be sent again at the next start.
GRACE_SECONDS = 35.0


@click.command(
    cls=Verb,
    examples=(
        "tlog monitor https://log.example/mylog --policy policy --match 'door [0-9]+ opened'",
        "tlog monitor 127.0.0.1:6962 --vkey \"$VKEY\" --where role=admin --command './page me'",
        "tlog monitor --config monitor.toml --metrics 127.0.0.1:9464",
    ),
)
@click.argument("sources", metavar="SOURCE...", nargs=-1)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of logs and rules: see README.",
)
@click.option("--policy", type=FILE, help="Trust policy (c2sp.org/tlog-policy) of each SOURCE.")
@vkey_option("Verifier key of SOURCE, in place of a policy; all that are given must have signed.")
@click.option("--match", "matches", multiple=True, metavar="REGEX", help="Look for entries.")
@click.option(
    "--where",
    "wheres",
    multiple=True,
    metavar="PATH[=VALUE]",
    help="Look for JSON entries: names and indices between dots, * for any.",
)
@click.option("--webhook", metavar="URL", help="POST what is found, and alarms, there.")
@click.option("--command", metavar="COMMAND", help="Run this for each, as JSON on its input.")
@click.option("--interval", type=float, metavar="SECONDS", help="Between looks. [default: 30]")
@click.option(
    "--stale-after",
    type=float,
    metavar="SECONDS",
    help="The longest that a log may show nothing newer; 0: for ever. [default: a day]",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory that remembers the logs. [default: in ~/.local/state]",
)
@click.option("--metrics", metavar="HOST:PORT", help="Serve metrics for Prometheus there.")
@click.option("--once", is_flag=True, help="Look once; exit with 3 if any alarm stands.")
@output_option
def monitor(
    *,
    sources: tuple[str, ...],
    config: Path | None,
    policy: Path | None,
    vkeys: tuple[VerifierKey, ...],
    matches: tuple[str, ...],
    wheres: tuple[str, ...],
    webhook: str | None,
    command: str | None,
    once: bool,
    out: Output,
    **flags: Any,
) -> None:
    """Follow logs; tell what is looked for, and raise the alarm when one misbehaves.

    SOURCE is the URL of a log's tiles (c2sp.org/tlog-tiles) or the HOST:PORT of a server. Every
    head is verified, and proven to follow from the last one; every entry is proven to be in the
    tree. Alarms: signature, quorum, rollback, fork, unproven, stale, entry. Everything is told at
    least once, on standard output and where --webhook and --command say, also after kill -9.
    """
    from tlog.cli.monitoring import flag_rules, read_settings, split_command

    given = {"webhook": webhook, "command": split_command(command)}
    deliveries = {key: value for key, value in given.items() if value is not None}
    logs = [{"source": one, "policy": policy, "vkeys": list(map(str, vkeys))} for one in sources]
    flags["rule"] = flag_rules(matches, wheres, deliveries)
    flags["alarms"] = deliveries or None
    settings = read_settings(config, flags, logs)
    if not settings.log:
        raise click.UsageError("nothing to follow: name a log, or a --config file with some")
    import uvloop

    from tlog.cli.logging import configure_logging

    configure_logging(as_json=out.as_json)
    uvloop.run(_monitor(settings, out, once=once))


async def _monitor(settings: MonitorSettings, out: Output, *, once: bool) -> None:
    from tlog.cli.hooks import Print
    from tlog.client import Monitor

    async with contextlib.AsyncExitStack() as stack:
        printed = Print(out)
        sinks: dict[str, Sequence[Sink]] = {
            rule.name: [printed, *_hooks(rule, stack)] for rule in settings.rule
        }
        alarms = [printed, *_hooks(settings.alarms, stack)]
        watches = [_watch(log, settings, stack) for log in settings.log]
        monitor = Monitor(watches, sinks=sinks, alarms=alarms, interval=settings.interval)
        if once:
            await monitor.once()
            return _sum_up(monitor, out)
        where = ""
        if settings.metrics is not None:
            from tlog.serve.monitor_metrics import monitor_metrics

            port = stack.enter_context(monitor_metrics(monitor, settings.metrics))
            where = f"; metrics at http://{settings.metrics.rpartition(':')[0]}:{port}/metrics"
        out.hint(f"following {len(watches)} logs, every {settings.interval:g} s{where}")
        await _until_stopped(monitor)
    return None


async def _until_stopped(monitor: Monitor) -> None:
    import asyncio

    from tlog.cli.serving import stop_on_signals

    stop = asyncio.create_task(stop_on_signals().wait())
    running = asyncio.create_task(monitor.run())
    await asyncio.wait({stop, running}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        return running.result()
    running.cancel()
    await asyncio.wait({running}, timeout=GRACE_SECONDS)
    return None


def _sum_up(monitor: Monitor, out: Output) -> None:
    standing = [
        f"{watch.name}: {kind}" for watch in monitor.watches for kind in watch.watched.alarms
    ]
    if standing:
        raise CommandError(f"alarms stand: {', '.join(standing)}", Exit.UNVERIFIED)
    if unread := [watch.name for watch in monitor.watches if not watch.reached]:
        raise CommandError(f"cannot be read: {', '.join(unread)}", Exit.UNREACHABLE)
    for watch in monitor.watches:
        out.hint(f"{watch.name}: {watch.watched.edge.size} entries, no alarm")


def _watch(log: LogSection, settings: MonitorSettings, stack: contextlib.AsyncExitStack) -> Watch:
    from tlog.client import Watch, WatchFile, default_path
    from tlog.remote import open_source

    verifier = _verifier(log)
    path = default_path("monitor", log.source)
    file = WatchFile(path if settings.state is None else settings.state / path.name, verifier)
    stack.enter_context(file.held())
    source = open_source(log.source if "://" in log.source else f"grpc://{log.source}")
    stack.push_async_callback(source.aclose)
    stale_after = settings.stale_after if log.stale_after is None else log.stale_after
    return Watch(
        log.label,
        source,
        verifier,
        file,
        rules=_rules(log, settings),
        stale_after=stale_after or None,
    )


def _rules(log: LogSection, settings: MonitorSettings) -> list[Rule]:
    from tlog.client import Rule, RuleError

    try:
        return [
            Rule.parse(rule.name, regex=rule.regex, path=rule.path, equals=rule.equals)
            for rule in settings.rule
            if not rule.logs or log.label in rule.logs
        ]
    except RuleError as error:
        raise CommandError(str(error), Exit.USAGE) from None


def _hooks(to: Deliveries, stack: contextlib.AsyncExitStack) -> list[Sink]:
    from tlog.cli.hooks import Command, Webhook

    hooks: list[Sink] = []
    if to.webhook is not None:
        hooks.append(webhook := Webhook(to.webhook))
        stack.push_async_callback(webhook.aclose)
    if to.command is not None:
        hooks.append(Command(to.command))
    return hooks


def _verifier(log: LogSection) -> Verifier:
    from tlog.client import TrustError, Verifier
    from tlog.notes import MAX_POLICY_SIZE

    if log.policy is not None:
        return Verifier(read_bounded(log.policy, MAX_POLICY_SIZE))
    if not log.vkeys:
        raise click.UsageError(f"{log.label}: a policy or vkeys are needed; nobody else is trusted")
    try:
        return Verifier.with_vkeys(log.vkeys)
    except TrustError as error:
        raise CommandError(f"{log.label}: {error}") from None
