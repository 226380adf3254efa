"""A case with everything in it: two stamped heads, a witness, an erasure; and its packages."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest import mock

import pytest
from cryptography import x509

from tests.audit.approvers import governed, order
from tests.audit.authority import Station, settings_of
from tests.audit.producer import CATALOGUE, access, received, signed
from tests.audit.tenant import LOG, TILL, indices, types
from tlog.audit import Draft, verify_stamp
from tlog.audit.authorities import load_settings
from tlog.audit.collecting import Choice, collect
from tlog.audit.erasing import submit
from tlog.audit.evidence import Contents
from tlog.audit.evidence_check import Verdict
from tlog.audit.evidence_file import encode_package, read_package
from tlog.audit.expiry import expire
from tlog.audit.key_history import KeyHistory
from tlog.audit.orders import kept_payload
from tlog.audit.records import Records
from tlog.audit.stamp_store import Due, StampStore
from tlog.audit.stamper import Stamper
from tlog.audit.stamps import make_request
from tlog.audit.tokens import canonical
from tlog.client import VerificationError, Verifier
from tlog.notes import (
    Algorithm,
    Signer,
    VerifierKey,
    cosign,
    parse_proof,
    parse_unverified,
)

WITNESS = Signer.from_seed("w1.example", Algorithm.ED25519_COSIGNATURE, bytes([41]) * 32)
COSIGNED_AT = 1_800_000_000
ALL = Choice(everything=True)
RECEIVED, ACCESSED, FULFILLED, ERASURE = 4, 5, 6, 7
"""Entries 0 to 3 register the shop, the till and two approvers."""
TWO, NOBODY, SECOND = 8, 9, 10
"""About Bob and Carol, about nobody, and the erasure of Bob."""
READ, ASKED, OWN, LATE, EXPIRY, OWN_EXPIRY = 11, 12, 13, 14, 15, 16
"""About Dave: two accesses, the second 25 months after the first, when that was past its time; in
between a request, and an event of the tenant's own, of a class of its own."""
BY = CATALOGUE.extended(
    "version = 1\n[retention.own]\nmonths = 12\n"
    '[types."order.placed"]\nretention = "own"\noptional = ["purpose"]\n'
)


@dataclass(frozen=True, slots=True)
class Case:
    """What was collected of request R-1, and what its verifier knows.

    Attributes:
        others: what was collected after Bob was erased, too.
        expired: what was collected of Dave, in the end.
        unordered: what no verifier would let anybody collect of erasures that nobody ordered so, by
            how they lie.
    """

    vkeys: tuple[VerifierKey, ...]
    policy: bytes
    before: bytes
    after: bytes
    everything: bytes
    others: bytes
    expired: bytes
    unordered: dict[str, bytes]
    root: x509.Certificate
    root_file: Path

    def verify(self, package: bytes, **more: Any) -> Verdict:
        known: dict[str, Any] = {"service": LOG.vkey, "tsa_roots": [self.root]}
        return Verifier(self.policy).evidence(package, **(known | more))


def policy_of(vkeys: tuple[VerifierKey, ...]) -> bytes:
    lines = [f"log {vkey}" for vkey in vkeys] + [f"witness w1 {WITNESS.vkey}", "quorum w1"]
    return "".join(f"{line}\n" for line in lines).encode()


async def stamp(records: Records, store: StampStore, *stations: Station) -> None:
    """Have the newest head stamped by all of them."""
    head = await records.log.publisher.wait_for(records.log.sequencer.edge.size)
    store.queue(Due(head.size, head.note, 1.0), [station.name for station in stations])
    for station in stations:
        answer = await station.stamp(make_request(head.note).der)
        said = verify_stamp(answer, head.note, station.authority)
        store.keep(station.name, head.size, answer, said)


