"""One big log, read by many tests; small ones are made by the tests that write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serve.http.served import Served
from tlog.log import LogConfig

SIZE = 70_000
# Published first; what comes after is durable but hidden.
HIDDEN = 1_000


def entry(index: int) -> bytes:
    """Entry of the big log; lengths differ, one in a hundred is empty."""
    return b"" if index % 100 == 7 else b"entry %d " % index * (index % 5 + 1)


@pytest.fixture(scope="session")
def entries() -> list[bytes]:
    return [entry(index) for index in range(SIZE + HIDDEN)]


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory, entries: list[bytes]) -> Iterator[Served]:
    """A log of 71,000 durable entries, 70,000 of them published."""
    config = LogConfig(origin="example.com/big", name="big", checkpoint_interval=3600)
    with Served(tmp_path_factory.mktemp("big"), config) as served:
        # The first growth is published at once; then the hour of silence begins.
        for start in range(0, SIZE, 14_000):
            served.append(entries[start : start + 14_000])
        served.publish()
        served.append(entries[SIZE:])
        assert served.log.published.size == SIZE
        assert served.log.sequencer.edge.size == SIZE + HIDDEN
        yield served


@pytest.fixture(scope="session")
def reader(big: Served) -> Iterator[httpx.Client]:
    with big.client() as client:
        yield client


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Served]:
    """An empty log that publishes every commit."""
    config = LogConfig(
        origin="example.com/small", name="small", checkpoint_interval=0, max_entry_size=1000
    )
    with Served(tmp_path, config) as served:
        yield served


@pytest.fixture
def writer(small: Served) -> Iterator[httpx.Client]:
    with small.client() as client:
        yield client
