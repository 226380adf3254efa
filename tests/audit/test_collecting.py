"""What goes into a package: the keys of whoever signed, what is gone, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit.approvers import governed, order
from tests.audit.producer import (
    ALICE,
    CATALOGUE,
    EVENT_ID,
    SHOP,
    access,
    received,
    signed,
    signer_of,
)
from tests.audit.tenant import LOG, NOW, TILL, indices, opened, registration, tenant
from tests.audit.test_expiry import START, Clock, at
from tlog.audit import Draft
from tlog.audit.codec import dump_json
from tlog.audit.collecting import Choice, collect
from tlog.audit.erasing import submit
from tlog.audit.evidence import EvidenceError, Gone
from tlog.audit.evidence_check import Verdict
from tlog.audit.evidence_file import MAX_RECORDS, encode_package, read_package
from tlog.audit.expiry import expire
from tlog.audit.jws import sign_jws
from tlog.audit.key_history import KeyHistory
from tlog.audit.leaf import Leaf, encode_leaf
from tlog.audit.records import Records
from tlog.audit.sdjwt import split
from tlog.audit.times import format_time
from tlog.client import VerificationError, Verifier
from tlog.log import InvalidRequest, OutOfRange, Unavailable
from tlog.notes import Signer

ALL = Choice(everything=True)


async def packed(records: Records, *chosen: int, **more: Any) -> bytes:
    history = KeyHistory(records.log)
    collected = await collect(records, chosen, more.pop("choice", ALL), history=history, **more)
    return collected.package


async def verdict_of(records: Records, *chosen: int, **more: Any) -> Verdict:
    verifier = Verifier.with_vkeys(records.log.vkeys)
    return verifier.evidence(await packed(records, *chosen, **more), service=LOG.vkey)


def whys(verdict: Verdict) -> dict[int, str]:
    return {each.record.index: each.record.item.why.value for each in verdict.records}


def rotation(old: Signer, new: Signer, until: str) -> Draft:
    about = {"about_producer": old.vkey.name, "vkey": str(new.vkey)}
    return Draft(
        "producer.key_rotated", about | {"old_vkey": str(old.vkey), "old_valid_until": until}, {}
    )


def revocation(old: Signer) -> Draft:
    about = {"about_producer": old.vkey.name, "old_vkey": str(old.vkey), "reason": "lost"}
    return Draft("producer.key_revoked", about, {})


async def test_only_the_keys_of_who_signed_and_of_who_registered_them(tmp_path: Path) -> None:
    registrar, hr = signer_of("registrar", 31), signer_of("hr", 32)
    async with tenant(tmp_path) as records:
        await records.record(registration(registrar, "registrar"))
        await records.accept([signed(registration(hr), 1, registrar)])
        await records.accept([signed(access(ALICE), 1, hr), signed(access(ALICE), 1, SHOP)])
        by_hr = await verdict_of(records, 4)
        assert whys(by_hr) == {2: "key", 3: "key", 4: "chosen"}
        assert [each.registered for each in by_hr.records] == [None, 2, 3]
        assert whys(await verdict_of(records, 5)) == {0: "key", 5: "chosen"}
        # A record of a key may itself be asked for: it comes once.
        both = await verdict_of(records, 3, 5)
        assert whys(both) == {0: "key", 2: "key", 3: "chosen", 5: "chosen"}
        assert whys(await verdict_of(records, 0)) == {0: "chosen"}


async def test_keys_that_were_rotated_and_revoked(tmp_path: Path) -> None:
    new, now = signer_of("shop", 2), NOW

    async def recorded(seq: int, signer: Signer) -> int:
        event = signed(access(ALICE, occurred_at=NOW), seq, signer)
        (index,) = indices(await records.accept([event]))
        return index

    async with tenant(tmp_path, clock=lambda: now) as records:
        first = await recorded(1, SHOP)
        rotated = await records.record(rotation(SHOP, new, format_time(NOW + timedelta(days=1))))
        second, third = await recorded(2, SHOP), await recorded(3, new)
        revoked = await records.record(revocation(new))
        now = NOW + timedelta(days=2)
        verdict = await verdict_of(records, first, second, third)
        assert [each.registered for each in verdict.chosen()] == [0, 0, rotated.index]
        assert whys(verdict)[revoked.index] == "key"
        # Without the rotation there is no such key.
        contents = read_package(await packed(records, third)).contents
    late = [each for each in contents.items if each.index != rotated.index]
    with pytest.raises(VerificationError, match="no producer has the key|no key of"):
        Verifier.with_vkeys(records.log.vkeys).evidence(
            encode_package(replace(contents, items=late)), service=LOG.vkey
        )


async def test_an_operator_who_puts_in_what_a_revoked_key_signed(tmp_path: Path) -> None:
    """The log's signature and the witnesses' stand over it; it is no producer's for all that."""
    async with tenant(tmp_path) as records:
        await records.record(revocation(SHOP))
        event = split(signed(access(ALICE)))[0]
        await records.log.sequencer.submit([encode_leaf(Leaf(event, records.clock(), ()))])
        with pytest.raises(EvidenceError, match="records/000003: .* is revoked"):
            await packed(records, 3)


