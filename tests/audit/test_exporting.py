"""Exports: what they say in each format, what they give out, and that it is recorded first."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.audit.approvers import governed, order
from tests.audit.producer import ALICE, CATALOGUE, access, received, signed
from tests.audit.tenant import tenant, types, values
from tlog.audit import Draft, EventRefused, exporting, ocsf
from tlog.audit.erasing import submit
from tlog.audit.export_formats import Exported, Format, Writer
from tlog.audit.exporting import Disclosing, Order, export
from tlog.audit.leaf import Leaf
from tlog.audit.reading import Access, Caller
from tlog.audit.records import Records
from tlog.audit.search import Query, find_all
from tlog.audit.vault import Vault
from tlog.log import Unavailable
from tlog.merkle import leaf_hash

NOBODY = Disclosing()
ALL = Disclosing(everything=True)
EVE = Access(Caller("eve", "local_user"), "yearly audit", "R-9")
BOB, CAROL = "bob@example.com", "carol@example.com"
AT = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=6)


def clock() -> datetime:
    return AT + timedelta(hours=3)


async def given_out(
    records: Records,
    form: Format = Format.JSONL,
    disclosing: Disclosing = NOBODY,
    selection: Query | None = None,
) -> bytes:
    order = Order(selection or Query(), disclosing, form, "Agency" if disclosing else "")
    pieces = [piece async for piece in export(records, EVE, order)]
    assert pieces[-1].done == pieces[-1].total
    return b"".join(piece.data for piece in pieces)


async def some(records: Records) -> None:
    """Entries 2 to 5: a request of Alice's, looks at Bob and Carol, a change, a heartbeat."""
    await records.accept(
        [
            signed(received(occurred_at=AT), 1),
            signed(access(BOB, CAROL, occurred_at=AT + timedelta(hours=1)), 2),
            signed(
                Draft(
                    "access.modify",
                    {"purpose": "support", "action": "delete", "outcome": "denied"},
                    {"actor": {"id": "mallory"}, "details": {"=cmd": "+1"}},
                    [{"id": BOB, "name": "Bob"}],
                    occurred_at=AT + timedelta(hours=2),
                ),
                3,
            ),
        ]
    )
    await records.record(Draft("log.heartbeat", {}, {}))


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


# ---- formats ----


