"""Erasure upon an order: what goes, what stays, and what is refused."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.audit.approvers import CISO, DPO, every_byte, governed, order, refused
from tests.audit.producer import ALICE, SHOP, access, forged, received, signed
from tests.audit.tenant import NOW, indices, opened, types, values
from tlog.audit import Draft, EventRefused
from tlog.audit.codec import decode_base64url, dump_json, encode_base64url
from tlog.audit.erasing import submit
from tlog.audit.errors import OrderRefused
from tlog.audit.jws import parse_jws, verify_jws
from tlog.audit.orders import TYPE, Document, Kind, Limits, check_order, parse_document, read_order
from tlog.audit.reading import Access, Caller
from tlog.audit.sdjwt import disclose
from tlog.audit.search import Query, search
from tlog.audit.survey import erased_at
from tlog.audit.vault import Erasure, Part, split_part
from tlog.log import Overloaded
from tlog.log.sequencer import Sequencer

BOB = "bob@example.com"
LOOK = Access(Caller("olga", "local_user"), "request R-1")


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


@pytest.mark.parametrize("restarted", [False, True])
async def test_nor_does_who_came_in_a_round_that_failed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """Its vault was written, with a key for her; what opens nothing does not make her known."""
    late = signed(access(ALICE), 2)

    def busy(_sequencer: Sequencer, _entries: Any) -> Any:
        raise Overloaded("much to do", retry_after=1.0)

    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE, BOB), 1)])
        await submit(records, order().encode())
        with monkeypatch.context() as patched:
            patched.setattr(Sequencer, "submit", busy)
            with pytest.raises(Overloaded):
                await records.accept([late])
        if not restarted:
            await records.accept([late])
            assert types(records, 6) == ["access.read", "log.enrolled_again"]
    if restarted:
        async with opened(tmp_path) as records:
            assert records.vault.find_subject(ALICE) is None
            await records.accept([late])
            assert types(records, 6) == ["access.read", "log.enrolled_again"]


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


async def test_an_order_that_its_record_cannot_carry(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1)])
        records.log.config.__dict__["max_entry_size"] = 1500
        error = await refused(records, order(reason="x" * 500).encode())
        assert isinstance(error, OrderRefused)
        assert "its record is refused" in str(error)