@contextlib.contextmanager
def resting_stamper(
    records: Records, directory: Path, *stations: Station
) -> Iterator[tuple[Stamper, StampStore]]:
    """A stamper that has stamps, and gets no more of them."""
    log = directory / "log"
    (log / "timestamps.toml").write_text(settings_of(*stations, interval=1))
    settings = load_settings(log)
    assert settings is not None
    with contextlib.closing(StampStore(log, create=True)) as store:
        yield (
            Stamper(
                store,
                settings,
                published=records.log.publisher.wait_for,
                connect=lambda _: stations[0],
                name="records",
            ),
            store,
        )


async def events(records: Records) -> None:
    drafts = [received(), access("alice@example.com", "bob@example.com")]
    await records.accept([signed(draft, seq) for seq, draft in enumerate(drafts, 1)])


async def fulfilled(records: Records) -> None:
    done = Draft("request.fulfilled", {"request_id": "R-1", "response": "deleted"}, {})
    assert indices(await records.accept([signed(done, 1, TILL)])) == [FULFILLED]


async def bob_erased(records: Records) -> None:
    about = [{"id": "bob@example.com"}, {"id": "carol@example.com"}]
    public = {"request_id": "R-2", "request_type": "delete", "channel": "webform"}
    drafts = [received(public=public, subjects=about), access()]
    events = [signed(draft, seq) for seq, draft in enumerate(drafts, 3)]
    assert indices(await records.accept(events)) == [TWO, NOBODY]
    receipt = await submit(records, order(subject="bob@example.com", request_id="R-2").encode())
    assert receipt.index == SECOND


class Clock:
    """That of this machine, and what the test adds."""

    ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


async def dave_expired(records: Records, clock: Clock) -> None:
    draft: dict[str, Any] = {"occurred_at": clock(), "subjects": [{"id": "dave@example.com"}]}
    placed = Draft("order.placed", {}, {"details": {"note": "two"}}, **draft)
    drafts = [access(**draft), received(**draft), placed]
    events = [signed(each, seq, catalogue=BY) for seq, each in enumerate(drafts, 5)]
    assert indices(await records.accept(events)) == [READ, ASKED, OWN]
    clock.ahead = timedelta(days=25 * 31)
    late = access("dave@example.com", occurred_at=clock())
    assert indices(await records.accept([signed(late, 8)])) == [LATE]
    assert await expire(records, now=clock(), pace=0) == 3  # NOBODY, READ, OWN
    # After them what the time of backups brings.
    assert types(records, EXPIRY)[:2] == ["retention.expired"] * 2


async def erased_as_nobody_ordered(
    records: Records, clock: Clock, before: dict[str, Any]
) -> dict[str, tuple[int, int]]:
    """Whoever has the log's own key can record what its program would not.

    Args:
        before: the claims of an erasure that was ordered.

    Returns:
        A record and its erasure, by how that lies.
    """
    erased = {}
    lies = ("event_id", "approvers", "reason", "order", "nobody", "again", "several", "late")
    for number, lie in enumerate(lies):
        who = f"{lie}@example.com"
        draft = received(occurred_at=clock(), subjects=[{"id": who}])
        (index,) = indices(await records.accept([signed(draft, 9 + number, catalogue=BY)]))
        made = order(subject=who, now=clock())
        order_id = json.loads(made.payload)["order_id"]
        about = [{"id": who}]
        claims = {name: before[name] for name in ("approvers", "reason", "request_id")}
        match lie:
            case "event_id":  # one order for two erasures
                claims["order"], order_id = before["order"], ""
            case "order":  # approved by whom?
                pass
            case "nobody":  # which is no lie
                del claims["approvers"]
            case "again":  # the record of one order, twice
                claims["order"] = before["order"]
                order_id = json.loads(kept_payload(before["order"]))["order_id"]
            case "several":  # the key of one, told of as if it were that of two
                claims["order"] = made.kept()
                about.append({"id": "bob@example.com"})
            case "late":  # what was not carried out while it could be
                made = order(subject=who, now=clock() - timedelta(days=8))
                claims["order"], order_id = made.kept(), json.loads(made.payload)["order_id"]
            case _:
                claims["order"] = made.kept()
                claims[lie] = ["ciso", "dpo", "shop"] if lie == "approvers" else "another"
        key = records.vault.find_subject(canonical(who))
        assert key is not None
        claims |= {"key_id": key.key_id.hex(), "key_sha256": key.digest.hex(), "count": 1}
        async with records.alone():
            deed = Draft("subject.key_destroyed", claims, {}, about, event_id=order_id)
            erased[lie] = (index, await records.record_alone(deed))
    return erased


