"""Who approves: what one person alone cannot make of it, and what two together can."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.approvers import (
    CISO,
    COUNSEL,
    DPO,
    LONG_AGO,
    NEW_CISO,
    governed,
    order,
    refused,
)
from tests.audit.dying import Dying, killed
from tests.audit.producer import ALICE, CATALOGUE, SHOP, access, signed, signer_of
from tests.audit.tenant import LOG, NOW, TILL, indices, opened, registration, types
from tests.audit.test_collecting import packed, revocation, rotation, verdict_of, whys
from tlog.audit import Draft, EventRefused, approvers
from tlog.audit.approvers import ordered_record, two_stand
from tlog.audit.erasing import submit
from tlog.audit.evidence import EvidenceError
from tlog.audit.evidence_file import encode_package, read_package
from tlog.audit.orders import Document, Kind, read_order
from tlog.audit.producers import Producer, ProducerKey, Registry
from tlog.audit.records import Records
from tlog.audit.round import Round
from tlog.audit.times import format_time
from tlog.client import VerificationError, Verifier
from tlog.log.sequencer import Sequencer
from tlog.notes import Algorithm, Signer
from tlog.store.sealed import SealedStore

HR = signer_of("hr", 31)
LATER = format_time(NOW + timedelta(days=1))
TWIN = Signer.from_seed("twin", Algorithm.ED25519, DPO.seed)


def known(records: Records) -> Registry:
    assert records._state is not None
    return records._state.registry


async def said_no(records: Records, event: Draft | str) -> EventRefused:
    """An event that is refused, of the log itself or of somebody else, leaves nothing behind."""
    size, before = records.log.sequencer.edge.size, known(records).made()
    if isinstance(event, Draft):
        with pytest.raises(EventRefused) as caught:
            await records.record(event)
        refusal = caught.value
    else:
        (outcome,) = await records.accept([event])
        assert isinstance(outcome, EventRefused)
        refusal = outcome
    assert (records.log.sequencer.edge.size, known(records).made()) == (size, before)
    return refusal


def record_of(document: Document, *names: str, **changes: Any) -> Draft:
    """The record that the log would make of an order; what is changed to None is left out."""
    said = read_order(document, CATALOGUE)
    claims = {
        "reason": said.reason,
        "approvers": list(names or ("ciso", "dpo")),
        "order": document.kept(),
    }
    draft = ordered_record(said, claims, now=NOW)
    public = {**draft.public, **changes}
    return replace(draft, public={n: value for n, value in public.items() if value is not None})


@pytest.mark.parametrize("standing", [0, 1, 2])
async def test_a_registrar_says_nothing_of_approvers(tmp_path: Path, standing: int) -> None:
    async with governed(tmp_path) as records:
        for left in (DPO, CISO)[standing:]:
            await records.record(revocation(left))
        await records.record(registration(HR, "registrar"))
        seq = itertools.count(1)
        new_log = signer_of("log", 99)
        for draft, field in [
            (registration(COUNSEL, "approver"), "roles"),
            (registration(COUNSEL, "recorder", "approver"), "roles"),
            (rotation(CISO, NEW_CISO, LATER), "about_producer"),
            (revocation(CISO), "about_producer"),
            # Nor does it become the log, which may.
            (rotation(LOG, new_log, LATER), "about_producer"),
            (revocation(LOG), "about_producer"),
            (record_of(order(Kind.REGISTER)), "roles"),
            (record_of(order(Kind.ROTATE)), "about_producer"),
        ]:
            refusal = await said_no(records, signed(draft, next(seq), HR))
            assert refusal.field == field
            assert "only the log records: see tlog approver" in str(refusal)
        # All else is a registrar's, as before.
        clerk, other = signer_of("clerk", 32), signer_of("clerk", 33)
        for draft in (registration(clerk), rotation(clerk, other, LATER), revocation(clerk)):
            indices(await records.accept([signed(draft, next(seq), HR)]))
        for false in ({"approvers": ["ciso", "dpo"]}, {"order": order(Kind.REGISTER).kept()}):
            draft = registration(signer_of("extra", 34))
            draft = replace(draft, public={**draft.public, **false})
            assert (await said_no(records, signed(draft, next(seq), HR))).field == "order"
        # Whoever may register nobody may not do this either.
        draft = registration(COUNSEL, "approver")
        assert (await said_no(records, signed(draft, 1, SHOP))).field == "roles"


async def test_once_two_stand_the_log_alone_says_nothing_either(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        for draft in (
            registration(COUNSEL, "approver"),
            registration(COUNSEL, "recorder", "approver"),
            rotation(CISO, NEW_CISO, LATER),
        ):
            # Also if it comes in from outside, with the log's own key.
            for event in (draft, signed(draft, 5, LOG)):
                refusal = await said_no(records, event)
                assert refusal.field == "order"
                assert "2 approvers stand" in str(refusal)
                assert "tlog approver register" in str(refusal)
        # What concerns no approver is the operator's as before.
        await records.record(registration(HR, "registrar"))
        await records.record(rotation(SHOP, signer_of("shop", 41), LATER))
        # A stolen key is stopped at once. One is left, who orders nothing: the operator sees to it.
        await records.record(revocation(CISO))
        assert (await refused(records, order(Kind.REGISTER).encode())).field == "signatures[1]"
        await records.record(rotation(CISO, NEW_CISO, LATER))
        assert (await said_no(records, registration(COUNSEL, "approver"))).field == "order"
        await records.accept([signed(access(ALICE), 1, TILL)])
        receipt = await submit(records, order(Kind.ERASE, DPO, NEW_CISO).encode())
        assert receipt.claims["approvers"] == ["ciso", "dpo"]


async def test_two_in_one_round_are_two(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        for left in (DPO, CISO):
            await records.record(revocation(left))
        people = [signer_of(f"new{i}", 60 + i) for i in range(4)]
        outcomes = await asyncio.gather(
            *[records.record(registration(each, "approver")) for each in people],
            return_exceptions=True,
        )
        assert [isinstance(each, EventRefused) for each in outcomes] == [False, False, True, True]


async def test_an_approver_whose_time_is_over_stands_no_more(tmp_path: Path) -> None:
    now = NOW
    async with governed(tmp_path, clock=lambda: now) as records:
        await records.record(revocation(CISO))
        brief = registration(COUNSEL, "approver")
        await records.record(replace(brief, public={**brief.public, "valid_until": LATER}))
        assert (await said_no(records, registration(HR, "approver"))).field == "order"
        now = NOW + timedelta(days=1)
        await records.record(registration(HR, "approver"))


_KEYS = st.tuples(
    st.sampled_from("abc"),
    st.integers(1, 3),
    st.sampled_from(["good", "good", "good", "revoked", "over", "not yet"]),
)


@given(st.lists(_KEYS, max_size=6), st.sets(st.sampled_from("abc")))
def test_two_stand_if_two_could_sign_together(
    rows: list[tuple[str, int, str]], approving: set[str]
) -> None:
    known = Registry({name: Producer(frozenset({"recorder"})) for name in "abc"})
    for name in approving:
        known.producers[name] = Producer(frozenset({"approver", "recorder"}))
    for name, seed, state in rows:
        key = ProducerKey(signer_of(name, seed).vkey, LONG_AGO)
        match state:
            case "revoked":
                key = replace(key, revoked=True)
            case "over":
                key = replace(key, valid_until=NOW)
            case "not yet":
                key = replace(key, valid_from=NOW + timedelta(seconds=1))
        known.keys.setdefault(key.vkey.label, key)
    good = [
        key.vkey
        for key in known.keys.values()
        if key.vkey.name in approving
        and not key.revoked
        and key.valid_from <= NOW
        and key.valid_until is None
    ]
    pairs = itertools.combinations(good, 2)
    expected = any(a.name != b.name and a.public_key != b.public_key for a, b in pairs)
    assert two_stand(known, NOW) is expected


async def test_two_order_a_third_who_then_approves(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1)])
        made = order(Kind.REGISTER)
        receipt = await submit(records, made.encode())
        assert (receipt.index, receipt.repeated, receipt.complete_by) == (5, False, None)
        claims = records.read(5).payload
        assert claims.items() >= {
            "type": "producer.registered", "event_id": receipt.order.order_id,
            "about_producer": "counsel", "vkey": str(COUNSEL.vkey), "roles": ["approver"],
            "reason": "asked", "approvers": ["ciso", "dpo"], "order": made.kept(),
        }.items()  # fmt: skip
        assert known(records).producers["counsel"].roles == {"approver"}
        # Another key for one of the first two, ordered by the other and the new one.
        rotated = await submit(records, order(Kind.ROTATE, DPO, COUNSEL).encode())
        claims = records.read(6).payload
        assert claims.items() >= {
            "type": "producer.key_rotated", "about_producer": "ciso",
            "vkey": str(NEW_CISO.vkey), "old_vkey": str(CISO.vkey),
            "approvers": ["counsel", "dpo"],
        }.items()  # fmt: skip
        assert rotated.recorded_at is not None
        assert str(claims["old_valid_until"]) <= format_time(rotated.recorded_at)
        # The old key is over, the new ones approve.
        error = await refused(records, order(Kind.ERASE, DPO, CISO).encode())
        assert error.field == "signatures[1]"
        assert "was valid until" in str(error)
        # Whoever submits again gets the receipt again, and nothing is done again.
        again = await submit(records, made.encode())
        assert (again.index, again.repeated, again.claims) == (5, True, receipt.claims)
        assert records.log.sequencer.edge.size == 7
        registry = known(records).made()
        records.vault.store.write([("state", b"snapshot", None)])
        records._state = None
        done = await submit(records, order(Kind.ERASE, NEW_CISO, COUNSEL).encode())
        assert done.claims["approvers"] == ["ciso", "counsel"]
    async with opened(tmp_path) as records:
        assert known(records).keys == Registry.of(registry).keys
        assert types(records, 5)[:2] == ["producer.registered", "producer.key_rotated"]
        assert (await submit(records, made.encode())).repeated


async def test_an_order_about_approvers_that_is_not_in_order(tmp_path: Path) -> None:
    now = NOW
    async with governed(tmp_path, clock=lambda: now) as records:

        async def field(document: Document) -> str:
            return (await refused(records, document.encode())).field

        register, rotate = Kind.REGISTER, Kind.ROTATE
        for kind in (register, rotate):
            assert await field(order(kind, DPO, now=NOW)) == "signatures"
            assert await field(order(kind, DPO, SHOP, now=NOW)) == "signatures[1]"
            assert await field(order(kind, now=NOW, tenant="other")) == "tenant"
            assert await field(order(kind, now=NOW - timedelta(days=7))) == "expires_at"
        # Nobody lets himself in, nor signs with the key that he is to get.
        assert await field(order(register, DPO, COUNSEL, now=NOW)) == "signatures[1]"
        assert await field(order(rotate, DPO, NEW_CISO, now=NOW)) == "signatures[1]"
        # Whom, and which keys.
        assert await field(order(register, now=NOW, vkey=str(DPO.vkey))) == "about_producer"
        assert await field(order(register, now=NOW, vkey=str(SHOP.vkey))) == "about_producer"
        slow = Signer.generate("counsel", Algorithm.MLDSA44).vkey
        assert await field(order(register, now=NOW, vkey=str(slow))) == "vkey"
        assert await field(order(rotate, now=NOW, old_vkey=str(DPO.vkey))) == "old_vkey"
        assert await field(order(rotate, now=NOW, old_vkey=str(NEW_CISO.vkey))) == "old_vkey"
        assert await field(order(rotate, now=NOW, vkey=str(CISO.vkey))) == "vkey"
        # The shop's key is no approver's: this is not how it is rotated.
        shop = {"vkey": str(signer_of("shop", 41).vkey), "old_vkey": str(SHOP.vkey)}
        error = await refused(records, order(rotate, now=NOW, **shop).encode())
        assert "no approver: use tlog records rotate-key" in str(error)
        # A key that was taken away is not brought back by the order that gave it.
        first = order(rotate, now=NOW)
        await submit(records, first.encode())
        third = signer_of("ciso", 25)
        back = {"vkey": str(third.vkey), "old_vkey": str(NEW_CISO.vkey)}
        await submit(records, order(rotate, DPO, NEW_CISO, now=NOW, **back).encode())
        assert (await submit(records, first.encode())).repeated
        assert (await field(order(rotate, DPO, NEW_CISO, now=NOW))) == "signatures[1]"
        now = NOW + timedelta(seconds=1)
        assert (await said_no(records, record_of(first))).field == "order"
        assert (await field(order(rotate, DPO, third, now=NOW))) == "vkey"


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (Kind.REGISTER, {"vkey": str(signer_of("counsel", 77).vkey)}, "vkey: not as it was"),
        (Kind.REGISTER, {"about_producer": "hr"}, "about_producer: not as"),
        (Kind.REGISTER, {"roles": ["approver", "registrar"]}, "roles: not as"),
        (Kind.REGISTER, {"roles": ["recorder"]}, "roles: not as"),
        (Kind.REGISTER, {"reason": "another"}, "reason: not as"),
        (Kind.REGISTER, {"approvers": ["ciso", "counsel"]}, "approvers: not as"),
        (Kind.REGISTER, {"approvers": None}, "approvers: not as"),
        (Kind.REGISTER, {"order": None}, "approved by whom?"),
        (Kind.REGISTER, {"order": order(Kind.ROTATE, now=NOW).kept()}, "another thing"),
        (Kind.REGISTER, {"order": order(Kind.ERASE, now=NOW).kept()}, "another thing"),
        (Kind.REGISTER, {"order": order(Kind.REGISTER, now=NOW).kept()}, "event_id: not as"),
        (Kind.REGISTER, {"valid_from": "2026-01-01T00:00:00Z"}, "valid_from: not as"),
        (Kind.REGISTER, {"valid_until": "2027-01-01T00:00:00Z"}, "valid_until: not as"),
        (Kind.ROTATE, {"vkey": str(signer_of("ciso", 77).vkey)}, "vkey: not as"),
        (Kind.ROTATE, {"old_vkey": str(DPO.vkey)}, "old_vkey: not as"),
        (Kind.ROTATE, {"about_producer": "dpo"}, "about_producer: not as"),
        (Kind.ROTATE, {"valid_until": "2027-01-01T00:00:00Z"}, "valid_until: not as"),
        (Kind.ROTATE, {"old_valid_until": LATER}, "old key ends with the record"),
        (Kind.ROTATE, {"order": order(Kind.REGISTER, now=NOW).kept()}, "another thing"),
    ],
)
async def test_the_log_says_nothing_but_what_was_ordered(
    tmp_path: Path, kind: Kind, changes: dict[str, Any], says: str
) -> None:
    async with governed(tmp_path, clock=lambda: NOW) as records:
        made = order(kind, now=NOW)
        for event in (
            record_of(made, **changes),
            signed(replace(record_of(made, **changes), occurred_at=NOW), 5, LOG),
        ):
            refusal = await said_no(records, event)
            assert says in str(refusal)
            assert refusal.field == "order"
        await records.record(record_of(made))  # as it is, it is in order


async def test_one_key_under_two_names_makes_no_two(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.record(revocation(CISO))
        await records.record(registration(TWIN, "approver"))
        # They could order nothing: the operator still is the one to ask.
        assert (await refused(records, order(Kind.REGISTER, DPO, TWIN).encode())).field
        await records.record(registration(COUNSEL, "approver"))
        assert (await said_no(records, registration(HR, "approver"))).field == "order"


async def test_a_log_from_before_opens_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with governed(tmp_path) as records:
        with monkeypatch.context() as before:
            before.setattr(approvers, "check", lambda *_, **__: None)
            await records.record(registration(HR, "registrar"))
            drafts = [
                registration(COUNSEL, "approver"),
                rotation(CISO, NEW_CISO, LATER),
                revocation(DPO),
            ]
            events = [signed(draft, seq, HR) for seq, draft in enumerate(drafts, 1)]
            assert indices(await records.accept(events)) == [5, 6, 7]
        made = known(records).made()
        records.vault.store.write([("state", b"snapshot", None)])
        # What was recorded then gets its answer again.
        assert indices(await records.accept(events)) == [5, 6, 7]
    async with opened(tmp_path) as records:
        assert known(records).made() == made
        keys = {"vkey": str(signer_of("ciso", 25).vkey), "old_vkey": str(NEW_CISO.vkey)}
        made_now = order(Kind.ROTATE, COUNSEL, NEW_CISO, **keys)
        assert (await submit(records, made_now.encode())).index == 8
        verdict = await verdict_of(records, 8)
        assert verdict.chosen()[0].approvers == {COUNSEL.vkey.label: 5, NEW_CISO.vkey.label: 6}
        # A registrar has no say in it, nor in who stops.
        assert verdict.alone == [5, 6, 7]


async def test_evidence_proves_who_let_an_approver_in(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1)])
        await submit(records, order(Kind.REGISTER).encode())
        await submit(records, order(Kind.ROTATE, DPO, COUNSEL).encode())
        await submit(records, order(Kind.ERASE, NEW_CISO, COUNSEL).encode())
        verdict = await verdict_of(records, 4)
        keys = {0: "key", 2: "key", 3: "key", 5: "key", 6: "key"}
        assert whys(verdict) == keys | {4: "chosen", 7: "gone"}
        assert verdict.alone == []
        found = {
            each.record.index: [label.partition("+")[0] for label in each.approvers]
            for each in verdict.records
        }
        assert found[5] == ["ciso", "dpo"]
        assert found[6] == ["counsel", "dpo"]
        assert found[7] == ["ciso", "counsel"]
        assert found[2] == found[3] == []
        # Without the key of one who let counsel in, that is not proven, nor what counsel ordered.
        contents = read_package(await packed(records, 4)).contents
        less = [each for each in contents.items if each.index != 3]
        with pytest.raises(VerificationError, match=r"keys/000005: .*no producer has the key"):
            Verifier.with_vkeys(records.log.vkeys).evidence(
                encode_package(replace(contents, items=less)), service=LOG.vkey
            )


async def test_evidence_shows_an_operator_who_made_up_an_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the log's key can put what he likes into it, and is found out."""
    monkeypatch.setattr(approvers, "check", lambda *_, **__: None)
    async with governed(tmp_path) as records:
        another = order(Kind.REGISTER, vkey=str(HR.vkey))
        claims = {"about_producer": "counsel", "vkey": str(COUNSEL.vkey)}
        await records.record(record_of(another, **claims))
        with pytest.raises(EvidenceError, match="about_producer: not as it was ordered"):
            await verdict_of(records, 4)


