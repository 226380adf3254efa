"""The handler for `logging`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.audit.producer import ALICE
from tests.client.hooks.conftest import Told
from tlog.audit import EventRefused
from tlog.client import Producer
from tlog.client.hooks.logs import AuditHandler


@pytest.fixture
def logger(shop: Producer) -> Iterator[logging.Logger]:
    made = logging.getLogger("tests.audited")
    handler = AuditHandler(shop)
    made.addHandler(handler)
    made.setLevel(logging.INFO)
    yield made
    made.removeHandler(handler)


def test_what_is_marked_is_recorded(logger: logging.Logger, told: Told) -> None:
    audit = {"type": "access.read", "subject": ALICE, "purpose": "support", "details": "d"}
    logger.info("shown to %s", "somebody", extra={"audit": audit})
    logger.info("nothing to see")
    logger.debug("below the level", extra={"audit": audit})
    (event,) = told()
    assert (event["type"], event["subjects"], event["details"]) == ("access.read", [ALICE], "d")


def test_what_cannot_be_recorded_is_not_swallowed(logger: logging.Logger, told: Told) -> None:
    with pytest.raises(EventRefused, match="purpose"):
        logger.info("shown", extra={"audit": {"type": "access.read"}})
    for wrong in ("access.read", {}, {"type": 7}):
        with pytest.raises(TypeError, match="extra"):
            logger.info("shown", extra={"audit": wrong})
    assert not told()