async def _case(directory: Path) -> Case:
    one, two = (Station(directory / name, name=name) for name in ("one", "two"))
    clock = Clock()
    async with governed(directory, clock=clock, catalogue=BY) as records:
        vkeys = records.log.vkeys
        policy = policy_of(vkeys)
        records.log.policy = policy
        with resting_stamper(records, directory, one, two) as (stamper, store):
            await stamp(records, store, one)
            await events(records)
            await stamp(records, store, one, two)
            await fulfilled(records)
            chosen = [RECEIVED, ACCESSED, FULFILLED]
            more: dict[str, Any] = {"stamper": stamper, "history": KeyHistory(records.log)}
            before = await collect(
                records,
                chosen,
                Choice({"actor", "subject.id"}, subject="alice@example.com"),
                **more,
            )
            assert before.subjects == ["alice@example.com", "bob@example.com"]
            everything = await collect(records, chosen, ALL, **more)
            receipt = await submit(records, order().encode())
            assert receipt.index == ERASURE
            after = await collect(records, [RECEIVED, FULFILLED], ALL, request_id="R-1", **more)
            assert after.subjects == []
            await bob_erased(records)
            others = await collect(records, [RECEIVED, ACCESSED, TWO, NOBODY], ALL, **more)
            assert others.subjects == ["carol@example.com"]
            await dave_expired(records, clock)
            expired = await collect(records, [READ, ASKED, OWN, LATE], ALL, **more)
            assert expired.subjects == ["dave@example.com"]
            unordered = {}
            with mock.patch("tlog.audit.collecting.check_package"):
                false = await erased_as_nobody_ordered(records, clock, receipt.claims)
                for lie, (index, _) in false.items():
                    chosen = [RECEIVED, index] if lie == "again" else [index]
                    unordered[lie] = await collect(records, chosen, ALL, **more)
    return Case(
        vkeys,
        policy,
        cosigned(before.package),
        cosigned(after.package),
        cosigned(everything.package),
        cosigned(others.package),
        cosigned(expired.package),
        {lie: cosigned(each.package) for lie, each in unordered.items()},
        one.root.certificate,
        one.directory / "root.pem",
    )


@cache
def case() -> Case:
    """The case, made once in a process."""
    return asyncio.run(_case(Path(mkdtemp(prefix="tlog-evidence-"))))


def contents_of(package: bytes) -> Contents:
    return read_package(package).contents


def cosigned(package: bytes) -> bytes:
    """The package with a head that the witness has cosigned, too."""
    contents = contents_of(package)
    head = parse_unverified(contents.checkpoint).checkpoint
    note = contents.checkpoint + cosign(head, WITNESS, timestamp=COSIGNED_AT).encode()
    return encode_package(with_checkpoint(contents, note))


def with_checkpoint(contents: Contents, note: bytes) -> Contents:
    """Another checkpoint, in all proofs too."""
    items = [
        replace(item, proof=replace(parse_proof(item.proof), checkpoint=note).encode())
        for item in contents.items
    ]
    return replace(contents, checkpoint=note, items=items)


GOOD = case()


def refused(package: bytes, **more: Any) -> str:
    with pytest.raises(VerificationError) as caught:
        GOOD.verify(package, **more)
    return str(caught.value)


def shown(verdict: Verdict, index: int) -> list[dict[str, Any]]:
    (found,) = [each.record for each in verdict.records if each.record.index == index]
    return [{d.name: d.value for d in part.shown} for part in found.parts]
