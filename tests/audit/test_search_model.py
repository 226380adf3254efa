"""The search index against a plain model of what was recorded."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit.producer import ALICE, SHOP, access, signed
from tests.audit.tenant import TILL, indices, tenant
from tlog.audit import Draft
from tlog.audit import index as index_module
from tlog.audit.records import Records
from tlog.audit.search import Query, find
from tlog.audit.tokens import canonical, identifier_of

PEOPLE = [ALICE, "bob@example.com", "Carol@Example.com", "dave"]
BEGIN = datetime(2026, 2, 1, tzinfo=UTC)


class Clock:
    """The time of receipt, which is set by hand."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now


def drafted(dice: random.Random, now: datetime) -> Draft:
    """An event, as chance has it."""
    about = dice.sample(PEOPLE, dice.choice([1, 1, 1, 2]))
    public: dict[str, Any] = {"outcome": dice.choice(["success", "denied"])}
    if dice.random() < 0.5:
        public |= {"request_id": f"R-{dice.randrange(3)}"}
    when = now - timedelta(seconds=dice.randrange(1000))
    actor = dice.choice([*PEOPLE, "eve"])
    if dice.random() < 0.4:
        public |= {"request_id": "R-9", "request_type": "delete", "channel": "webform"}
        personal: dict[str, Any] = {"actor": {"id": actor}}
        return Draft(
            "request.received", public, personal, [{"id": a} for a in about], occurred_at=when
        )
    kind = dice.choice(["customers", "orders"])
    named: list[Any] = [f"{kind}/{number}" for number in dice.sample(range(3), 2)]
    shared: Any = dice.choice([named[0], [named[0]], [named[0], {"id": named[1]}], None])
    subjects: list[dict[str, Any]] = [{"id": each} for each in about]
    if shared is None or dice.random() < 0.2:
        for each in subjects:  # the same of two, too
            each["resource"] = dice.choice([named[0], named])
    personal = dice.choice([{"actor": actor}, {"actor": actor}, {"details": "by night"}])
    if "actor" not in personal or dice.random() < 0.2:
        for each in subjects:
            each["actor"] = dice.choice([{"id": dice.choice(PEOPLE)}, "Eve", {"ip": "192.0.2.1"}])
    return access(
        public={"purpose": "support", "resource_type": kind} | public,
        personal=personal | ({} if shared is None else {"resource": shared}),
        subjects=subjects,
        occurred_at=when,
    )


def known(draft: Draft, producer: str) -> dict[str, Any]:
    """What the model knows of an event."""
    personal, public = draft.personal, draft.public
    actors = [part.get("actor") for part in (personal, *draft.subjects)]
    said = [part.get("resource", ()) for part in (personal, *draft.subjects)]
    named = [each for one in said for each in ([one] if isinstance(one, str) else one)]
    return {
        "subjects": {canonical(each["id"]) for each in draft.subjects},
        "actors": {canonical(name) for each in actors if (name := identifier_of(each))},
        "resources": {each if isinstance(each, str) else each["id"] for each in named},
        "type": draft.type,
        "producer": producer,
        "at": draft.occurred_at,
        **{name: public.get(name, "") for name in ("request_id", "outcome", "resource_type")},
    }


@pytest.fixture
async def recorded(tmp_path: Path) -> AsyncIterator[tuple[Records, dict[int, dict[str, Any]]]]:
    """Events of three quarters, and what a plain model knows of them."""
    dice, clock = random.Random(20261125), Clock()
    model: dict[int, dict[str, Any]] = {}
    async with tenant(tmp_path, clock=clock) as records:
        seqs = {SHOP.vkey.name: 0, TILL.vkey.name: 0}
        for _ in range(3):
            for signer in (SHOP, TILL):
                drafts = [drafted(dice, clock.now) for _ in range(25)]
                name, sent = signer.vkey.name, []
                for draft in drafts:
                    seqs[name] += 1
                    sent.append(signed(draft, seqs[name], signer))
                for index, draft in zip(indices(await records.accept(sent)), drafts, strict=True):
                    model[index] = known(draft, name)
            clock.now += timedelta(days=80)
        yield records, model


def matches(one: dict[str, Any], query: Query) -> bool:
    """Whether a query finds it, by the rules that its help tells."""
    plain = ("request_id", "outcome", "producer", "resource_type")
    if any((value := getattr(query, name)) and one[name] != value for name in plain):
        return False
    subject = canonical(query.subject)
    if subject and subject not in one["subjects"]:
        return False
    if query.actor and canonical(query.actor) not in one["actors"]:
        return False
    if query.resource and query.resource not in one["resources"]:
        return False
    return (
        (not query.types or one["type"] in query.types)
        and (query.since is None or query.since <= one["at"])
        and (query.until is None or one["at"] < query.until)
    )


def asked(dice: random.Random) -> Query:
    """A query, as chance has it: mostly of one or two conditions."""
    whole: dict[str, Any] = {
        "subject": dice.choice([*PEOPLE, "nobody", " ALICE@example.COM "]),
        "actor": dice.choice([*PEOPLE, "eve", "nobody"]),
        "resource": f"customers/{dice.randrange(3)}",
        "resource_type": dice.choice(["customers", "orders", "none"]),
        "types": tuple(dice.sample(["request.received", "access.read", "x"], dice.choice([1, 2]))),
        "request_id": f"R-{dice.choice([0, 1, 9, 77])}",
        "outcome": dice.choice(["success", "denied", "partial"]),
        "producer": dice.choice(["shop", "till", "none"]),
        "since": BEGIN + timedelta(days=dice.randrange(170)),
        "until": BEGIN + timedelta(days=dice.randrange(170)),
    }
    names = dice.sample(sorted(whole), dice.choice([1, 1, 2, 2, 3]))
    return Query(newest_first=dice.random() < 0.5, **{name: whole[name] for name in names})


async def test_queries_find_what_a_model_finds(
    recorded: tuple[Records, dict[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, model = recorded
    dice, hits = random.Random(7), 0
    for _ in range(400):
        query = asked(dice)
        # Few are put in order, many are merged.
        monkeypatch.setattr(index_module, "_FEW", dice.choice([0, 1000]))
        expected = sorted(
            ((one["at"], index) for index, one in model.items() if matches(one, query)),
            reverse=query.newest_first,
        )
        hits += bool(expected)
        limit, after, found = dice.randrange(1, 12), None, []
        while True:
            places, complete_to = await find(records, query, limit=limit, after=after)
            assert complete_to == records.log.sequencer.edge.size
            # What the log itself recorded of them, a clock or a gap, is not the model's.
            found += [index for _, index in places if index in model]
            if len(places) < limit:
                break
            after = places[-1]
        assert found == [index for _, index in expected], query
    assert hits > 150