async def _register(directory: Path, where: str, made: bytes) -> None:
    """Carry an order out, in a process that dies of it."""
    dying = Dying(where)
    dying.around(SealedStore, "sync", after="between vault and log")
    dying.around(Sequencer, "_write", after="between write and sync of the log")
    dying.around(Round, "unmarks", before="after the log")
    dying.around(Records, "_settle", before="before the receipt")
    async with opened(directory) as records:
        dying.live = True
        await submit(records, made)


@pytest.mark.parametrize(
    ("where", "recorded"),
    [
        ("between vault and log", {False}),
        ("between write and sync of the log", {False, True}),
        ("after the log", {True}),
        ("before the receipt", {True}),
    ],
)
@pytest.mark.parametrize("kind", [Kind.REGISTER, Kind.ROTATE])
async def test_killed(tmp_path: Path, kind: Kind, where: str, recorded: set[bool]) -> None:
    async with governed(tmp_path):
        pass
    made = order(kind).encode()
    await killed(_register, tmp_path, where, made)
    new = COUNSEL if kind is Kind.REGISTER else NEW_CISO
    async with opened(tmp_path) as records:
        there = records.log.sequencer.edge.size == 5
        assert there in recorded
        assert (new.vkey.label in known(records).keys) is there
        receipt = await submit(records, made)
        assert (receipt.index, receipt.repeated) == (4, there)
        await records.accept([signed(access(ALICE), 1)])
        assert (await submit(records, order(Kind.ERASE, DPO, new).encode())).index == 6
