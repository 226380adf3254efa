"""No damage and no lie gets through, and each has its own message."""

from __future__ import annotations

import random
import re
import time
import tracemalloc
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import pytest

from tests.audit.evidence import (
    ACCESSED,
    ASKED,
    EXPIRY,
    FULFILLED,
    GOOD,
    LATE,
    NOBODY,
    OWN,
    OWN_EXPIRY,
    READ,
    RECEIVED,
    SECOND,
    TWO,
    contents_of,
    refused,
    shown,
)
from tests.audit.lies import LIES, R4, REMADE, SAME, dropped, item, members_of, relisted
from tlog.audit.catalogue import TokenClass
from tlog.audit.evidence import EvidenceError, Gone, Record
from tlog.audit.evidence_file import MANIFEST, encode_package, read_package
from tlog.audit.evidence_gone import check_gone
from tlog.audit.times import parse_time
from tlog.audit.zipped import write_zip

MEMBERS = sorted(members_of(GOOD.before))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_flipped_bit_of_a_member_is_named(name: str) -> None:
    info = ZipFile(BytesIO(GOOD.before)).getinfo(name)
    at = info.header_offset + 30 + len(name)
    choose = random.Random(name)
    for _ in range(8):
        bad = bytearray(GOOD.before)
        bad[at + choose.randrange(info.file_size)] ^= 1 << choose.randrange(8)
        assert refused(bytes(bad)) == (
            f"evidence check failed: {name} is damaged: it does not have its CRC-32"
        )


def test_a_flipped_bit_anywhere_is_refused() -> None:
    choose = random.Random(5)
    for _ in range(400):
        bad = bytearray(GOOD.before)
        bad[choose.randrange(len(bad))] ^= 1 << choose.randrange(8)
        assert refused(bytes(bad)).startswith("evidence check failed: ")


def test_a_package_that_is_cut_short_or_longer() -> None:
    for bad in (GOOD.before[:-1], GOOD.before[1:], GOOD.before + b"\0", GOOD.before[:5000], b""):
        assert "zip file" in refused(bad)


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != MANIFEST])
def test_a_member_that_was_changed_is_named(name: str) -> None:
    members = members_of(GOOD.before)
    members[name] += b" "
    assert f"{name} is not what {MANIFEST} lists: it was changed" in refused(write_zip(members))


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_and_named(lie: str) -> None:
    change, message = LIES[lie]
    assert message in refused(relisted(GOOD.before, change))


@pytest.mark.parametrize("lie", REMADE)
def test_a_package_that_is_made_anew(lie: str) -> None:
    package, change, message = REMADE[lie]
    assert message in refused(encode_package(change(contents_of(package))))


def test_what_can_be_left_out_is_what_nobody_can_tell() -> None:
    """Whoever makes a package anew shows less, and no more: that is selective disclosure."""
    less = item(RECEIVED, disclosed=())(contents_of(GOOD.before))
    assert shown(GOOD.verify(encode_package(less)), RECEIVED) == [{}, {}]
    fewer = dropped(FULFILLED)(contents_of(GOOD.before))
    assert len(GOOD.verify(encode_package(fewer)).chosen()) == 2
    unstamped = replace(contents_of(GOOD.before), stamps=[], certificates={})
    assert not GOOD.verify(encode_package(unstamped)).records[2].times


def test_whom_an_erasure_took_nobody_can_tell_from_tokens_of_other_keys() -> None:
    """Erasable tokens were made with keys that are gone, those of each quarter with its own."""
    taken = [Gone(SECOND, "R-2")] * 3
    erasable = item(ACCESSED, gone=taken)(contents_of(GOOD.others))
    told = {
        each.record.index: each.matched for each in GOOD.verify(encode_package(erasable)).chosen()
    }
    assert told[ACCESSED] == [False] * 3
    lie = item(TWO, disclosed=(), gone=taken)(contents_of(GOOD.others))
    records = read_package(encode_package(lie)).records
    with pytest.raises(EvidenceError, match="that of another subject"):
        check_gone(records)

    def remade(*indices: int, **values: Any) -> list[Record]:
        made = []
        for record in records:
            tokens = [token._replace(**values) for token in record.leaf.tokens]
            moved = replace(record, leaf=replace(record.leaf, tokens=tokens))
            made.append(moved if record.index in indices else record)
        return made

    assert check_gone(remade(SECOND, epoch="2020Q1"))[TWO] == [False] * 3
    assert check_gone(remade(TWO, SECOND, token_class=TokenClass.ERASABLE))[TWO] == [False] * 3
    with pytest.raises(EvidenceError, match="that of another subject"):
        check_gone(remade(TWO, SECOND, epoch="2020Q1"))


def test_an_erasure_is_matched_by_whom_it_is_about() -> None:
    matched = {each.record.index: each.matched for each in GOOD.verify(GOOD.others).chosen()}
    assert matched == {
        RECEIVED: [True] * 2, ACCESSED: [False] * 3, TWO: [True, True, None], NOBODY: [None],
    }  # fmt: skip


def test_an_expiry_is_matched_by_class_and_time() -> None:
    matched = {each.record.index: each.matched for each in GOOD.verify(GOOD.expired).chosen()}
    # Of a type of the tenant's own nobody else knows the class.
    assert matched == {READ: [True] * 2, ASKED: [None] * 2, OWN: [False] * 2, LATE: [None] * 2}
    other = item(OWN, gone=[Gone(EXPIRY, "")] * 2)(contents_of(GOOD.expired))
    (own,) = [
        each.matched
        for each in GOOD.verify(encode_package(dropped(OWN_EXPIRY)(other))).chosen()
        if each.record.index == OWN
    ]
    assert own == [False] * 2


