"""Rules on entries: what they find, and that no entry escapes or hangs them."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.client import Rule, RuleError
from tlog.client.rules import Found, found


def finds(entry: bytes | object, **rule: Any) -> bool:
    data = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    results = found([Rule.parse("r", **rule)], [data])
    assert all(one.certain for one in results)
    return bool(results)


@pytest.mark.parametrize(
    ("entry", "regex", "expected"),
    [
        (b"door 3 opened", r"door \d+ opened", True),
        (b"door x opened", r"door \d+ opened", False),
        (b"", "^$", True),
        ("café".encode(), "^caf[éè]$", True),
        (b"\xff\x00raw", "raw$", True),
        (b"\xff", "^\udcff$", True),
        (b"a\nb", "^b", False),
        (b"a\nb", "(?m)^b", True),
    ],
)
def test_a_regex_is_searched_in_the_entry(entry: bytes, regex: str, expected: bool) -> None:
    assert finds(entry, regex=regex) is expected


RECORD = {
    "actor": {"role": "admin", "id": 7, "on": True, "none": None, "a.b": "dotted", "*": "star"},
    "items": [{"id": "x1"}, {"id": "x2"}, "bare"],
    "0": "zero",
    "empty": {},
    "list": [],
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"path": "actor.role"}, True),
        ({"path": "actor.role", "equals": "admin"}, True),
        ({"path": "actor.role", "equals": "adm"}, False),
        ({"path": "actor.role", "regex": "^adm"}, True),
        ({"path": "actor.role", "regex": "^min"}, False),
        ({"path": "actor.role", "equals": "admin", "regex": "x"}, False),
        ({"path": "actor.nothing"}, False),
        ({"path": "role"}, False),
        ({"path": "actor.id", "equals": "7"}, True),
        ({"path": "actor.id", "equals": "7.0"}, False),
        ({"path": "actor.on", "equals": "true"}, True),
        ({"path": "actor.none", "equals": "null"}, True),
        ({"path": 'actor."a.b"', "equals": "dotted"}, True),
        ({"path": "actor.a.b"}, False),
        ({"path": 'actor."*"', "equals": "star"}, True),
        ({"path": 'actor."*"', "equals": "dotted"}, False),
        ({"path": "actor.*", "equals": "dotted"}, True),
        ({"path": "items.1.id", "equals": "x2"}, True),
        ({"path": "items.3"}, False),
        ({"path": "items.-1"}, False),
        ({"path": "items.*.id", "equals": "x2"}, True),
        ({"path": "items.*.id", "equals": "x3"}, False),
        ({"path": "items.*", "equals": "bare"}, True),
        ({"path": "0", "equals": "zero"}, True),
        ({"path": "empty"}, True),
        ({"path": "empty.*"}, False),
        ({"path": "list.*"}, False),
        ({"path": "items.99999999999999999999"}, False),
    ],
)
def test_a_path_leads_into_json(rule: dict[str, str], expected: bool) -> None:
    assert finds(RECORD, **rule) is expected


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"text",
        b"{",
        b'{"a": 1',
        b"[1, 2",
        b"\xff{}",
        b'"a"',
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b"9" * 60_000,
        b"NaN",
    ],
)
def test_what_is_no_json_object_has_no_path(entry: bytes) -> None:
    assert finds(entry, path="a") is False


def test_a_name_that_comes_twice_hides_nothing() -> None:
    entry = b'{"role": "admin", "role": "user"}'
    assert finds(entry, path="role", equals="admin")
    assert finds(entry, path="role", equals="user")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "looks for nothing"),
        ({"equals": "x"}, "looks for nothing"),
        ({"regex": "x", "equals": "x"}, "give it a path"),
        ({"regex": "("}, "no regular expression"),
        ({"regex": "a{99999999999}"}, "no regular expression"),
        *(
            ({"path": path}, "is no path")
            for path in ("", ".", "a.", ".a", "a..b", 'a"b', '"a', '""')
        ),
    ],
)
def test_rules_that_cannot_be_followed(rule: dict[str, str], said: str) -> None:
    with pytest.raises(RuleError, match=said):
        Rule.parse("r", **rule)


@given(st.text(), st.recursive(st.text() | st.integers() | st.none(), lambda x: st.lists(x) |
       st.dictionaries(st.text(), x), max_leaves=8))  # fmt: skip
def test_every_name_is_found_by_its_path(name: str, value: Any) -> None:
    if '"' in name or not name:
        return
    entry = {"outer": [0, {name: value}]}
    for path in (f'outer.1."{name}"', f'outer.*."{name}"'):
        assert finds(entry, path=path)
    if isinstance(value, str):
        assert finds(entry, path=f'outer.1."{name}"', equals=value)


@given(st.binary(max_size=300))
def test_any_entry_is_decided(entry: bytes) -> None:
    rules = [Rule.parse("a", regex="x"), Rule.parse("b", path="a.*", equals="x")]
    assert all(one.certain for one in found(rules, [entry]))


SLOW = Rule.parse("slow", regex=r"(a+)+$")


def test_an_expression_that_backtracks_counts_as_found() -> None:
    started = time.monotonic()
    fast = Rule.parse("fast", regex="b$")
    assert found([SLOW, fast], [b"b", b"aaa", b"a" * 64 + b"b"]) == [
        Found(0, fast, certain=True),
        Found(1, SLOW, certain=True),
        Found(2, SLOW, certain=False),
        Found(2, fast, certain=True),
    ]
    assert time.monotonic() - started < 5
    # And nothing of the limit is left behind.
    until = time.process_time() + 0.7
    while time.process_time() < until:
        pass
    assert found([SLOW], [b"aaa"]) == [Found(0, SLOW, certain=True)]


def test_on_another_thread_rules_work_too() -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(found([SLOW], [b"aaa"])))
    thread.start()
    thread.join()
    assert results == [Found(0, SLOW, certain=True)]
