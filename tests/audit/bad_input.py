"""Events that must be refused, each with the field and the reason; all but one thing is right."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from tests.audit.producer import (
    ALICE,
    EVENT_ID,
    PAYLOAD,
    SHOP,
    access,
    forged,
    received,
    signed,
    signer_of,
)
from tests.audit.tenant import NOW, registration
from tlog.audit import Draft
from tlog.audit.codec import dump_json, encode_base64url
from tlog.audit.jws import TYPE
from tlog.audit.records import Records
from tlog.audit.sdjwt import Disclosure, digests, disclose, join, split
from tlog.audit.times import format_time
from tlog.audit.vault import FAMILIES
from tlog.notes import Signer
from tlog.serve.records_metrics import RecordsMetrics

GONE = signer_of("gone", 31)
"""A producer whose key is revoked."""
EARLY = signer_of("early", 32)
"""A producer whose key is not valid yet."""
BOB = "bob@example.com"
"""Known before; nearly all that is bad is about Alice, who is not."""
SALT = "A" * 22


@dataclass(frozen=True, slots=True)
class Bad:
    """What is wrong, how it is made (given a number in the shop's sequence), what is said of it."""

    what: str
    make: Callable[[int], str]
    field: str
    says: str


def raw(header: bytes, payload: bytes, *encoded: str, signer: Signer = SHOP) -> str:
    """An SD-JWT of just these bytes, rightly signed."""
    signing_input = f"{encode_base64url(header)}.{encode_base64url(payload)}"
    signature = encode_base64url(signer.sign(signing_input.encode()))
    return join(f"{signing_input}.{signature}", encoded)


def header(**changes: str) -> bytes:
    return dump_json({"alg": "EdDSA", "kid": SHOP.vkey.label, "typ": TYPE} | changes)


def about_alice(*shared: Disclosure, **claims: Any) -> Callable[[int], str]:
    """A request of Alice with other claims: None takes one away."""

    def make(seq: int) -> str:
        return forged([[disclose("id", ALICE)]], list(shared), {"producer_seq": seq} | claims)

    return make


def about(*subject: Disclosure) -> Callable[[int], str]:
    return lambda seq: forged([list(subject)], payload={"producer_seq": seq})


def written(old: str, new: str) -> Callable[[int], str]:
    """The payload with one piece of its JSON spelled in another way."""

    def make(seq: int) -> str:
        alice = disclose("id", ALICE)
        made = PAYLOAD | {"producer_seq": seq, "subjects": [{"_sd": digests([alice])}]}
        text = dump_json(made).decode()
        assert text.count(old) == 1
        return raw(header(), text.replace(old, new).encode(), alice.encoded)

    return make


def of_bytes(disclosure: bytes) -> Disclosure:
    return Disclosure("", None, encode_base64url(b'["%s",%s]' % (SALT.encode(), disclosure)))


def changed(change: Callable[[str, list[str]], tuple[str, list[str]]]) -> Callable[[int], str]:
    """A right event that somebody changed on its way."""
    return lambda seq: join(*change(*split(signed(received(occurred_at=NOW), seq))))


def by(signer: Signer) -> Callable[[int], str]:
    return lambda seq: signed(access(ALICE, occurred_at=NOW), seq, signer)


def of(draft: Draft) -> Callable[[int], str]:
    return lambda seq: signed(draft, seq)


def _other_signature(jws: str, encoded: list[str]) -> tuple[str, list[str]]:
    other = split(signed(access(), 99))[0]
    return jws.rpartition(".")[0] + "." + other.rpartition(".")[2], encoded


def _foreign(jws: str, encoded: list[str]) -> tuple[str, list[str]]:
    return jws, [*encoded[:-1], split(signed(received(occurred_at=NOW), 99))[1][-1]]


KEY, SIGNATURE = "jws.header.kid", "jws.signature"
CONFLICT = {"about_producer": "till", "about_event": EVENT_ID, "about_index": 1}
CARD = "4111 1111 1111 1111"

BAD: tuple[Bad, ...] = (
    # who signed
    Bad("the signature of another event", changed(_other_signature), SIGNATURE, "is not that of"),
    Bad(
        "the signature of another producer",
        lambda seq: raw(header(), dump_json(PAYLOAD), signer=signer_of("till", 3)),
        SIGNATURE,
        "is not that of",
    ),
    Bad(
        "no signature",
        lambda seq: raw(header(alg="none"), dump_json(PAYLOAD)),
        "jws.header",
        "EdDSA",
    ),
    Bad("an unknown producer", by(signer_of("nobody", 66)), KEY, "register it first"),
    Bad("an unknown key of a known producer", by(signer_of("shop", 77)), KEY, "register it first"),
    Bad("a revoked producer", by(GONE), KEY, "is revoked"),
    Bad("a key that is not valid yet", by(EARLY), KEY, "is valid from"),
    Bad("another producer's name", about_alice(producer_id="till"), "producer_id", "key of shop"),
    Bad("another tenant", about_alice(tenant="other"), "tenant", "the log of acme"),
    # what it is
    Bad("an unknown type", about_alice(type="request.eaten"), "type", "no type of the catalogue"),
    Bad("an unknown version", about_alice(schema_version=7), "schema_version", "is not known"),
    Bad(
        "a type of the log's own", of(Draft("log.conflict", CONFLICT, {})), "type", "may not record"
    ),
    Bad("no number", about_alice(producer_seq=None), "producer_seq", "requires it"),
    Bad("a number below all", about_alice(producer_seq=0), "producer_seq", "at least 1"),
    # personal, in the clear
    Bad("a personal claim", about_alice(actor="eve"), "actor", "it is personal: disclose it"),
    Bad("an undeclared claim", about_alice(email=ALICE), "email", "does not declare it public"),
    Bad("an e-mail address", about_alice(purpose=f"ask {ALICE}"), "purpose", "an e-mail address"),
    Bad("a card number", about_alice(request_id=CARD), "request_id", "a card number"),
    Bad(
        "a card number in a list",
        about_alice(
            type="consent.given",
            purposes=["ads", CARD],
            notice_id="N-1",
            request_type=None,
            channel=None,
        ),
        "purposes",
        "a card number",
    ),
    Bad("an IP address", about_alice(action="GET from 192.0.2.7"), "action", "an IP address"),
    Bad(
        "an identifier in the clear",
        about_alice(subjects=[{"_sd": [], "id": ALICE}]),
        "subjects[0]",
        "holds `_sd` and nothing else",
    ),
    # too long
    Bad("a long claim", about_alice(request_id="R" * 129), "request_id", "the limit is 128"),
    Bad(
        "a long identifier",
        about(disclose("id", "x" * 513)),
        "subjects[0].id",
        "513 characters, the limit is 512",
    ),
    Bad(
        "a long disclosure",
        about_alice(disclose("details", "x" * 70_000)),
        "disclosures[0]",
        "longer than 65536 characters",
    ),
    Bad(
        "a deep value",
        about_alice(of_bytes(b'"details",' + b"[" * 40 + b"]" * 40)),
        "disclosures[0]",
        "nested deeper than 16",
    ),
    Bad(
        "a large number",
        about_alice(of_bytes(b'"details",{"amount":1e999}')),
        "disclosures[0]",
        "1e999 is too large a number",
    ),
    Bad("a long payload", about_alice(purpose="x" * 60_000), "jws", "the limit is 57000"),
    Bad("a long event", lambda seq: "x" * 600_000, "event", "over 524288 characters"),
    Bad(
        "many disclosures",
        about_alice(*[disclose(f"x{i}", 1) for i in range(256)]),
        "disclosures",
        "more than 256",
    ),
    Bad("many subjects", about_alice(subjects=[{"_sd": []}] * 65), "subjects", "at most 64"),
    # times
    *(
        Bad(f"a time: {why}", about_alice(occurred_at=time), "occurred_at", says)
        for why, time, says in (
            ("no zone", "2026-01-31T09:30:00", "with an offset"),
            ("an unknown zone", "2026-01-31T09:30:00-00:00", "an unknown one"),
            ("a named zone", "2026-01-31T09:30:00 PST", "with an offset"),
            ("half a zone", "2026-01-31T09:30:00-08", "with an offset"),
            ("a zone without a colon", "2026-01-31T09:30:00-0800", "with an offset"),
            ("a zone that is none", "2026-01-31T09:30:00+25:00", "no such time"),
            ("a lowercase zone", "2026-01-31T09:30:00z", "with an offset"),
            ("no such day", "2026-02-30T09:30:00Z", "no such time"),
            ("before all time in UTC", "0001-01-01T00:00:00+10:00", "no such time"),
            ("a number", 1769851800, "a string with a time"),
        )
    ),
    Bad("another time: no zone", about_alice(due_at="2026-03-01T00:00:00"), "due_at", "an offset"),
    # names that stand twice
    Bad(
        "a claim twice",
        written('"request_id":"R-1"', '"request_id":"R-1","request_id":"R-2"'),
        "payload",
        "'request_id' stands twice",
    ),
    Bad(
        "a claim twice, in two spellings",
        written('"request_id":"R-1"', '"request_id":"R-1","request\\u005fid":"R-1"'),
        "payload",
        "'request_id' stands twice",
    ),
    Bad(
        "digests twice",
        written('"subjects":[{', '"subjects":[{"_sd":[],'),
        "payload",
        "'_sd' stands twice",
    ),
    Bad(
        "a name twice in the header",
        lambda seq: raw(b'{"kid":"till+00000000",' + header()[1:], dump_json(PAYLOAD)),
        "jws.header",
        "'kid' stands twice",
    ),
    Bad(
        "a name twice in a disclosure",
        about_alice(of_bytes(b'"details",{"note":1,"note":2}')),
        "disclosures[0]",
        "'note' stands twice",
    ),
    Bad(
        "a claim in the clear and disclosed",
        about_alice(disclose("request_id", "R-2")),
        "disclosures[0]",
        "'request_id' is there already",
    ),
    Bad(
        "a claim disclosed twice",
        about_alice(disclose("details", 1), disclose("details", 2)),
        "disclosures[1]",
        "'details' is there already",
    ),
    # disclosures
    Bad(
        "a disclosure that matches no digest",
        changed(lambda jws, encoded: (jws, [*encoded, disclose("details", 1).encoded])),
        "disclosures[4]",
        "matches no digest",
    ),
    Bad("a foreign event's disclosure", changed(_foreign), "disclosures[3]", "matches no digest"),
    Bad(
        "a disclosure twice",
        changed(lambda jws, encoded: (jws, [*encoded, encoded[0]])),
        "disclosures[4]",
        "comes twice",
    ),
    Bad(
        "a digest twice",
        lambda seq: forged([[one := disclose("id", ALICE)], [one]], payload={"producer_seq": seq}),
        "_sd",
        "a digest stands twice",
    ),
    Bad(
        "a disclosure that is left out",
        changed(lambda jws, encoded: (jws, encoded[:2])),
        "subjects[0].id",
        "needs the identifier, disclosed",
    ),
    # no event at all
    Bad("nothing", lambda seq: "", "event", "ends with `~`"),
    Bad("no JWS", lambda seq: "a.b~", "jws", "not a compact JWS"),
    Bad(
        "a key binding",
        lambda seq: signed(access(ALICE), seq) + "a.b.c",
        "event",
        "no key binding",
    ),
)

REFUSED = 'tlog_records_events_total{log="records",outcome="refused"} '


async def acquaint(records: Records) -> int:
    """Register those of whom the bad events are; the number of entries then."""
    await records.record(registration(GONE))
    early = registration(EARLY)
    later = {"valid_from": format_time(NOW.replace(year=NOW.year + 1))}
    await records.record(Draft(early.type, {**early.public, **later}, {}))
    await records.accept([signed(access(BOB, occurred_at=NOW), 1, GONE)])
    revoked = {"about_producer": "gone", "old_vkey": str(GONE.vkey), "reason": "stolen"}
    await records.record(Draft("producer.key_revoked", revoked, {}))
    return records.log.sequencer.edge.size


async def everything(records: Records, directory: Path) -> tuple[dict[str, Any], int]:
    """All that a tenant has, and how often it refused."""
    size = records.log.sequencer.edge.size
    assert records.index is not None
    assert await records.index.caught_up(size, patience=20) == size
    await records.log.publisher.wait_for(size)
    registry = CollectorRegistry()
    registry.register(RecordsMetrics({"records": records}))
    metrics = generate_latest(registry).decode().splitlines()
    (refused,) = (line for line in metrics if line.startswith(REFUSED))
    metrics.remove(refused)
    database = sqlite3.connect(directory / "log/index/records.db")
    try:
        index = {
            table: database.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("covers", "records", "tokens")
        }
    finally:
        database.close()
    assert records._state is not None
    state = records._state
    found = {
        "log": (records.log.sequencer.edge.root(), records.log.published.note),
        "entries": [records.log.reader.entry(index, size) for index in range(size)],
        "vault": {name: list(records.vault.store.items(name)) for name in ("state", *FAMILIES)},
        "producers": state.registry.made(),
        "obligations": state.obligations.made(),
        "index": index,
        "metrics": metrics,
    }
    return found, int(float(refused.removeprefix(REFUSED)))
