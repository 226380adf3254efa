"""A maximum age of cosignatures: the quorum must be met by those that are fresh."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notes.keyring import HEAD, LOG_ED, LOG_PQ, TIME, signer
from tlog.notes import (
    Algorithm,
    NoteError,
    Policy,
    Subtree,
    cosign,
    cosign_subtree,
    parse_policy,
    sign_checkpoint,
)
from tlog.notes.policy import MAX_AHEAD, duration

WITNESSES = {
    "a": signer("witness.example/a", Algorithm.ED25519_COSIGNATURE),
    "b": signer("witness.example/b", Algorithm.MLDSA44),
    "c": signer("witness.example/c", Algorithm.ED25519_COSIGNATURE),
}
TEXT = (
    f"log {LOG_ED.vkey}\n"
    + "".join(f"witness {name} {key.vkey}\n" for name, key in WITNESSES.items())
    + "group two-of-three 2 a b c\nquorum two-of-three\n"
).encode()
SIGNED = sign_checkpoint(HEAD, [LOG_ED, LOG_PQ], timestamp=TIME)
HOUR = 3600


def note(times: Mapping[str, int]) -> bytes:
    return SIGNED + b"".join(
        cosign(HEAD, WITNESSES[name], timestamp=time).encode() for name, time in times.items()
    )


def policy(max_age: float | None = HOUR) -> Policy:
    return parse_policy(TEXT).with_max_age(max_age)


def test_to_the_second() -> None:
    for name, other in (("a", "b"), ("b", "a")):
        for age, fresh in (
            (0, True),
            (HOUR, True),
            (HOUR + 1, False),
            (-MAX_AHEAD, True),
            (-MAX_AHEAD - 1, False),
        ):
            verdict = policy().evaluate(note({name: TIME - age, other: TIME}), now=TIME)
            assert verdict.satisfied is fresh
            assert verdict.stale == (() if fresh else (name,))


def test_the_message_says_who_and_when() -> None:
    verdict = policy().evaluate(note({"a": TIME, "b": TIME - 7300, "c": TIME + 120}), now=TIME)
    assert verdict.reason == (
        "quorum 'two-of-three' is not met: cosigned by 'a' in the last 1 h (by 'b' 2 h 1 min ago, "
        "by 'c' 2 min in the future); 'two-of-three' has 1 of the 2 it needs, missing 'b', 'c'"
    )
    with pytest.raises(NoteError, match="2 h 1 min ago"):
        policy().open(note({"a": TIME, "b": TIME - 7300}), now=TIME)
    assert policy().open(note({"a": TIME, "c": TIME, "b": 1}), now=TIME).cosigned_by == ("a", "c")


def test_the_time_of_the_log_itself_says_nothing() -> None:
    # LOG_PQ signs with a time, but a log that withholds new heads would say any time.
    assert not policy().evaluate(note({"a": 1, "b": 1}), now=TIME).satisfied


def test_the_newest_of_two_cosignatures_counts() -> None:
    old = cosign(HEAD, WITNESSES["a"], timestamp=1).encode()
    for lines in (old + note({"a": TIME, "b": TIME})[len(SIGNED) :], b""):
        data = SIGNED + lines if lines else note({"a": TIME, "b": TIME}) + old
        assert policy().evaluate(data, now=TIME).cosigned_by == ("a", "b")


def test_a_cosignature_without_a_time_is_not_fresh() -> None:
    tree = Subtree(HEAD.origin, 0, HEAD.size, HEAD.root_hash)
    timeless = cosign_subtree(tree, WITNESSES["b"], timestamp=0).encode()
    data = note({"a": TIME}) + timeless
    assert policy(None).evaluate(data).satisfied
    verdict = policy(1e9 * 8).evaluate(data, now=TIME)
    assert not verdict.satisfied
    assert "at no time that it says" in verdict.reason


def test_no_age_is_demanded_unless_asked() -> None:
    assert policy(None).evaluate(note({"a": 1, "b": TIME * 2})).satisfied
    with pytest.raises(ValueError, match="time"):
        policy().evaluate(note({"a": TIME, "b": TIME}))


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, -math.inf])
def test_ages_that_are_none(seconds: float) -> None:
    with pytest.raises(NoteError, match="maximum age"):
        policy(seconds)


def test_without_a_quorum_nobody_says_what_is_fresh() -> None:
    with pytest.raises(NoteError, match="quorum"):
        parse_policy(f"log {LOG_ED.vkey}\nquorum none\n".encode()).with_max_age(1)


def test_no_line_of_a_policy_demands_it() -> None:
    """SPEC tlog-policy: comments "are allowed and ignored", and there are four keywords."""
    assert parse_policy(b"# max_age 1\n" + TEXT).max_age is None
    with pytest.raises(NoteError, match="line 1"):
        parse_policy(b"max_age 1\n" + TEXT)


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(TIME - 5000, TIME + 200)),
    st.integers(1, 6000),
)
def test_as_many_as_are_fresh_make_the_quorum(times: dict[str, int], max_age: int) -> None:
    signed_by = {WITNESSES[name].vkey: time for name, time in times.items()}
    weighed = policy(max_age).weigh(signed_by, now=TIME)
    fresh = {name for name, time in times.items() if TIME - max_age <= time <= TIME + MAX_AHEAD}
    assert set(weighed.cosigned_by) == fresh
    assert set(weighed.stale) == times.keys() - fresh
    assert weighed.satisfied is (len(fresh) >= 2)


def test_durations() -> None:
    said = {0.5: "0.5 s", 1: "1 s", 61: "1 min 1 s", 3600: "1 h", 90_061: "1 d 1 h"}
    assert {seconds: duration(seconds) for seconds in said} == said
