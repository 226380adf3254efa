"""An event is recorded with all that it brings, or not at all: no refusal leaves anything of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit.approvers import governed, order
from tests.audit.producer import ALICE, access, signed
from tests.audit.tenant import indices, opened, tenant, types, values
from tlog.audit import EventRefused
from tlog.audit import round as rounds
from tlog.audit.claims import MAX_INTEGER
from tlog.audit.erasing import submit
from tlog.audit.intake import Recorded
from tlog.audit.records import Records
from tlog.audit.round import Round
from tlog.audit.vault import FAMILIES, Sealing

# Whatever an event brings into a round goes through one of these.
STEPS = (
    (rounds, "encode_leaf"),
    (rounds, "leaf_hash"),
    (rounds, "make_token"),
    (rounds, "read_event"),
    (rounds, "sign_event"),
    (Sealing, "_seal"),
    (Sealing, "name"),
    (Sealing, "subject"),
)


def rows(records: Records) -> Counter[str]:
    """How much there is of anything."""
    found = Counter({name: len(list(records.vault.store.items(name))) for name in FAMILIES})
    counters = records.counters
    told = ("recorded", "duplicates", "gap", "conflicts", "repeat", "clock", "enrolled_again")
    return found + Counter({name: getattr(counters, name) for name in told})


@dataclass
class Failing:
    """Refuses one event at the so manieth of the steps that are taken for it."""

    left: int
    target: str
    armed: bool = False

    def step(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*given: Any, **named: Any) -> Any:
            if self.armed:
                self.left -= 1
                if self.left == -1:
                    raise EventRefused("it cannot be", field="made_up")
            return real(*given, **named)

        return stepping

    def take(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def taking(this: Round, event: Any, verified: Any = None) -> None:
            self.armed = isinstance(event, tuple) and self.target.startswith(event[0].text)
            real(this, event, verified)
            self.armed = False

        return taking


async def test_a_refusal_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an event that brings all that one can: two subjects, one erased before, each finding."""
    event_id = "019aa000-0000-7000-8000-00000000000a"
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE, event_id=event_id))])
        await submit(records, order().encode())
        far, seq, added = records.clock() + timedelta(days=400), 1, None
        for steps in range(200):
            before, size = rows(records), len(types(records))
            zoe = f"zoe{steps}@example.com"
            subjects = [{"id": name, "resource": "a/1"} for name in (ALICE, zoe)]
            target = signed(access(subjects=subjects, event_id=event_id, occurred_at=far))
            # Whoever it would have enrolled is enrolled by the next one, in the same round.
            others = [signed(access("eve"), seq + 1), signed(access(zoe), seq + 2)]
            seq += 2
            events = others if added is None else [others[0], target, others[1]]
            with monkeypatch.context() as patch:
                failing = Failing(steps - 1, target)
                for place, name in STEPS:
                    patch.setattr(place, name, failing.step(getattr(place, name)))
                patch.setattr(Round, "take", failing.take(Round.take))
                outcomes = await records.accept(events)
            if len(outcomes) == 3 and isinstance(outcomes[1], Recorded):
                break
            assert types(records, size) == ["access.read"] * 2
            assert values(records, size + 1)[1] == {"id": zoe}
            # The first time without the target, and from then on no difference.
            if steps > 1:
                assert rows(records) - before == added
            added = rows(records) - before
        assert steps > 20
        # The last one of its findings may fail: the figures have it, and the log no hole.
        assert types(records, size) == [
            "access.read", "access.read", "log.gap_detected", "log.gap_detected", "log.conflict",
            "access.read",
        ]  # fmt: skip
        assert records.counters.enrolled_again == 1
        assert records._state is not None
        registry = records._state.registry
        assert registry.producers["log"].holes == ()
    async with opened(tmp_path) as records:
        records.vault.store.write([("state", b"snapshot", None)])
        assert (await records._recover()).registry == registry


async def test_a_number_that_no_other_can_follow_is_refused(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        before = rows(records)
        last, beyond = signed(access(), MAX_INTEGER - 1), signed(access(), MAX_INTEGER)
        for _ in range(2):
            (outcome,) = await records.accept([beyond])
            assert isinstance(outcome, EventRefused)
            assert outcome.field == "producer_seq"
        assert rows(records) == before
        assert types(records, 2) == []
        assert indices(await records.accept([last])) == [2]
        # All that comes after is a repeat, and said to be.
        for event in (signed(access(), MAX_INTEGER - 1), signed(access(), 7)):
            await records.accept([event])
        assert records.counters.repeat == 1
        assert records.counters.gap == 1


async def test_an_event_whose_finding_has_no_room_is_refused_and_says_so(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        assert indices(await records.accept([signed(access(personal={}), 2)])) == [2]
        edge = records.log.sequencer.edge.size
        event, finding = (len(records.log.reader.entry(index, edge)) for index in (2, 3))
        assert event < finding - 20
        records.log.config = records.log.config.model_copy(update={"max_entry_size": finding - 20})
        before = rows(records)
        (outcome,) = await records.accept([signed(access(personal={}), 7)])
        assert isinstance(outcome, EventRefused)
        assert "log.gap_detected cannot be recorded" in str(outcome)
        assert types(records, 2) == ["access.read", "log.gap_detected"]
        assert rows(records) == before
        # Its number is as open as before.
        assert indices(await records.accept([signed(access(personal={}), 3)])) == [4]