@pytest.mark.parametrize(
    ("claims", "of_record", "says"),
    [
        ({}, {}, ""),
        ({"first_index": READ, "until_index": READ + 1}, {}, ""),
        ({"first_index": READ + 1}, {}, "of entries 12 to 13"),
        ({"until_index": READ}, {}, "of entries 0 to 10"),
        ({"cutoff": "2020-01-01T00:00:00.000000Z"}, {}, "received before 2020-01-01T00:00:00"),
        ({"cutoff": "yesterday"}, {}, "a record of something else"),
        ({"cutoff": None}, {}, "a record of something else"),
        ({"expired_class": "requests"}, {}, "of the class 'requests', and not of 'access'"),
        ({"expired_class": None, "expired_epoch": "2020Q1"}, {}, "a record of something else"),
        ({"first_index": False}, {}, "a record of something else"),
        ({"until_index": "99"}, {}, "a record of something else"),
        ({"expired_class": "own"}, {"retention_class": "own"}, ""),
        # Which of both keeps it longer is said in the tenant's file.
        ({}, {"retention_class": "requests"}, ""),
        (
            {"expired_class": "consent"},
            {"retention_class": "own"},
            "of the class 'consent', and not of 'own' or 'access'",
        ),
    ],
)
def test_what_an_expiry_takes(claims: dict[str, Any], of_record: dict[str, Any], says: str) -> None:
    changes = {EXPIRY: claims, READ: of_record}
    records = [
        replace(record, payload={**record.payload, **changes.get(record.index, {})})
        for record in read_package(GOOD.expired).records
    ]
    if not says:
        assert check_gone(records)[READ] == [True] * 2
        return
    with pytest.raises(
        EvidenceError, match=f"records/000011: .* expired at entry 15, which .*{says}"
    ):
        check_gone(records)


def test_when_what_has_expired_was_received() -> None:
    records = {each.index: each for each in read_package(GOOD.expired).records}
    cutoff = parse_time(records[EXPIRY].payload["cutoff"], field="cutoff")

    def received(time: datetime) -> list[Record]:
        read = records[READ]
        return [
            *({**records, READ: replace(read, leaf=replace(read.leaf, received_at=time))}.values())
        ]

    check_gone(received(cutoff - timedelta(microseconds=1)))
    with pytest.raises(EvidenceError, match="which is of what was received before"):
        check_gone(received(cutoff))


def test_an_expiry_of_what_came_after_it() -> None:
    """Whatever range it has: what it says of the future is no word of what happened."""
    records = []
    for record in read_package(GOOD.expired).records:
        made = record
        if record.index == READ:
            made = replace(record, item=replace(record.item, index=OWN_EXPIRY))
        if record.index == EXPIRY:
            made = replace(record, payload={**record.payload, "until_index": 99})
        if record.index not in (OWN, OWN_EXPIRY):
            records.append(made)
    with pytest.raises(
        EvidenceError, match="which is of entries 0 to 98, and of none after itself"
    ):
        check_gone(records)


@pytest.mark.parametrize("version", [99, True, None, [1], "1"])
def test_a_version_of_a_type_that_is_not_known_shows_no_class(version: Any) -> None:
    records = [
        replace(record, payload={**record.payload, "schema_version": version})
        if record.index == READ
        else record
        for record in read_package(GOOD.expired).records
    ]
    assert check_gone(records)[READ] == [False] * 2


def test_each_kind_of_damage_has_its_own_message() -> None:
    packages = {name: relisted(GOOD.before, change) for name, (change, _) in LIES.items()}
    for name, (package, change, _) in REMADE.items():
        packages[name] = encode_package(change(contents_of(package)))
    assert len(packages) == len(LIES) + len(REMADE)
    kinds: dict[str, set[str]] = {}
    for name, package in packages.items():
        # Its own, without where it is.
        where = r"(records|keys)/\d+|disclosures\[\d+\]|timestamps/one/\d+"
        kinds.setdefault(re.sub(where, "", refused(package)), set()).add(name)
    shared = [each for each in kinds.values() if len(each) > 1]
    assert sorted(shared, key=sorted) == sorted(SAME, key=sorted)


def test_what_a_stranger_gives_is_bounded_before_it_is_read() -> None:
    for name, size in (
        (f"{R4}/disclosures.txt", 32 << 20),
        ("checkpoint", 32 << 20),
        ("report.html", 32 << 20),
        ("timestamps/one/000006.path", 16 << 20),
        ("timestamps/one/certificates.pem", 16 << 20),
        ("manifest.json", 5 << 20),
        (f"{R4}/leaf.json", 1 << 20),
        (f"{R4}/proof.tlog-proof", 1 << 20),
        ("policy", 2 << 20),
        ("timestamps/one/000006.tsr", 1 << 20),
        ("timestamps/one/000006.note", 1 << 20),
    ):
        data = b"\xff" * size
        bad = relisted(GOOD.before, lambda members, _: members.update({name: data}))  # noqa: B023
        if name == MANIFEST:
            bad = write_zip(members_of(GOOD.before) | {name: data})
        tracemalloc.start()
        begun = time.process_time()
        refused(bad)
        assert time.process_time() - begun < 2
        # What was read, and hardly more than that.
        assert tracemalloc.get_traced_memory()[1] < size + (12 << 20), name
        tracemalloc.stop()
