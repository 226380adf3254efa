"""Producers, held to a model that knows only sets; and what each record of them may say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.audit.producer import signer_of
from tlog.audit import EventRefused
from tlog.audit.producers import MAX_HOLES, Finding, ProducerKey, Registry
from tlog.audit.times import format_time
from tlog.notes import Algorithm, Signer

NOW = datetime(2026, 1, 31, 17, 30, tzinfo=UTC)
LOG = signer_of("log", 9)
SHOP = signer_of("shop", 1)
NEW = signer_of("shop", 2)
DAY = timedelta(days=1)


def registry() -> Registry:
    return Registry.of_service(LOG.vkey, since=NOW)


def event(producer: str, seq: int, type_name: str, **claims: Any) -> dict[str, Any]:
    return {
        "producer_id": producer,
        "producer_seq": seq,
        "type": type_name,
        "event_id": f"event {seq}",
        **claims,
    }


def apply(state: Registry, claims: dict[str, Any], now: datetime = NOW) -> list[Finding]:
    return state.apply(claims, occurred_at=now, received_at=now)


def register(signer: Signer, seq: int = 1, **claims: Any) -> dict[str, Any]:
    about = {"about_producer": signer.vkey.name, "vkey": str(signer.vkey), "roles": ["recorder"]}
    return event("log", seq, "producer.registered", **(about | claims))


def rotate(seq: int = 2, **claims: Any) -> dict[str, Any]:
    about = {
        "about_producer": "shop",
        "vkey": str(NEW.vkey),
        "old_vkey": str(SHOP.vkey),
        "old_valid_until": format_time(NOW + 7 * DAY),
    }
    return event("log", seq, "producer.key_rotated", **(about | claims))


def revoke(seq: int = 2, **claims: Any) -> dict[str, Any]:
    about = {"about_producer": "shop", "old_vkey": str(SHOP.vkey), "reason": "stolen"}
    return event("log", seq, "producer.key_revoked", **(about | claims))


class Sequences(RuleBasedStateMachine):
    """The model: which numbers of each producer came, and the greatest of them."""

    @initialize()
    def start(self) -> None:
        self.state = registry()
        apply(self.state, register(SHOP, 1))
        apply(self.state, register(signer_of("till", 3), 2))
        self.history: list[tuple[dict[str, Any], datetime]] = []
        self.came: dict[str, set[int]] = {"shop": set(), "till": set()}
        self.off = {"shop": False, "till": False}

    @rule(
        name=st.sampled_from(["shop", "till"]),
        step=st.integers(-6, 4),
        late=st.sampled_from([0, 1, 7 * 86400, 7 * 86400 + 1, -300, -301]),
    )
    def send(self, name: str, step: int, late: int) -> None:
        came = self.came[name]
        seq = max(1, max(came, default=0) + step)
        claims = event(name, seq, "access.read")
        occurred = NOW - timedelta(seconds=late)
        expected = max(came, default=0) + 1
        findings = self.state.apply(claims, occurred_at=occurred, received_at=NOW)
        wanted = []
        if seq > expected:
            wanted.append(("gap", expected, seq))
        elif seq in came:
            wanted.append(("repeat", expected, seq))
        off = late > 7 * 86400 or late < -300
        if off and not self.off[name]:
            wanted.append(("clock", 0, 0))
        assert [(f.kind, f.expected_seq, f.found_seq) for f in findings] == wanted
        assert {f.producer for f in findings} <= {name}
        self.off[name] = off
        came.add(seq)
        self.history.append((claims, occurred))

    @rule()
    def snapshot(self) -> None:
        self.state = Registry.of(self.state.made())

    @invariant()
    def the_holes_are_what_never_came(self) -> None:
        for name, came in getattr(self, "came", {}).items():
            producer = self.state.producers[name]
            missing = {n for first, last in producer.holes for n in range(first, last + 1)}
            assert missing == set(range(1, max(came, default=0) + 1)) - came
            assert producer.next_seq == max(came, default=0) + 1

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        again = registry()
        apply(again, register(SHOP, 1))
        apply(again, register(signer_of("till", 3), 2))
        for claims, occurred in self.history:
            again.apply(claims, occurred_at=occurred, received_at=NOW)
        assert again == self.state


Sequences.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSequences = Sequences.TestCase


def test_holes_are_bounded() -> None:
    state = registry()
    apply(state, register(SHOP))
    for seq in range(2, 2 * MAX_HOLES + 10, 2):
        assert [f.kind for f in apply(state, event("shop", seq, "access.read"))] == ["gap"]
    assert len(state.producers["shop"].holes) == MAX_HOLES
    # What fell out is told as a repeat rather than not at all.
    assert [f.kind for f in apply(state, event("shop", 1, "access.read"))] == ["repeat"]


def test_a_key_is_valid_in_its_time_only() -> None:
    state = registry()
    until = NOW + 30 * DAY
    times: dict[str, Any] = {
        "valid_from": format_time(NOW + DAY),
        "valid_until": format_time(until),
    }
    apply(state, register(SHOP, **times))
    kid = SHOP.vkey.label
    assert state.key(kid, now=NOW + DAY) == SHOP.vkey
    assert state.key(kid, now=until - timedelta(microseconds=1)) == SHOP.vkey
    for now, said in [(NOW, "valid from"), (until, "rotate it")]:
        with pytest.raises(EventRefused, match=said) as caught:
            state.key(kid, now=now)
        assert caught.value.field == "jws.header.kid"
    with pytest.raises(EventRefused, match="register it first"):
        state.key(NEW.vkey.label, now=NOW)


def test_rotation_leaves_the_old_key_its_time() -> None:
    state = registry()
    apply(state, register(SHOP, valid_until=format_time(NOW + 90 * DAY)))
    apply(state, rotate())
    assert state.key(NEW.vkey.label, now=NOW) == NEW.vkey
    assert state.key(SHOP.vkey.label, now=NOW + 6 * DAY) == SHOP.vkey
    with pytest.raises(EventRefused, match="rotate it"):
        state.key(SHOP.vkey.label, now=NOW + 7 * DAY)
    later = signer_of("shop", 4)
    # A second rotation cannot give the first key more time.
    late = format_time(NOW + 300 * DAY)
    apply(state, rotate(3, vkey=str(later.vkey), old_valid_until=late))
    with pytest.raises(EventRefused, match="rotate it"):
        state.key(SHOP.vkey.label, now=NOW + 7 * DAY)
    assert Registry.of(state.made()) == state


def test_a_revoked_key_signs_nothing_more() -> None:
    state = registry()
    apply(state, register(SHOP))
    apply(state, revoke())
    with pytest.raises(EventRefused, match="is revoked"):
        state.key(SHOP.vkey.label, now=NOW)
    assert isinstance(state.keys[SHOP.vkey.label], ProducerKey)  # for what it signed before
    assert Registry.of(state.made()) == state


@pytest.mark.parametrize(
    ("claims", "field"),
    [
        (register(SHOP, 2), "about_producer"),
        (register(signer_of("till", 3), 2, about_producer="tall"), "vkey"),
        (register(signer_of("till", 3), 2, roles=["service"]), "roles"),
        (register(signer_of("till", 3), 2, roles=["recorder", "king"]), "roles"),
        (
            register(
                signer_of("till", 3), 2, vkey=str(Signer.generate("till", Algorithm.MLDSA44).vkey)
            ),
            "vkey",
        ),
        (rotate(vkey=str(SHOP.vkey)), "vkey"),
        (rotate(vkey=str(LOG.vkey)), "vkey"),
        (rotate(old_vkey=str(NEW.vkey)), "old_vkey"),
        (rotate(old_vkey=str(LOG.vkey)), "old_vkey"),
        (rotate(about_producer="till"), "old_vkey"),
        (revoke(old_vkey=str(LOG.vkey)), "old_vkey"),
        (revoke(about_producer="log"), "old_vkey"),
        (event("shop", 1, "producer.key_revoked"), "type"),
        (event("shop", 1, "log.conflict"), "type"),
        (event("shop", 1, "log.exported"), "type"),
        (event("shop", 1, "log.heartbeat.own"), "type"),
        (event("shop", 1, "subject.key_destroyed"), "type"),
        (event("shop", 1, "retention.hold_released"), "type"),
    ],
)
def test_what_a_record_may_not_say_changes_nothing(claims: dict[str, Any], field: str) -> None:
    state = registry()
    apply(state, register(SHOP))
    before = state.made()
    with pytest.raises(EventRefused) as caught:
        apply(state, claims)
    assert caught.value.field == field
    assert state.made() == before


@pytest.mark.parametrize(
    ("roles", "type_name", "allowed"),
    [
        (["recorder"], "access.read", True),
        (["registrar"], "access.read", False),
        (["approver"], "access.read", False),
        (["approver"], "producer.key_revoked", False),
        (["registrar", "recorder"], "access.read", True),
        (["recorder"], "log.heartbeat", True),
        (["recorder"], "log.verified", True),
        (["registrar"], "log.heartbeat", False),
        (["approver"], "log.verified", False),
    ],
)
def test_roles(roles: list[str], type_name: str, allowed: bool) -> None:
    state = registry()
    apply(state, register(SHOP, roles=roles))
    if allowed:
        assert apply(state, event("shop", 1, type_name)) == []
    else:
        with pytest.raises(EventRefused, match="may not record"):
            apply(state, event("shop", 1, type_name))


def test_when_each_was_heard_of() -> None:
    state = registry()
    apply(state, register(SHOP))
    apply(state, register(signer_of("till", 3), 2), NOW + DAY)
    state.apply(event("shop", 1, "access.read"), occurred_at=NOW, received_at=NOW + 3 * DAY)
    heard = {name: each.heard_at for name, each in state.producers.items()}
    at = {"log": NOW + DAY, "shop": NOW + 3 * DAY, "till": NOW + DAY}
    assert heard == {name: int(time.timestamp()) for name, time in at.items()}
    made = state.made()
    assert Registry.of(made) == state
    old = {name: row[:4] for name, row in made["producers"].items()}
    again = Registry.of({**made, "producers": old})
    assert {each.heard_at for each in again.producers.values()} == {0}
    assert again.keys == state.keys


def test_a_registrar_registers() -> None:
    state = registry()
    apply(state, register(SHOP, roles=["registrar"]))
    till = register(signer_of("till", 3)) | {"producer_id": "shop"}
    assert apply(state, till) == []
    assert state.producers["till"].roles == {"recorder"}
