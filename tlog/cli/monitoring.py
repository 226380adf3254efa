"""What `tlog monitor` is told to do: its file, and the same in flags."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tlog.cli.errors import CommandError

MAX_FILE_SIZE = 1 << 20
DAY = 86_400.0

Seconds = Annotated[float, Field(gt=0, le=10 * 366 * DAY)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Deliveries(_Section):
    """Where events go besides standard output."""

    webhook: str | None = None
    """URL that gets each event as a POST."""
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Program and arguments; it gets each event on standard input."""


class LogSection(_Section):
    """A log to watch."""

    source: str
    """URL of its tiles, grpc://HOST:PORT[/NAME], or HOST:PORT (gRPC)."""
    name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """How it is spoken of; the source if not given."""
    policy: Path | None = None
    """Trust policy (c2sp.org/tlog-policy)."""
    vkeys: tuple[str, ...] = ()
    """In place of a policy: keys that must all have signed."""
    stale_after: Annotated[float, Field(ge=0)] | None = None
    """As that of all logs."""

    @property
    def label(self) -> str:
        """How it is spoken of."""
        return self.name or self.source


class RuleSection(Deliveries):
    """Something to look for. See `Rule.parse`."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    regex: str | None = None
    path: str | None = None
    equals: str | None = None
    logs: tuple[str, ...] = ()
    """Names of the logs it is for; all if none are given."""


class MonitorSettings(_Section):
    """All that a monitor is told."""

    interval: Annotated[float, Field(ge=0.1, le=DAY)] = 30.0
    """Seconds between two looks at a log."""
    stale_after: Annotated[float, Field(ge=0)] = DAY
    """Seconds after which a log must have shown something newer; 0: never."""
    state: Path | None = None
    """Directory that remembers the logs."""
    metrics: str | None = None
    """HOST:PORT for Prometheus."""
    log: tuple[LogSection, ...] = ()
    rule: tuple[RuleSection, ...] = ()
    alarms: Deliveries = Deliveries()


def read_settings(file: Path | None, flags: dict[str, Any], logs: Sequence[Any]) -> MonitorSettings:
    """Put the file and the flags together: flags win, and add logs and rules.

    Paths in the file are relative to the directory that it lies in.

    Raises:
        CommandError: something is not understood.
    """
    written = _read(file) if file else {}
    flags = {key: value for key, value in flags.items() if value is not None}
    for name, more in (("log", list(logs)), ("rule", flags.pop("rule", []))):
        written[name] = [*written.get(name, []), *more]
    try:
        settings = MonitorSettings.model_validate({**written, **flags})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CommandError(f"{file or 'monitor'}: {where}: {first['msg']}") from None
    _check_names(settings)
    return settings


def flag_rules(
    matches: Sequence[str], wheres: Sequence[str], deliveries: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rules of `--match REGEX` and `--where PATH[=VALUE]`."""
    rules: list[dict[str, Any]] = [{"name": regex, "regex": regex} for regex in matches]
    for where in wheres:
        path, equals, value = where.partition("=")
        rules.append({"name": where, "path": path, "equals": value if equals else None})
    # Their names are shown; what they look for may be longer.
    return [{**rule, **deliveries, "name": rule["name"][:100]} for rule in rules]


def split_command(text: str | None) -> tuple[str, ...] | None:
    """A command line as a shell would split it; no shell runs it.

    Raises:
        CommandError: a quote has no end, or there is nothing.
    """
    if text is None:
        return None
    try:
        arguments = shlex.split(text)
    except ValueError as error:
        raise CommandError(f"--command {text!r}: {error}") from None
    if not arguments:
        raise CommandError("--command names no program")
    return tuple(arguments)


def _check_names(settings: MonitorSettings) -> None:
    logs = [log.label for log in settings.log]
    for what, names in (("logs", logs), ("rules", [rule.name for rule in settings.rule])):
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise CommandError(f"two {what} are called {doubled!r}: give one another name")
    for rule in settings.rule:
        if unknown := next((name for name in rule.logs if name not in logs), None):
            raise CommandError(f"rule {rule.name!r} is for the log {unknown!r}, which is not there")


def _read(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_SIZE + 1)
    if len(data) > MAX_FILE_SIZE:
        raise CommandError(f"{file} is longer than {MAX_FILE_SIZE} bytes")
    try:
        written = tomllib.loads(data.decode())
    except ValueError as error:
        raise CommandError(f"{file}: {error}") from None
    if isinstance(state := written.get("state"), str):
        written["state"] = file.parent / state
    logs = written.get("log")
    for log in logs if isinstance(logs, list) else []:
        if isinstance(log, dict) and isinstance(log.get("policy"), str):
            log["policy"] = file.parent / log["policy"]
    return written
