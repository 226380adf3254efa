"""The write path: what is recorded, once; what is refused, and what the log says of its own."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit.approvers import order
from tests.audit.producer import ALICE, CATALOGUE, SHOP, access, forged, received, signed, signer_of
from tests.audit.tenant import (
    LOG,
    NOW,
    TILL,
    create,
    indices,
    opened,
    registration,
    tenant,
    types,
    values,
)
from tlog.audit import Draft, EventRefused, TokenClass
from tlog.audit.intake import Recorded
from tlog.audit.orders import read_order
from tlog.audit.reading import Access, Caller
from tlog.audit.records import Records
from tlog.audit.sdjwt import disclose, split
from tlog.audit.search import Query, search
from tlog.audit.times import format_time
from tlog.audit.tokens import make_token
from tlog.log import Unavailable
from tlog.store import StoreFull


async def test_events_are_recorded_in_order_and_read_back(tmp_path: Path) -> None:
    drafts = [received(), access("alice@example.com", "bob@example.com"), access()]
    events = [signed(draft, seq) for seq, draft in enumerate(drafts, 1)]
    async with tenant(tmp_path) as records:
        assert indices(await records.accept(events)) == [2, 3, 4]
        assert values(records, 2) == [dict(drafts[0].personal), dict(drafts[0].subjects[0])]
        assert values(records, 3) == [
            dict(drafts[1].personal), {"id": "alice@example.com"}, {"id": "bob@example.com"},
        ]  # fmt: skip
        assert values(records, 4) == [dict(drafts[2].personal)]
        assert types(records) == [
            "producer.registered", "producer.registered",
            "request.received", "access.read", "access.read",
        ]  # fmt: skip
        assert await records.accept([]) == []
    async with opened(tmp_path) as records:
        # Sent again: after a restart, beside a new one, twice in a batch.
        new = signed(access(), 4)
        again = await records.accept([events[1], new, new, *events])
        assert again == [
            Recorded(3, duplicate=True), Recorded(5), Recorded(5, duplicate=True),
            *[Recorded(index, duplicate=True) for index in (2, 3, 4)],
        ]  # fmt: skip
        assert len(types(records)) == 6
        assert records.counters.recorded == 1
        assert records.counters.duplicates == 5


async def test_the_log_holds_nothing_personal(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        await records.accept([signed(received()), signed(access("bob@example.com"), 2)])
        await records.log.publisher.wait_for(4)
    for file in (tmp_path / "log").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert not [word for word in (b"alice", b"bob@", b"192.0.2.1") if word in data]
    for file in (tmp_path / "vault").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert not [word for word in (b"alice", b"bob@", b"192.0.2.1") if word in data]


async def test_tokens_are_of_the_class_of_the_type(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=lambda: NOW) as records:
        drafts = [
            received(occurred_at=NOW),
            access("Alice@Example.com", occurred_at=NOW),
            access("eve", occurred_at=NOW),
            access(occurred_at=NOW),
        ]
        await records.accept([signed(draft, seq) for seq, draft in enumerate(drafts, 1)])
        leaves = [records.read(index).leaf for index in range(2, 6)]
        alice = records.vault.find_subject("alice@example.com")
        eve = records.vault.find_subject("eve")
        tenant_key = records.vault.find_epoch("2026Q1")
    assert alice is not None
    assert eve is not None
    assert tenant_key is not None

    def token(key: bytes, kind: TokenClass, field: str, identifier: str) -> Any:
        return make_token(key, kind, epoch="2026Q1", field=field, identifier=identifier)

    evidence, erasable = TokenClass.EVIDENCE, TokenClass.ERASABLE
    assert [list(leaf.tokens) for leaf in leaves] == [
        [
            token(tenant_key, evidence, "subject", "alice@example.com"),
            token(tenant_key, evidence, "actor", "eve"),
        ],
        [
            token(alice.secret, erasable, "subject", "alice@example.com"),
            token(tenant_key, evidence, "actor", "eve"),
            token(alice.secret, erasable, "resource", "customers/17"),
        ],
        [  # who reads about herself is a subject: nothing of her outlives the erasure
            token(eve.secret, erasable, "subject", "eve"),
            token(eve.secret, erasable, "actor", "eve"),
            token(eve.secret, erasable, "resource", "customers/17"),
        ],
        [
            token(tenant_key, evidence, "actor", "eve"),
            token(tenant_key, evidence, "resource", "customers/17"),
        ],
    ]
    assert {leaf.received_at for leaf in leaves} == {NOW}


async def test_what_is_refused_leaves_nothing_and_stops_nobody(tmp_path: Path) -> None:
    stranger, jws = signer_of("shop", 77), split(signed(access("zoe@example.com"), 2))
    refusals = [
        (signed(access("zoe@example.com"), 2, stranger), "jws.header.kid"),
        ("~".join([jws[0][:-3] + "AAA", *jws[1], ""]), "jws.signature"),
        ("~".join([jws[0], *jws[1][:-1], ""]), "subjects[0].id"),
        (signed(Draft("log.read", {"purpose": "support"}, {}), 2), "type"),
        ("", "event"),
    ]
    async with tenant(tmp_path) as records:
        before = list(records.vault.store.items("parts")), list(records.vault.store.items("keys"))
        outcomes = await records.accept([event for event, _ in refusals])
        fields = [o.field if isinstance(o, EventRefused) else o for o in outcomes]
        assert fields == [field for _, field in refusals]
        after = list(records.vault.store.items("parts")), list(records.vault.store.items("keys"))
        assert after == before
        assert len(types(records)) == 2
        mixed = await records.accept([refusals[0][0], signed(access(), 1), "x~"])
        assert [type(outcome) for outcome in mixed] == [EventRefused, Recorded, EventRefused]
        assert records.counters.refused == 7


async def test_a_gap_a_repeat_and_a_clock_are_records_of_their_own(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        far = records.clock() + timedelta(days=400)
        events = [
            signed(access(), 1),
            signed(access(), 4),  # 2 and 3 are missing
            signed(access(), 2),  # late, which is no news
            signed(access(), 4),  # another event with a number that came
            signed(access(occurred_at=far), 5),
            signed(access(occurred_at=far), 6),  # told once
            signed(access(), 1, TILL),
        ]
        assert indices(await records.accept(events)) == [2, 3, 5, 6, 8, 10, 11]
        found = [records.read(index).payload for index in (4, 7, 9)]
        assert {claims["type"] for claims in found} == {"log.gap_detected"}
        assert {claims["about_producer"] for claims in found} == {"shop"}
        assert [
            [claims.get(name) for name in ("gap_kind", "expected_seq", "found_seq")]
            for claims in found
        ] == [["gap", 2, 4], ["repeat", 5, 4], ["clock", None, None]]
        assert found[2]["skew_seconds"] == pytest.approx(-400 * 86400, abs=60)
        assert found[0]["about_event"] == records.read(3).payload["event_id"]
        assert [claims["producer_seq"] for claims in found] == [3, 4, 5]  # gapless, as anybody's
        counters = records.counters
        assert (counters.gap, counters.repeat, counters.clock, counters.conflicts) == (1, 1, 1, 0)


async def test_an_id_with_other_content_is_recorded_and_raised(tmp_path: Path) -> None:
    event_id = "019aa000-0000-7000-8000-00000000000a"
    first, second, third = (signed(access(event_id=event_id), seq) for seq in (1, 2, 3))
    async with tenant(tmp_path) as records:
        assert await records.accept([first, second]) == [Recorded(2), Recorded(3, conflict=True)]
        assert await records.accept([second, third, first]) == [
            Recorded(3, duplicate=True), Recorded(5, conflict=True), Recorded(2, duplicate=True),
        ]  # fmt: skip
        assert types(records, 4) == ["log.conflict", "access.read", "log.conflict"]
        for index in (4, 6):
            claims = records.read(index).payload
            assert (claims["about_event"], claims["about_index"]) == (event_id, 2)
        assert records.counters.conflicts == 2
        many = [signed(access(event_id=event_id), seq) for seq in range(4, 80)]
        outcomes = await records.accept(many)
        assert [isinstance(outcome, Recorded) for outcome in outcomes] == [True] * 61 + [False] * 15


async def test_keys_change_and_what_they_signed_stays(tmp_path: Path) -> None:
    new = signer_of("shop", 2)
    now = NOW
    rotation = {
        "about_producer": "shop",
        "vkey": str(new.vkey),
        "old_vkey": str(SHOP.vkey),
        "old_valid_until": format_time(NOW + timedelta(days=1)),
    }
    revocation = {"about_producer": "shop", "old_vkey": str(new.vkey), "reason": "stolen"}
    events = [signed(access(occurred_at=NOW), seq, SHOP) for seq in (1, 2)]
    events += [signed(access(occurred_at=NOW), seq, new) for seq in (3, 4, 5)]
    async with tenant(tmp_path, clock=lambda: now) as records:
        (refused,) = await records.accept([events[2]])
        assert isinstance(refused, EventRefused)
        await records.record(Draft("producer.key_rotated", rotation, {}))
        assert len(indices(await records.accept(events[:4]))) == 4
        await records.record(Draft("producer.key_revoked", revocation, {}))
        now = NOW + timedelta(days=2)
        outcomes = await records.accept([*events, signed(access(occurred_at=NOW), 6)])
        # What was recorded before is answered as before, whatever became of its key.
        assert indices(outcomes[:4]) == [3, 4, 5, 6]
        said = [str(outcome) for outcome in outcomes[4:]]
        assert "is revoked" in said[0]
        assert "rotate it" in said[1]
        # But whoever sends it must have what was signed.
        jws, encoded = split(events[3])
        forged = jws[:-6] + ("AAAAAA" if not jws.endswith("AAAAAA") else "BBBBBA")
        (outcome,) = await records.accept(["~".join([forged, *encoded, ""])])
        assert isinstance(outcome, EventRefused)
        assert outcome.field == "jws.signature"
        with pytest.raises(EventRefused, match="rotate its key"):
            await records.record(registration(SHOP))


async def test_all_that_is_derived_comes_back_from_the_log(tmp_path: Path) -> None:
    event_id = "019aa000-0000-7000-8000-00000000000a"
    async with tenant(tmp_path) as records:
        events = [signed(access(f"{i}@example.com"), i + 1 + i // 100) for i in range(300)]
        events += [signed(access(event_id=event_id), seq, TILL) for seq in (1, 1, 3)]
        await records.accept(events)
        # An entry that is no record is skipped.
        await records.log.sequencer.submit([b"not a record"])
        await records.accept([signed(access(), 4, TILL)])
        assert records._state is not None
        registry = records._state.registry
    async with opened(tmp_path) as records:
        store = records.vault.store
        rows = list(store.items("events"))
        store.write([("events", key, None) for key, _ in rows])
        store.write([("state", b"snapshot", None)])
        state = await records._recover()
        assert state.registry == registry
        assert list(store.items("events")) == rows
        assert indices(await records.accept(events[:2])) == [2, 3]


async def test_a_mark_that_came_back_takes_no_parts_with_it(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        await records.accept([signed(access("alice@example.com"))])
        store = records.vault.store
        ((first, _), _) = store.items("parts")
        store.write([("pending", first[:48], b"")])
    async with opened(tmp_path) as records:
        assert list(records.vault.store.items("pending")) == []
        assert values(records, 2)[1] == {"id": "alice@example.com"}


async def test_a_log_older_than_its_vault_is_refused(tmp_path: Path) -> None:
    async with tenant(tmp_path / "one") as records:
        await records.accept([signed(access())])
    create(tmp_path / "two")
    (tmp_path / "one" / "log").rename(tmp_path / "one" / "newer")
    (tmp_path / "two" / "log").rename(tmp_path / "one" / "log")
    with pytest.raises(Exception, match="restored from an old copy"):
        async with opened(tmp_path / "one"):
            pass


async def test_many_callers_share_rounds_and_each_gets_its_own(tmp_path: Path) -> None:
    create(tmp_path, max_batch_entries=64)
    async with opened(tmp_path) as records:
        await records.record(registration(SHOP))
        events = [signed(access(), seq) for seq in range(1, 121)]
        calls = [records.accept(events[at : at + 40]) for at in range(0, 120, 40)]
        answers = await asyncio.gather(*calls)
        assert [index for each in answers for index in indices(each)] == list(range(1, 121))
        with pytest.raises(TimeoutError):
            # Whoever gives up does not take his events back.
            await asyncio.wait_for(records.accept([signed(access(), 121)]), 0)
    async with opened(tmp_path) as records:
        assert len(types(records)) in {121, 122}
    with pytest.raises(Unavailable, match="shutting down"):
        await records.accept(events)


@pytest.mark.parametrize("failing", ["write", "sync"])
async def test_a_vault_that_cannot_write_loses_nothing(tmp_path: Path, failing: str) -> None:
    async with tenant(tmp_path) as records:
        store, real = records.vault.store, getattr(records.vault.store, failing)

        def full(*_: Any) -> None:
            setattr(store, failing, real)
            store._unusable = "a write failed"
            raise StoreFull("no room")

        setattr(store, failing, full)
        event = signed(access("alice@example.com"))
        with pytest.raises(Unavailable, match="no room"):
            await records.accept([event])
        assert indices(await records.accept([event])) == [2]
        assert values(records, 2)[1] == {"id": "alice@example.com"}
        assert len(types(records)) == 3
        assert list(records.vault.store.items("pending")) == []
        assert len(list(records.vault.store.items("parts"))) == 2


async def test_the_key_of_the_log_itself_may_be_rotated(tmp_path: Path) -> None:
    new = signer_of("log", 10)
    rotation = {
        "about_producer": "log",
        "vkey": str(new.vkey),
        "old_vkey": str(LOG.vkey),
        "old_valid_until": format_time(NOW),
    }

    async def heartbeat(records: Records) -> Recorded:
        return await records.record(Draft("log.heartbeat", {}, {}))

    async with tenant(tmp_path, clock=lambda: NOW) as records:
        await records.record(Draft("producer.key_rotated", rotation, {}))
        log, vault = records.log, records.vault
        async with Records.opened(
            log, vault, new, tenant="acme", catalogue=records.catalogue, root=LOG.vkey
        ) as again:
            assert await heartbeat(again) == Recorded(3)
            vault.store.write([("state", b"snapshot", None)])
            state = await again._recover()
            assert state.registry.producers["log"].next_seq == 5


@pytest.mark.parametrize("blank", [" ", "\u00a0 \u3000", "\u2003"])
async def test_nobody_is_called_by_space(tmp_path: Path, blank: str) -> None:
    """It would be the key of the tenant's own records, for one erasure to take them all."""
    subjects = [disclose("id", blank)]
    async with tenant(tmp_path) as records:
        (outcome,) = await records.accept([forged([subjects])])
        assert isinstance(outcome, EventRefused)
        assert outcome.field == "subjects[0].id"
    with pytest.raises(EventRefused) as caught:
        read_order(order(subject=blank), CATALOGUE)
    assert caught.value.field == "subject"


@pytest.mark.parametrize("times", [1, 2])
async def test_a_read_that_is_called_off_is_recorded_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Its caller may hang up, and the server stop; what the disk has later is no orphan."""
    async with tenant(tmp_path) as records:
        sync = records.log.sequencer._store.sync

        def slow() -> None:
            time.sleep(0.3)
            sync()

        monkeypatch.setattr(records.log.sequencer._store, "sync", slow)
        access_ = Access(Caller("eve", "local_user"), "a complaint")
        read = asyncio.create_task(search(records, access_, Query()))
        while not records.log.sequencer.pending:
            await asyncio.sleep(0)
        for _ in range(times):
            read.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await read
        assert indices(await records.accept([signed(access(ALICE), 1)])) == [3]
        assert types(records, 2) == ["log.read", "access.read"]
        assert not any(part.missing for part in records.read(2).parts)
        assert [records.read(i).payload["producer_seq"] for i in range(3)] == [1, 2, 3]
