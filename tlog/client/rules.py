"""Rules on entries: what a monitor looks for in a log.

A rule is a regular expression, or a path into an entry that is JSON, or both: then the expression
is searched in what the path leads to. Entries are written by strangers. One that a rule cannot
decide in time counts as found, so that nobody hides behind an expression that backtracks.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

RULE_SECONDS = 0.5
"""Of CPU, for one rule on one entry; all rules on a bundle of entries rarely take as long."""

_SEGMENT = re.compile(r'(?:"([^"]+)"|([^".]+))(\.|$)')
_ANY = "*"


class RuleError(ValueError):
    """A rule that cannot be followed. The message says why."""


class _SlowError(BaseException):
    """An expression took too long. Not an Exception: nothing in between may swallow it."""


class _Members(list[tuple[str, Any]]):
    """A JSON object; a name that comes twice is there twice."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What to look for. Make one with `Rule.parse`.

    Attributes:
        name: how it is spoken of.
        pattern: searched in the entry, or in what the path leads to; None if anything will do.
        path: into a JSON entry; None for the entry as text.
        equals: what the path must lead to, as text; None if anything will do.
    """

    name: str
    pattern: re.Pattern[str] | None = None
    path: tuple[str | None, ...] | None = None
    equals: str | None = None

    @classmethod
    def parse(
        cls,
        name: str,
        *,
        regex: str | None = None,
        path: str | None = None,
        equals: str | None = None,
    ) -> Rule:
        """Read a rule.

        Args:
            name: how it is spoken of.
            regex: in the syntax of Python's `re`. Bytes that are not UTF-8 are lone surrogates.
            path: names and array indices between dots, `*` for any of them; a name with a dot
                stands in double quotes. Example: `items.*."example.com/id"`.
            equals: text; numbers, booleans and null are compared as JSON writes them.

        Raises:
            RuleError: neither a regex nor a path, `equals` without a path, or one is malformed.
        """
        if regex is None and path is None:
            raise RuleError(f"rule {name!r} looks for nothing: give it a regex or a path")
        if equals is not None and path is None:
            raise RuleError(f"rule {name!r} compares nothing: give it a path")
        try:
            pattern = None if regex is None else re.compile(regex)
        except (re.error, RecursionError, OverflowError) as error:
            raise RuleError(f"rule {name!r}: {regex!r} is no regular expression: {error}") from None
        return cls(name, pattern, None if path is None else _parse_path(name, path), equals)

    def finds(self, text: str, value: Any) -> bool:
        """Whether an entry is looked for.

        Args:
            text: the entry.
            value: the entry as JSON; `NO_JSON` if it is none.
        """
        if self.path is None:
            return self._fits(text)
        return any(self._fits(_as_text(found)) for found in _follow(value, self.path))

    def _fits(self, text: str) -> bool:
        if self.equals is not None and text != self.equals:
            return False
        return self.pattern is None or self.pattern.search(text) is not None


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that a rule looks for.

    Attributes:
        offset: of the entry, among those that were searched.
        rule: which.
        certain: False if the rule could not decide in time.
    """

    offset: int
    rule: Rule
    certain: bool


NO_JSON = _Members()
"""No path leads to anything in it."""


def found(rules: Sequence[Rule], entries: Sequence[bytes]) -> list[Found]:
    """What the rules find in entries, in their order."""
    if not rules:
        return []
    try:
        # One limit for all of them is enough nearly always, and costs next to nothing.
        with _limited():
            return [
                one for offset, entry in enumerate(entries) for one in _in(rules, offset, entry)
            ]
    except _SlowError:
        return [
            one for offset, entry in enumerate(entries) for one in _in_time(rules, offset, entry)
        ]


def _in(rules: Sequence[Rule], offset: int, entry: bytes) -> Iterator[Found]:
    text, value = _as_text_and_json(rules, entry)
    for rule in rules:
        if rule.finds(text, value):
            yield Found(offset, rule, certain=True)


def _in_time(rules: Sequence[Rule], offset: int, entry: bytes) -> Iterator[Found]:
    """As `_in`, with the limit for each rule by itself."""
    text, value = _as_text_and_json(rules, entry)
    for rule in rules:
        try:
            with _limited():
                fits = rule.finds(text, value)
        except _SlowError:
            yield Found(offset, rule, certain=False)
        else:
            if fits:
                yield Found(offset, rule, certain=True)


def _as_text_and_json(rules: Sequence[Rule], entry: bytes) -> tuple[str, Any]:
    text = entry.decode("utf-8", "surrogateescape")
    if all(rule.path is None for rule in rules):
        return text, NO_JSON
    try:
        return text, json.loads(text, object_pairs_hook=_Members)
    except (ValueError, RecursionError):
        return text, NO_JSON


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise `_SlowError` inside when it takes too long; on the main thread only, as signals are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _interrupt)
    try:
        # The module `re` looks for signals while it searches.
        signal.setitimer(signal.ITIMER_VIRTUAL, RULE_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise _SlowError


def _parse_path(name: str, path: str) -> tuple[str | None, ...]:
    """The names of a path; None stands for any."""
    names: list[str | None] = []
    end = 0
    while end < len(path) or not names or path.endswith("."):
        match = _SEGMENT.match(path, end)
        if match is None:
            raise RuleError(
                f"rule {name!r}: {path!r} is no path: names stand between dots, one with a dot "
                'in double quotes, as in items.*."example.com/id"'
            )
        quoted, plain, _ = match.groups()
        names.append(quoted or (None if plain == _ANY else plain))
        end = match.end()
    return tuple(names)


def _follow(value: Any, path: tuple[str | None, ...]) -> Iterator[Any]:
    """What a path leads to; with `*`, or a name that comes twice, maybe several values."""
    values = [value]
    for name in path:
        values = [inner for outer in values for inner in _step(outer, name)]
    return iter(values)


def _step(value: Any, name: str | None) -> Iterator[Any]:
    if isinstance(value, _Members):
        yield from (inner for key, inner in value if name is None or key == name)
    elif isinstance(value, list):
        if name is None:
            yield from value
        elif name.isascii() and name.isdecimal() and len(name) < 9 and int(name) < len(value):
            yield value[int(name)]


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, _Members):
        return "{}" if not value else "{…}"
    if isinstance(value, list):
        return "[]" if not value else "[…]"
    return json.dumps(value)
