"""All that the fuzzer ever found, and how it begins, in a second: `make fuzz` looks for more."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest

from tests.fuzz.seeds import corpus, seeds
from tests.fuzz.targets import TARGETS
from tests.tools.papers import DAMAGES

SEEDS = seeds()


def test_each_target_has_a_beginning() -> None:
    assert SEEDS.keys() == TARGETS.keys()
    assert all(corpus(target) for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found(target: str) -> None:
    for data in (*SEEDS[target], *corpus(target), b"", b"\n", b"\0"):
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_damage(target: str) -> None:
    choose = random.Random(target)
    beginnings = [*SEEDS[target], *corpus(target)]
    for _ in range(60):
        data = choose.choice(beginnings)
        for _ in range(choose.randint(1, 3)):
            data = choose.choice(DAMAGES)(choose, data or b"\n")
        TARGETS[target](data)


# What makes careless parsers slow, deep or large, in so few bytes that no bound refuses them.
HEAVY = (
    b"\n",
    b"[",
    b"a",
    b"9",
    b"\xe2\x80\x94 a AAAAAAA=\n",
    b"a=[",
    b"a.",
    b" ",
    b"\t,",
    b'{"a":',
)
SIZE = 20_000


@pytest.mark.parametrize("target", TARGETS)
def test_time_and_memory_are_bounded_by_the_size(target: str) -> None:
    good = SEEDS[target][0]
    lines = good.splitlines(True)
    for piece in (*HEAVY, good, *lines[:3]):
        data = piece * (SIZE // len(piece))
        begun = time.process_time()
        tracemalloc.start()
        try:
            TARGETS[target](data)
            TARGETS[target](good + data)
            TARGETS[target](b"a = " + data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 << 20, (piece, peak)
        assert time.process_time() - begun < 3, piece