async def test_an_operator_who_makes_an_approver_alone(tmp_path: Path) -> None:
    """With two of them anybody could be erased upon an order of two: whoever verifies is told."""
    async with governed(tmp_path) as records:
        (index,) = indices(await records.accept([signed(received())]))
        await submit(records, order().encode())
        assert (await verdict_of(records, index)).alone == []
        puppet = split(signed(registration(signer_of("legal", 61), "approver"), 9, LOG))[0]
        leaf = encode_leaf(Leaf(puppet, records.clock(), ()))
        (made,) = await records.log.sequencer.submit([leaf])
        verdict = await verdict_of(records, index, made)
        assert verdict.alone == [made]
        # Nobody who stood has signed any of this: they are in the package all the same.
        assert (await verdict_of(records, made)).alone == [made]


@pytest.mark.parametrize(
    ("type_name", "claims"),
    [
        ("retention.expired", {"expired_class": "access"}),
        ("subject.key_destroyed", {"request_id": "R-1", "key_id": "00" * 16, "reason": "asked"}),
    ],
)
async def test_what_only_the_log_may_say_and_a_producer_has_signed(
    tmp_path: Path, type_name: str, claims: dict[str, Any]
) -> None:
    kind = CATALOGUE.newest_of(type_name)
    payload = {
        **{"_sd_alg": "sha-256", "event_id": EVENT_ID, "type": type_name, "tenant": "acme"},
        **{"schema_version": kind.version, "producer_id": "shop", "producer_seq": 1},
        **{"occurred_at": "2026-01-31T17:30:00Z", **claims},
    }
    async with tenant(tmp_path) as records:
        event = sign_jws(SHOP, dump_json(payload))
        await records.log.sequencer.submit([encode_leaf(Leaf(event, records.clock(), ()))])
        with pytest.raises(EvidenceError, match=f"records/000002: .* may not record {type_name}"):
            await packed(records, 2)


async def test_the_key_of_the_log_itself_was_rotated(tmp_path: Path) -> None:
    new = signer_of("log", 10)
    async with tenant(tmp_path) as records:
        await records.record(rotation(LOG, new, "2099-01-01T00:00:00Z"))
        log, vault = records.log, records.vault
        settings: dict[str, Any] = {"tenant": "acme", "catalogue": records.catalogue}
        async with Records.opened(log, vault, new, root=LOG.vkey, **settings) as again:
            index = (await again.record(registration(signer_of("hr", 32)))).index
            (event,) = indices(await again.accept([signed(access(), 1, signer_of("hr", 32))]))
            verdict = await verdict_of(again, event)
    assert whys(verdict) == {2: "key", index: "key", event: "chosen"}
    assert [each.registered for each in verdict.records] == [None, 2, index]
    assert verdict.contents.service == LOG.vkey


async def test_what_has_expired_is_shown_as_expired(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1), at(clock, received(), 2)])
        clock.now = START.replace(year=START.year + 2) + timedelta(days=1)
        assert await expire(records, now=clock.now, pace=0) == 1
        verdict = await verdict_of(records, 4, 5)
        assert whys(verdict) == {0: "key", 4: "chosen", 5: "chosen", 6: "gone"}
        expired, kept = (each.record for each in verdict.chosen())
        assert [part.gone for part in expired.parts] == [Gone(6, "")] * 2
        assert [part.gone for part in kept.parts] == [None, None]
        # It expired by that record, and others did not.
        contents = read_package(await packed(records, 4, 5)).contents
        items = [
            replace(each, gone=[Gone(5, "")] * 2) if each.index == 4 else each
            for each in contents.items
        ]
        with pytest.raises(VerificationError, match="expired at entry 5, which is a record of s"):
            Verifier.with_vkeys(records.log.vkeys).evidence(
                encode_package(replace(contents, items=items))
            )


async def test_what_is_erased_meanwhile_is_not_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(received())])
        history = KeyHistory(records.log)

        async def slow(_: Any) -> list[int]:
            await submit(records, order().encode())
            return await KeyHistory(records.log).of([4])

        monkeypatch.setattr(history, "of", slow)
        collected = await collect(records, [4], ALL, history=history)
        with pytest.raises(Unavailable, match="erased, or expired, meanwhile"):
            collected.check(records)


async def test_what_is_refused(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        await records.accept([signed(access(ALICE))])
        await records.log.sequencer.submit([b"no record"])
        for chosen, kind, says in (
            ((), InvalidRequest, "choose 1 to"),
            (range(MAX_RECORDS + 1), InvalidRequest, "choose 1 to"),
            ((99,), OutOfRange, "not below tree size"),
            ((3,), InvalidRequest, "entry 3 is no record"),
        ):
            with pytest.raises(kind, match=says):
                await packed(records, *chosen)
        # Nor does it keep the others from being proven.
        assert whys(await verdict_of(records, 2)) == {0: "key", 2: "chosen"}


async def test_a_history_keeps_up_with_its_log(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        history = KeyHistory(records.log)
        assert await history.of([0]) == []
        await records.accept([signed(access(), seq) for seq in range(1, 400)])
        assert await history.of([5, 300]) == [0]
        await records.record(revocation(TILL))
        assert await history.of([1]) == []
        (event,) = indices(await records.accept([signed(access(), 400)]))
        await records.record(revocation(SHOP))
        assert await history.of([event]) == [0, event + 1]
    async with opened(tmp_path) as records:
        assert await KeyHistory(records.log).of([event]) == [0, event + 1]
