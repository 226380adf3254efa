"""A producer whose events are looked at as the server gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.audit_server import producer
from tests.client.test_producer import Taker
from tlog.client import Producer

Told = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
def shop(tmp_path: Path, taker: Taker) -> Iterator[Producer]:
    with producer(taker, tmp_path) as made:
        yield made


@pytest.fixture
def told(shop: Producer, taker: Taker) -> Told:
    """All claims of each event so far; the subjects' identifiers as `subjects`, and as `rows` what
    is named with each of them."""

    def claims() -> list[dict[str, Any]]:
        assert shop.flush(10)
        return [
            dict(event.claims)
            | {each.name: each.value for each in event.shared}
            | {"subjects": event.subject_ids()}
            | {
                "rows": [
                    each.value for part in event.subjects for each in part if each.name != "id"
                ]
            }
            for event in taker.events
        ]

    return claims
