"""Erasure upon an order: what goes, what stays, what is refused, and what is never half done."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.audit.approvers import CISO, DPO, every_byte, governed, order
from tests.audit.dying import Dying, killed
from tests.audit.producer import ALICE, SHOP, access, forged, received, signed
from tests.audit.tenant import NOW, indices, opened, types, values
from tlog.audit import Draft, EventRefused, overview
from tlog.audit.codec import decode_base64url, dump_json, encode_base64url
from tlog.audit.erasing import Receipt, submit
from tlog.audit.errors import AuditError, Held, OrderRefused
from tlog.audit.jws import parse_jws, verify_jws
from tlog.audit.obligations import Obligations
from tlog.audit.orders import TYPE, Document, Kind, Limits, check_order, parse_document, read_order
from tlog.audit.overview import preview, standing
from tlog.audit.reading import Access, Caller
from tlog.audit.records import Records
from tlog.audit.round import Round
from tlog.audit.sdjwt import disclose
from tlog.audit.search import Query, find_all, search
from tlog.audit.survey import Survey, erased_at, survey
from tlog.audit.tokens import canonical
from tlog.audit.vault import NOBODY, Erasure, Part, split_part
from tlog.log import Overloaded, Unavailable
from tlog.log.sequencer import Sequencer
from tlog.store import StoreFull
from tlog.store.sealed import SealedStore

BOB = "bob@example.com"
LOOK = Access(Caller("olga", "local_user"), "request R-1")


async def refused(records: Records, data: bytes) -> AuditError:
    """An order that is refused leaves nothing behind."""
    size, rows = records.log.sequencer.edge.size, dict(records.vault.store.items("keys"))
    with pytest.raises(AuditError) as caught:
        await submit(records, data)
    assert (records.log.sequencer.edge.size, dict(records.vault.store.items("keys"))) == (
        size,
        rows,
    )
    return caught.value


async def test_an_erasure_from_the_order_to_the_receipt(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        events = [
            signed(received(), 1),
            signed(access("Alice@example.com"), 2),
            signed(access(ALICE, BOB), 3),
            signed(access(BOB), 4),
            signed(
                access(ALICE, type="access.disclose", public={"purpose": "x", "recipient": "ads"}),
                5,
            ),
        ]
        await records.accept(events)
        entries = [records.log.reader.entry(index, 9) for index in range(9)]
        key = records.vault.find_subject(ALICE)
        assert key is not None
        made = order()
        receipt = await submit(records, made.encode())
        assert (receipt.index, receipt.repeated, receipt.erased_before) == (9, False, False)
        assert receipt.recorded_at is not None
        assert receipt.complete_by == receipt.recorded_at + timedelta(days=30)
        claims = records.read(9).payload
        assert claims.items() >= {"key_id": key.key_id.hex(), "count": 8}.items()
        assert claims["key_sha256"] == sha256(key.secret).hexdigest()
        assert claims["approvers"] == ["ciso", "dpo"]
        assert claims["recipients"] == ["ads"]
        assert claims["event_id"] == receipt.order.order_id
        gone = Part(erasure=Erasure(9, "R-1"))
        assert records.read(4).parts == [gone, gone]
        # What is said of two is gone with the first; what is said of Bob alone is there.
        assert records.read(6).parts[:2] == [gone, gone]
        assert values(records, 6)[2] == {"id": BOB}
        assert values(records, 7)[1] == {"id": BOB}
        assert records.read(9).parts == [Part(), gone]  # the record itself says of whom no more
        assert [records.log.reader.entry(index, 10) for index in range(9)] == entries
        # The log alone proves that two approvers ordered it.
        document = parse_document(str(claims["order"]).encode())
        state = records._state
        assert state is not None
        kept = read_order(document, records.catalogue)
        assert check_order(document, kept, state.registry, tenant="acme", now=records.clock()) == [
            "ciso",
            "dpo",
        ]
        for text, signer in zip(document.signatures, (DPO, CISO), strict=True):
            verify_jws(parse_jws(text, typ=TYPE), signer.vkey)

        # The same order again, another one for her, and one for somebody unknown.
        again = await submit(records, made.encode())
        assert (again.index, again.repeated, again.claims) == (9, True, receipt.claims)
        other = await submit(records, order(request_id="R-2").encode())
        assert (other.index, other.erased_before, other.claims) == (9, True, receipt.claims)
        nobody = await submit(records, order(subject="zoe@example.com").encode())
        assert (nobody.index, nobody.claims) == (None, {})
        assert records.log.sequencer.edge.size == 10

        # She comes back: another key, which knows nothing of what was.
        assert indices(await records.accept([signed(access(ALICE), 6)])) == [10]
        fresh = records.vault.find_subject(ALICE)
        assert fresh is not None
        assert fresh.key_id != key.key_id
        assert values(records, 10)[1] == {"id": ALICE}
        assert records.read(5).parts == [gone, gone]
        assert erased_at(records.vault, ALICE) == 9
        second = await submit(records, order(request_id="R-2").encode())
        assert (second.index, second.claims["count"]) == (12, 3)
        assert records.read(10).parts == [Part(erasure=Erasure(12, "R-2"))] * 2
        assert records.read(4).parts == [gone, gone]
        assert erased_at(records.vault, "ALICE@example.com") == 12
    async with opened(tmp_path) as records:
        assert records.read(4).parts == [gone, gone]
        assert (await submit(records, made.encode())).index == 9
        assert (await submit(records, order().encode())).index == 12


async def test_secrets_and_plaintext_are_in_no_file(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        note = "she asked by post from Springfield"
        events = [signed(received(personal={"details": {"note": note}}), 1)]
        events += [signed(access(ALICE), seq) for seq in range(2, 12)]
        events += [signed(access(f"{i}@example.com"), 12 + i) for i in range(50)]
        await records.accept(events)
        for family in records.vault.store._families.values():
            family.flush(True)
        await records.accept([signed(access(ALICE), 62)])
        store, key = records.vault.store, records.vault.find_subject(ALICE)
        assert key is not None
        wrapped = store.get("keys", key.key_id)
        assert wrapped is not None
        sealed = [
            split_part(row)[1]
            for key_ in records.vault.parts_of(key.key_id)
            if (row := store.get("parts", key_)) is not None
        ]
        # A table leaves out what a key has in common with the one before it.
        lookup = records.vault.lookup(ALICE)[4:]
        secrets = [wrapped[13:], lookup, *sealed]
        assert len(sealed) == 24
        before = every_byte(tmp_path)
        assert all(secret in before for secret in secrets)
        # What opens is not there before either; that it would be found, the sealed bytes show.
        plain = [key.secret, key.secret.hex().encode(), ALICE.encode(), note.encode()]
        plain += [encode_base64url(text)[3:-3].encode() for text in (ALICE.encode(), note.encode())]
        assert not any(text in before for text in plain)

        made = order()
        await submit(records, made.encode())
        await records.log.publisher.wait_for(records.log.sequencer.edge.size)
        after = every_byte(tmp_path)
        assert not any(secret in after for secret in secrets + plain)
        assert made.disclosure.encode() not in after
        salt, *_ = json.loads(decode_base64url(made.disclosure, field="x"))
        assert salt.encode() not in after
        assert key.digest.hex().encode() in json.dumps(records.read(66).payload).encode()
    closed = every_byte(tmp_path)
    assert not any(secret in closed for secret in secrets + plain)


async def test_what_is_not_in_order_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    now = NOW
    async with governed(tmp_path, clock=lambda: now) as records:
        await records.accept([signed(access(ALICE, occurred_at=NOW), 1)])

        async def field(data: bytes) -> str:
            return (await refused(records, data)).field

        made = order(now=NOW)
        assert await field(made.kept().encode()) == "subject"
        assert await field(order(Kind.ERASE, DPO, now=NOW).encode()) == "signatures"
        assert await field(order(Kind.ERASE, DPO, SHOP, now=NOW).encode()) == "signatures[1]"
        assert await field(order(now=NOW, tenant="other").encode()) == "tenant"
        assert await field(order(now=NOW - timedelta(days=7)).encode()) == "expires_at"
        assert await field(b"{}") == "order"
        # An event has the id of the order: whoever put it there stops this order, and no other.
        taken = json.loads(made.payload)["order_id"]
        await records.accept([signed(access(event_id=taken, occurred_at=NOW), 2)])
        assert await field(made.encode()) == "order_id"
        revocation = {"about_producer": "ciso", "old_vkey": str(CISO.vkey), "reason": "left"}
        other = order(now=NOW)
        first = await submit(records, other.encode())
        await records.record(Draft("producer.key_revoked", revocation, {}, occurred_at=NOW))
        assert await field(order(now=NOW).encode()) == "signatures[1]"
        # What was carried out is answered as ever.
        now = NOW + timedelta(days=100)
        again = await submit(records, other.encode())
        assert (again.index, again.repeated) == (first.index, True)


async def test_an_order_with_the_id_of_another(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1), signed(access(BOB), 2)])
        made = order()
        await submit(records, made.encode())
        payload = json.loads(made.payload) | {"reason": "another"}
        twin = Document(dump_json(payload), made.disclosure).approved(DPO).approved(CISO)
        error = await refused(records, twin.encode())
        assert error.field == "order_id"
        assert "entry 6 is that of another order" in str(error)
        # An event with its id comes in later: a conflict, which changes no receipt.
        late = signed(access(event_id=payload["order_id"]), 3)
        await records.accept([late])
        assert types(records, 7) == ["access.read", "log.conflict"]
        assert (await submit(records, made.encode())).index == 6


async def test_holds(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept(
            [signed(received(), 1), signed(access(ALICE, BOB), 2), signed(access("carol"), 3)]
        )
        placed = await submit(records, order(Kind.PLACE).encode())
        assert placed.index == 7
        (hold,) = await standing(records, LOOK)
        assert (hold.hold_id, hold.index, hold.request_id) == ("H-1", 7, "")
        assert (hold.reason, list(hold.approvers)) == ("asked", ["ciso", "dpo"])
        error = await refused(records, order().encode())
        assert isinstance(error, Held)
        assert "held by H-1" in str(error)
        # Bob's key opens what is said of both: it is held as well.
        assert "H-1" in str(await refused(records, order(subject=BOB).encode()))
        assert (await refused(records, order(Kind.PLACE).encode())).field == "hold_id"
        assert (
            await refused(records, order(Kind.RELEASE, hold_id="H-9").encode())
        ).field == "hold_id"
        # A hold on a request holds the subjects of its records, and its own erasure.
        await submit(records, order(Kind.PLACE, hold_id="H-2", request_id="R-1").encode())
        assert "H-1, H-2" in str(await refused(records, order().encode()))
        assert "H-2" in str(await refused(records, order(subject="carol").encode()))
        assert (
            await submit(records, order(subject="carol", request_id="R-9").encode())
        ).index == 10
    async with opened(tmp_path) as records:
        assert [hold.hold_id for hold in await standing(records, LOOK)] == ["H-1", "H-2"]
        store = records.vault.store
        store.write([("state", b"snapshot", None)])
        records._state = None  # all of it comes back from the log alone
        assert [hold.index for hold in await standing(records, LOOK)] == [7, 9]
        released = await submit(records, order(Kind.RELEASE).encode())
        assert "H-2" in str(await refused(records, order().encode()))
        assert "held by H-2:" in str(await refused(records, order().encode()))
        assert (await submit(records, order(Kind.RELEASE, hold_id="H-2").encode())).index == 14
        assert await standing(records, LOOK) == []
        assert (await submit(records, order().encode())).index == 16
        assert released.index == 13
        # The hold names her no more either.
        assert records.read(7).parts == [Part(), Part(erasure=Erasure(16, "R-1"))]


async def test_a_hold_on_somebody_of_whom_nothing_is_known_yet(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await submit(records, order(Kind.PLACE).encode())
        await records.accept([signed(access(ALICE), 1)])
        assert isinstance(await refused(records, order().encode()), Held)
        snapshot = records._state
        assert snapshot is not None
        _, _, state = snapshot.snapshot()
        assert state is not None
        assert b"alice" not in state
        assert b"alice" not in every_byte(tmp_path)


async def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept(
            [
                signed(received(), 1),
                signed(access(ALICE, BOB), 2),
                signed(access(ALICE), 3),
                signed(
                    access(
                        ALICE, type="disclosure.sold",
                        public={"recipient": "ads", "data_categories": ["x"]},
                    ),
                    4,
                ),
            ]
        )  # fmt: skip
        families = ("keys", "parts", "by_subject", "subjects", "state")
        before = {name: dict(records.vault.store.items(name)) for name in families}
        seen = await preview(records, LOOK, " Alice@example.com")
        survey = seen.survey
        assert survey.types == {"request.received": 1, "access.read": 2, "disclosure.sold": 1}
        assert survey.classes == {"requests": 2, "access": 2}
        assert (survey.parts, survey.shared, list(survey.recipients)) == (8, 1, ["ads"])
        assert (seen.erased_at, seen.holds) == (None, [])
        assert (await preview(records, LOOK, "zoe")).key_id == b""
        for wrong in ("", "x" * 600):
            with pytest.raises(EventRefused):
                await preview(records, LOOK, wrong)
        await submit(records, order(Kind.PLACE, request_id="R-1").encode())
        assert (await preview(records, LOOK, ALICE)).holds == ["H-1"]
        assert (await preview(records, LOOK, BOB)).holds == []
        assert (await preview(records, Access(LOOK.caller, "x", "R-1"), BOB)).holds == ["H-1"]
        await submit(records, order(Kind.RELEASE).encode())
        after = {name: dict(records.vault.store.items(name)) for name in families}
        for name in ("keys", "subjects"):
            assert after[name] == before[name]
        for name in ("parts", "by_subject"):  # but for the records of the looks themselves
            assert after[name].items() >= before[name].items()
        await submit(records, order().encode())
        gone = await preview(records, LOOK, ALICE)
        assert (gone.key_id, gone.erased_at) == (b"", 15)


async def test_a_look_is_recorded_before_it_is_told(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(received(), 1), signed(access(ALICE), 2)])
        assert (await preview(records, LOOK, ALICE)).survey.parts == 4
        await standing(records, Access(LOOK.caller, "audit"))
        for index, purpose, count in ((6, "request R-1", 2), (7, "audit", 0)):
            claims = records.read(index).payload
            assert (claims["type"], claims["purpose"], claims["count"]) == (
                "log.read", purpose, count,
            )  # fmt: skip
            assert values(records, index)[0]["actor"] == {"id": "olga", "kind": "local_user"}
        # She finds it among her records, and it goes with her.
        found = await find_all(records, Query(subject=ALICE, types=("log.read",)))
        assert list(found) == [6]
        assert "alice" not in str(values(records, 6)[0]["details"])
        await submit(records, order().encode())
        # Whoever is erased, or was never there, is not brought back by a look.
        rows = dict(records.vault.store.items("subjects"))
        assert (await preview(records, LOOK, ALICE)).erased_at == 8
        await preview(records, LOOK, "zoe@example.com")
        assert types(records, 8) == ["subject.key_destroyed", "log.read", "log.read"]
        assert dict(records.vault.store.items("subjects")).keys() - rows.keys() <= {
            records.vault.lookup("")
        }
        for index in (9, 10):
            (shared,) = values(records, index)
            assert "example.com" not in str(shared)
            assert "subject_token" in shared["details"]["erasure_of"]

        async def full(draft: Draft) -> int:
            raise Unavailable("no room")

        records.record_alone = full  # type: ignore[method-assign]
        for told in (preview(records, LOOK, BOB), standing(records, LOOK)):
            with pytest.raises(Unavailable):
                await told


@pytest.mark.parametrize("name", ["\u21165", "Zo\u00eb\u2122", "\u00a8x", "\U0001d400lice"])
async def test_what_is_read_of_an_odd_name_is_found_by_it_and_goes_with_it(
    tmp_path: Path, name: str
) -> None:
    """NFKC brings capitals, or space, back: the form of the form was somebody else."""
    async with governed(tmp_path) as records:
        (first,) = indices(await records.accept([signed(access(name, personal={}))]))
        await search(records, LOOK, Query(subject=name))
        told = await preview(records, LOOK, name)
        assert told.survey.types == {"access.read": 1, "log.read": 1}
        await submit(records, order(subject=name).encode())
        assert types(records, first) == [
            "access.read", "log.read", "log.read", "subject.key_destroyed",
        ]  # fmt: skip
        for index in range(first, first + 4):
            said = records.read(index).parts[1]
            assert said.erasure == Erasure(first + 3, "R-1"), index
        # Nobody else was enrolled, and a look at nobody enrols nobody.
        for kept in (name, canonical(name)):
            assert (await preview(records, LOOK, kept)).erased_at == first + 3
        page = await search(records, LOOK, Query(subject=name, types=("access.read",)))
        assert not page.records
        live = [row for _, row in records.vault.store.items("keys") if row[0] == 1]
        assert len(live) == len([NOBODY])


async def test_a_name_whose_form_is_too_long_to_be_read_is_refused(tmp_path: Path) -> None:
    """Reads of it would be about that form, and could not be recorded: no page with it is shown."""
    async with governed(tmp_path) as records:
        for length, right in ((28, True), (29, False)):
            parts = [disclose("id", "\ufdfa" * length)]
            (outcome,) = await records.accept([forged([parts])])
            assert isinstance(outcome, EventRefused) is not right
        page = await search(records, LOOK, Query(types=("request.received",)))
        assert len(page.records) == 1


async def test_who_was_erased_does_not_come_back_in_silence(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE, BOB), 1)])
        await submit(records, order().encode())
        late = signed(access(ALICE), 3)
        with capture_logs() as logs:
            await records.accept([signed(access(BOB, "carol"), 2), late, signed(access(ALICE), 4)])
        assert types(records, 6) == ["access.read"] * 2 + ["log.enrolled_again", "access.read"]
        claims = records.read(8).payload
        assert (claims["about_producer"], claims["about_event"]) == (
            "shop", records.read(7).payload["event_id"],
        )  # fmt: skip
        assert values(records, 8)[1:] == [{"id": ALICE}]
        assert records.counters.enrolled_again == 1
        assert [each["log_level"] for each in logs] == ["warning"]
        assert "example.com" not in str(logs)
        # Once: she has a key now; and what comes again is a duplicate.
        await records.accept([late, signed(access(ALICE), 5)])
        assert types(records, 10) == ["access.read"]
        await submit(records, order(request_id="R-2").encode())
        assert records.read(8).parts[1].erasure == Erasure(11, "R-2")


@pytest.mark.parametrize("keys", [{}, {"key_id": "00" * 16, "into_key_id": "11" * 16}])
async def test_half_a_person_is_not_erased_untold(tmp_path: Path, keys: dict[str, str]) -> None:
    async with governed(tmp_path) as records:
        both = [{"id": ALICE}, {"id": BOB}]
        await records.accept(
            [
                signed(access(ALICE), 1),
                signed(access(BOB), 2),
                signed(Draft("subject.merged", keys, {}, both), 3),
            ]
        )
        for name in (ALICE, BOB):
            assert 6 in await find_all(records, Query(subject=name))
        alice, bob = records.vault.find_subject(ALICE), records.vault.find_subject(BOB)
        assert alice is not None
        assert bob is not None
        # By whose keys these are, whatever the producer thought.
        assert (await preview(records, LOOK, ALICE)).survey.merged == {bob.key_id: 6}
        assert (await preview(records, LOOK, BOB)).survey.merged == {alice.key_id: 6}
        await submit(records, order().encode())
        assert (await preview(records, LOOK, BOB)).survey.merged == {}


async def test_an_erasure_while_somebody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(received(), 1)])

        async def slow(*about: Any) -> Survey:
            seen = await survey(*about)
            await submit(records, order().encode())
            return seen

        monkeypatch.setattr(overview, "survey", slow)
        with pytest.raises(Unavailable, match="meanwhile"):
            await preview(records, LOOK, ALICE)
        assert types(records, 5) == ["subject.key_destroyed"]
        assert (await preview(records, LOOK, ALICE)).erased_at == 5


async def test_many_recipients_are_bounded(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept(
            [
                signed(
                    access(
                        ALICE, type="access.disclose",
                        public={"purpose": "x", "recipient": f"r{number:03}"},
                    ),
                    number,
                )
                for number in range(1, 101)
            ]
        )  # fmt: skip
        receipt = await submit(records, order().encode())
        told = receipt.claims["recipients"]
        assert (len(told), told[0]) == (64, "r001")
        assert told[-1] == "and 37 more, in the subject's records"


async def test_who_would_erase_everybody_is_stopped(tmp_path: Path) -> None:
    now = NOW

    def later() -> datetime:
        return now

    limits = Limits(erasures_per_hour=2, backup_days=1)
    async with governed(tmp_path, clock=later, limits=limits) as records:
        people = [f"{i}@example.com" for i in range(4)]
        await records.accept(
            [signed(access(each, occurred_at=NOW), i) for i, each in enumerate(people, 1)]
        )
        for each in people[:2]:
            await submit(records, order(subject=each, now=now).encode())
            now += timedelta(minutes=10)
        orders = [order(subject=each, now=now).encode() for each in people]
        with capture_logs() as logs, pytest.raises(Overloaded, match="2 erasures within") as caught:
            await submit(records, orders[2])
        assert caught.value.retry_after == 40 * 60
        assert [(each["event"], each["log_level"]) for each in logs] == [
            ("mass erasure stopped", "critical")
        ]
        assert records.counters.erasures_stopped == 1
        assert records.vault.find_subject(people[2]) is not None
    async with opened(tmp_path, clock=later, limits=limits) as records:
        with pytest.raises(Overloaded):  # a restart does not help
            await submit(records, orders[2])
        # What is no erasure is not counted.
        assert (await submit(records, orders[1])).erased_before
        now = NOW + timedelta(minutes=60)
        receipt = await submit(records, orders[2])
        assert receipt.complete_by == now + timedelta(days=1)
        with pytest.raises(Overloaded):
            await submit(records, orders[3])


async def test_many_at_once_and_a_caller_that_goes_away(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        people = [f"{i}@example.com" for i in range(6)]
        await records.accept([signed(access(each), i) for i, each in enumerate(people, 1)])
        orders = [order(subject=each).encode() for each in people]
        twice = await asyncio.gather(
            *[submit(records, each) for each in [*orders[:3], *orders[:3]]],
            records.accept([signed(access(people[0]), 7)]),
        )
        receipts = [each for each in twice if isinstance(each, Receipt)]
        assert sorted(each.repeated for each in receipts) == [False] * 3 + [True] * 3
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await submit(records, orders[3])
    async with opened(tmp_path) as records:
        for index in range(4, 8):
            assert records.read(index).parts[1].erasure is not None
        assert (await submit(records, orders[3])).repeated
    with pytest.raises(Unavailable, match="shutting down"):
        await submit(records, orders[4])


@pytest.mark.parametrize("failing", ["begin_shred", "compact_shredded", "end_shred"])
async def test_a_disk_that_fails_at_the_deed(tmp_path: Path, failing: str) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1)])
        store, real = records.vault.store, getattr(records.vault.store, failing)

        def full(*_: Any) -> None:
            setattr(store, failing, real)
            store._unusable = "a write failed"
            raise StoreFull("no room")

        setattr(store, failing, full)
        made = order().encode()
        with pytest.raises(StoreFull):
            await submit(records, made)
        receipt = await submit(records, made)
        assert (receipt.index, receipt.repeated) == (5, True)
        assert records.read(4).parts == [Part(erasure=Erasure(5, "R-1"))] * 2
        assert store.get("state", b"store/shredding") is None


async def test_a_vault_from_an_old_copy_forgets_again(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1), signed(access(BOB), 2)])
        key = records.vault.find_subject(ALICE)
        assert key is not None
        row = records.vault.store.get("keys", key.key_id)
        assert row is not None
    shutil.copytree(tmp_path / "vault", tmp_path / "copy")
    async with opened(tmp_path) as records:
        made = order().encode()
        await submit(records, made)
    shutil.rmtree(tmp_path / "vault")
    shutil.move(tmp_path / "copy", tmp_path / "vault")
    assert row[13:] in every_byte(tmp_path)
    async with opened(tmp_path) as records:
        assert records.read(4).parts == [Part(erasure=Erasure(6, "R-1"))] * 2
        assert values(records, 5)[1] == {"id": BOB}
        assert (await submit(records, made)).index == 6
        assert (await submit(records, order().encode())).erased_before
        assert row[13:] not in every_byte(tmp_path)


async def _erase(directory: Path, where: str, made: bytes) -> None:
    """Carry an order out, in a process that dies of it."""
    dying = Dying(where)
    dying.around(Round, "marks", before="before the vault")
    dying.around(SealedStore, "sync", after="between vault and log")
    dying.around(Sequencer, "_write", after="between write and sync of the log")
    dying.around(Round, "unmarks", before="after the log")
    dying.around(Obligations, "apply", after="before the deed")
    dying.around(SealedStore, "begin_shred", after="the key is written over")
    dying.around(SealedStore, "compact_shredded", after="compacted")
    dying.around(SealedStore, "end_shred", after="before the receipt")
    async with opened(directory) as records:
        dying.live = True
        await submit(records, made)


@pytest.mark.parametrize(
    ("where", "erased"),
    [
        ("before the vault", {False}),
        ("between vault and log", {False}),
        ("between write and sync of the log", {False, True}),
        ("after the log", {True}),
        ("before the deed", {True}),
        ("the key is written over", {True}),
        ("compacted", {True}),
        ("before the receipt", {True}),
    ],
)
async def test_killed(tmp_path: Path, where: str, erased: set[bool]) -> None:
    async with governed(tmp_path) as records:
        done = Draft("delete.system_erased", {"request_id": "R-1", "system": "crm"}, {})
        await records.accept(
            [signed(access(ALICE), 1), signed(access(ALICE, BOB), 2), signed(done, 3)]
        )
        key = records.vault.find_subject(ALICE)
        assert key is not None
        row = records.vault.store.get("keys", key.key_id)
        assert row is not None
    made = order().encode()
    await killed(_erase, tmp_path, where, made)
    async with opened(tmp_path) as records:
        recorded = records.log.sequencer.edge.size == 8
        assert recorded in erased
        # Recorded and destroyed, or neither: as soon as it is open.
        assert (records.vault.live_key(key.key_id) is None) is recorded
        assert (row[13:] in every_byte(tmp_path / "vault")) is not recorded
        assert list(records.vault.store.items("pending")) == []
        receipt = await submit(records, made)
        assert (receipt.index, receipt.repeated) == (7, recorded)
        assert records.read(4).parts == [Part(erasure=Erasure(7, "R-1"))] * 2
        assert values(records, 5) == [{}, {}, {"id": BOB}]
        assert row[13:] not in every_byte(tmp_path / "vault")
        assert receipt.claims["system_results"] == ["system_erased (entry 6): crm"]
        assert types(records, 5) == [
            "access.read", "delete.system_erased", "subject.key_destroyed",
        ]  # fmt: skip


async def test_an_order_that_its_record_cannot_carry(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1)])
        records.log.config.__dict__["max_entry_size"] = 1500
        error = await refused(records, order(reason="x" * 500).encode())
        assert isinstance(error, OrderRefused)
        assert "its record is refused" in str(error)


async def test_recording_goes_on_while_files_are_rewritten(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1), signed(access(BOB), 2)])
        store: Any = records.vault.store
        real, go = store.compact_shredded, threading.Event()

        def slow(begun: bytes) -> None:
            assert go.wait(20)
            real(begun)

        store.compact_shredded = slow
        made = order().encode()
        first = asyncio.ensure_future(submit(records, made))
        while not store.shredding:
            await asyncio.sleep(0.001)
        assert indices(await records.accept([signed(access(ALICE), 3)])) == [7]
        assert values(records, 7)[1] == {"id": ALICE}
        # Nobody gets a receipt yet: not for this order again, nor for another that did nothing.
        others = [
            asyncio.ensure_future(submit(records, each))
            for each in (made, order(subject="zoe").encode(), order(subject=BOB).encode())
        ]
        await records.accept([signed(access(BOB), 4)])
        assert not [each for each in (first, *others) if each.done()]
        go.set()
        *rest, last = [(await each).index for each in (first, *others)]
        assert rest == [6, 6, None]
        assert last in {9, 10}
        assert store.shredding is None
        assert values(records, 7)[1] == {"id": ALICE}