async def test_json_lines_can_be_verified_again(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        await some(records)
        size = records.log.sequencer.edge.size
        made = lines(await given_out(records))
        assert [each["index"] for each in made] == list(range(size))
        for each in made:
            entry = records.log.reader.entry(each["index"], size)
            assert bytes.fromhex(each["leaf_hash"]) == leaf_hash(entry)
            assert each["jws"].encode() in entry
        assert made[2]["claims"]["request_id"] == "R-1"
        assert "disclosed" not in made[2]


async def test_csv_is_safe_and_whole(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        await some(records)
        # A claim in the clear that a spreadsheet would take for a formula.
        odd = {"purpose": '=HYPERLINK("http://x";"y")', "request_id": "-2+3"}
        await records.record(access(public=odd | {"jurisdiction": 'US,CA "x"'}))
        text = (await given_out(records, Format.CSV, ALL)).decode()
        assert text.endswith("\r\n")
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        assert len({len(header), *map(len, rows)}) == 1
        named = [dict(zip(header, row, strict=True)) for row in rows]
        assert len(named) == text.count("\r\n") - 1
        for row in rows:
            assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row)
        last = named[-1]
        assert last["purpose"] == '\'=HYPERLINK("http://x";"y")'
        assert (last["request_id"], last["jurisdiction"]) == ("'-2+3", 'US,CA "x"')
        assert json.loads(named[4]["subjects"]) == [{"id": BOB, "name": "Bob"}]
        assert json.loads(named[4]["disclosed"])["details"] == {"=cmd": "+1"}
        assert json.loads(named[2]["claims"])["channel"] == "webform"


@given(st.text(max_size=8))
@example("＝1+1")
def test_no_cell_begins_a_formula(text: str) -> None:
    payload = {
        "event_id": "x",
        "type": text,
        "occurred_at": "",
        "purpose": text,
        "more": text,
    }
    record = Exported(0, b"", Leaf("a.b.c", AT, ()), payload)
    line = Writer(Format.CSV, log="l", tenant="t").line(record).decode()
    (row,) = csv.reader(io.StringIO(line, newline=""))
    assert not any(normalize("NFKC", c).startswith(("=", "+", "-", "@", "\t", "\r")) for c in row)
    assert row[10].removeprefix("'") == text.removeprefix("'")


# SPEC OCSF 1.3.0: required attributes of each class, and of the objects in them.
BASE = {
    "activity_id",
    "category_uid",
    "class_uid",
    "type_uid",
    "severity_id",
    "time",
    "metadata",
}
REQUIRED = {
    3004: BASE | {"entity"},
    6003: BASE | {"actor", "api", "src_endpoint"},
    6005: BASE | {"actor", "src_endpoint"},
}
ACTIVITIES = {
    3004: {1, 2, 3, 4, 99},
    6003: {1, 2, 3, 4, 99},
    6005: {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 99},
}
ATTRIBUTES = BASE | {
    "actor",
    "api",
    "entity",
    "message",
    "src_endpoint",
    "status_id",
    "table",
    "type_id",
    "unmapped",
}


def check_ocsf(event: Mapping[str, Any]) -> None:
    kind = event["class_uid"]
    assert event.keys() >= REQUIRED[kind]
    assert event.keys() <= ATTRIBUTES
    assert event["activity_id"] in ACTIVITIES[kind]
    assert event["type_uid"] == 100 * kind + event["activity_id"]
    assert event["category_uid"] == kind // 1000
    assert event["severity_id"] in {0, 1, 2, 3, 4, 5, 6, 99}
    assert event["status_id"] in {0, 1, 2, 99}
    assert type(event["time"]) is type(event["metadata"]["logged_time"]) is int
    assert re.fullmatch(r"\d+\.\d+\.\d+", event["metadata"]["version"])
    assert event["metadata"]["product"]["vendor_name"]
    assert event["metadata"]["uid"]
    assert event["actor"].keys() & {"app_uid", "app_name", "user"}
    if kind == 3004:
        assert event["entity"]["name"]
    elif kind == 6003:
        assert event["api"]["operation"]
        assert event["src_endpoint"]["svc_name"]
    else:
        assert event["table"]["name"]
        assert event["src_endpoint"]["svc_name"]


async def test_ocsf_has_what_its_classes_require(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        await some(records)
        made = lines(await given_out(records, Format.OCSF))
        for event in made:
            check_ocsf(event)
        registered, _, request, read, deleted, beat = made
        assert (registered["class_uid"], registered["entity"]["uid"]) == (3004, "shop")
        assert request["entity"] == {
            "name": "privacy request",
            "type": "privacy request",
            "uid": "R-1",
        }
        assert request["time"] == int(AT.timestamp() * 1000)
        assert (read["type_uid"], read["table"]) == (600501, {"name": "customers"})
        assert (deleted["type_uid"], deleted["status_id"]) == (600507, 2)
        assert beat["type_uid"] == 600399
        assert request["unmapped"]["channel"] == "webform"
        assert "user" not in deleted["actor"]
        disclosed = lines(await given_out(records, Format.OCSF, ALL))
        for event in disclosed:
            check_ocsf(event)
        assert disclosed[6]["type_uid"] == 600501
        assert disclosed[4]["actor"]["user"] == {"uid": "mallory"}
        assert disclosed[4]["unmapped"]["subjects"] == [{"id": BOB, "name": "Bob"}]


def test_every_type_of_the_catalogue_has_a_class() -> None:
    assert {name for name, _ in CATALOGUE.types} == ocsf.KINDS.keys()
    for kind in ocsf.KINDS.values():
        assert kind.activity_id in ACTIVITIES[kind.class_uid]
        assert bool(kind.entity) == (kind.class_uid == ocsf.ENTITY)
        assert not kind.uid or kind.uid in CATALOGUE.claims


def test_a_type_of_the_tenants_own_is_an_api_activity() -> None:
    claims = {"type": "order.placed", "producer_id": "shop", "producer_seq": 1, "event_id": "x"}
    made = ocsf.to_ocsf(claims, {}, occurred_at=AT, received_at=AT, log="l", more={"entry": 7})
    check_ocsf(made)
    assert (made["type_uid"], made["api"]["operation"]) == (600399, "order.placed")
    assert made["unmapped"] == {"entry": 7}


def check_cloudevent(event: Mapping[str, Any]) -> None:
    """SPEC CloudEvents 1.0, "Context Attributes" and "Naming Conventions"."""
    assert event["specversion"] == "1.0"
    for name in ("id", "source", "type"):
        assert isinstance(event[name], str)
        assert event[name]
    for name, value in event.items():
        assert re.fullmatch(r"[a-z0-9]{1,20}", name)
        if name != "data":
            assert isinstance(value, str)
            assert value
    assert datetime.fromisoformat(event["time"]).tzinfo is not None
    assert re.fullmatch(r"urn:[a-z0-9-]+:[!-~]+", event["source"])
    assert event["datacontenttype"] == "application/json"


async def test_cloudevents_are_one_batch(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        await some(records)
        made = json.loads(await given_out(records, Format.CLOUDEVENTS))
        assert len(made) == 6
        for event in made:
            check_cloudevent(event)
        assert len({(event["source"], event["id"]) for event in made}) == 6
        assert made[2]["type"] == "tlog.request.received"
        assert made[2]["requestid"] == "R-1"
        disclosed = await given_out(records, Format.CLOUDEVENTS, ALL)
        assert all(b"\n{" in b"\n" + line for line in disclosed.splitlines()[1:-1])
        for event in json.loads(disclosed):
            check_cloudevent(event)
            data = event.pop("data")
            assert ALICE not in json.dumps(event)
            assert "mallory" not in json.dumps(event)
            if event["type"] == "tlog.request.received":
                assert data["subjects"] == [{"id": ALICE, "name": "Alice"}]


@pytest.mark.parametrize("form", Format)
async def test_nothing_chosen_is_whole_too(tmp_path: Path, form: Format) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        nothing = Query(types=("consent.given",))
        data = await given_out(records, form, selection=nothing)
        if form is Format.CLOUDEVENTS:
            assert json.loads(data) == []
        elif form is Format.CSV:
            assert len(list(csv.reader(io.StringIO(data.decode(), newline="")))) == 1
        else:
            assert data == b""
        assert types(records)[-1] == "log.exported"


# ---- what is disclosed ----


@pytest.mark.parametrize("form", Format)
async def test_without_disclosure_the_vault_stays_shut(
    tmp_path: Path, form: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        await some(records)
        with monkeypatch.context() as patch:
            patch.setattr(Vault, "open_parts", None)
            data = await given_out(records, form)
        for secret in (b"alice", b"bob", b"carol", b"mallory", b'"eve"', b"192.0.2.1", b"by post"):
            assert secret not in data
        assert await given_out(records, form, ALL) != data


async def test_only_the_names_that_were_chosen(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        await some(records)
        chosen = Disclosing(frozenset({"actor", "subject.name"}))
        made = lines(await given_out(records, Format.JSONL, chosen))
        assert made[2]["disclosed"] == {"actor": {"id": "eve", "ip": "192.0.2.1"}}
        assert made[2]["subjects"] == [{"name": "Alice"}]
        assert "subjects" not in made[3]
        for secret in (ALICE, BOB, "by post", "customers/17"):
            assert secret not in json.dumps(made)


def test_personal_data_for_nobody() -> None:
    for disclosing in (ALL, Disclosing(frozenset({"actor"}))):
        with pytest.raises(EventRefused, match="recipient: who gets it"):
            Order(Query(), disclosing, Format.CSV, " ")


async def test_what_was_erased_says_so(tmp_path: Path) -> None:
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([signed(received(occurred_at=AT), 1)])
        await records.accept([signed(access(ALICE, BOB, occurred_at=AT), 2)])
        await submit(records, order(now=clock()).encode())
        made = lines(await given_out(records, Format.JSONL, ALL))
        assert made[4]["erased"][0]["request_id"] == "R-1"
        assert "disclosed" not in made[4]
        assert made[5]["subjects"] == [{}, {"id": BOB}]
        assert ALICE not in json.dumps(made)


# ---- it is recorded first ----


async def test_it_is_recorded_before_the_first_byte(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        await some(records)
        order = Order(Query(producer="shop"), ALL, Format.CSV, "Agency")
        async for _ in export(records, EVE, order):
            index = records.log.sequencer.edge.size - 1
            stored = records.read(index)
            assert (
                stored.payload.items()
                >= {
                    "type": "log.exported",
                    "purpose": "yearly audit",
                    "request_id": "R-9",
                    "recipient": "Agency",
                    "count": 3,
                }.items()
            )
            shared, *subjects = values(records, index)
            assert shared["actor"] == {"id": "eve", "kind": "local_user"}
            assert shared["details"] == {
                "selection": {"producer": "shop"},
                "format": "csv",
                "disclosed": ["all"],
            }
            assert [each["id"] for each in subjects] == [ALICE, BOB, CAROL]
            break
        else:
            raise AssertionError("nothing came")


async def test_what_cannot_be_recorded_is_not_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        await some(records)
        for refused in ("bob@example.com", "x" * 300):
            with pytest.raises(EventRefused, match="recipient"):
                Order(Query(), ALL, Format.CSV, refused)

        async def away(_: object) -> None:
            raise Unavailable("no")

        monkeypatch.setattr(records, "record_alone", away)
        order = Order(Query(), ALL, Format.CSV, "Agency")
        with pytest.raises(Unavailable):
            _ = [piece async for piece in export(records, EVE, order)]


async def test_each_window_is_recorded_under_its_subjects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "WINDOW", 2)
    async with tenant(tmp_path, clock=clock) as records:
        names = ["a", "b", "a", "c", "c", "a", "d"]
        await records.accept(
            [signed(access(f"{n}@example.com"), i) for i, n in enumerate(names, 1)]
        )
        selection = Query(types=("access.read",))
        order = Order(selection, ALL, Format.JSONL, "Agency")
        told: set[str] = set()
        size = records.log.sequencer.edge.size
        dones = []
        async for piece in export(records, EVE, order):
            end = records.log.sequencer.edge.size
            for index in range(size, end):
                assert types(records, index)[0] == "log.exported"
                told |= {each["id"] for each in values(records, index)[1:]}
            size = end
            assert {s["id"] for each in lines(piece.data) for s in each["subjects"]} <= told
            dones.append((piece.done, piece.total))
        assert dones == [(2, 7), (4, 7), (6, 7), (7, 7)]
        assert told == {f"{n}@example.com" for n in "abcd"}
        exports = [i for i in range(9, size) if types(records, i)[0] == "log.exported"]
        assert len(exports) == 3  # the third window opens nobody else's
        assert values(records, exports[1])[0]["details"]["continues"] == exports[0]


# ---- which records ----


async def test_by_subject(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=clock) as records:
        await some(records)
        assert list(await find_all(records, Query(subject=" BOB@example.com"))) == [3, 4]
        both = Query(subject=BOB, types=("access.modify",))
        assert list(await find_all(records, both)) == [4]
        assert list(await find_all(records, Query(subject="nobody@example.com"))) == []
