"""Retention while the tenant changes its catalogue: nothing stays for ever in silence."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.audit.approvers import governed
from tests.audit.producer import ALICE, CATALOGUE, access, received, signed
from tests.audit.tenant import indices, opened
from tests.audit.test_expiry import START, Clock, passed
from tlog.audit import Catalogue, Draft, EventRefused, strays
from tlog.audit.expiry import months_before
from tlog.audit.intake import Recorded
from tlog.audit.records import Records

MONTHS = {"short": 12, "long": 36}
Version = tuple[str, int]


def own(
    *versions: tuple[str, int, str], tokens: str = "erasable", months: Mapping[str, int] = MONTHS
) -> Catalogue:
    """A catalogue with types of a tenant's: name, version and class of each."""
    text = "version = 1\n"
    for name, count in months.items():
        text += f"[retention.{name}]\n" + (f"months = {count}\n" if count else "")
    for name, version, retention in versions:
        text += f'[[types."{name}"]]\nversion = {version}\nretention = "{retention}"\n'
        text += f'tokens = "{tokens}"\n'
    return CATALOGUE.extended(text)


def order_placed(
    clock: Clock, seq: int, by: Catalogue, version: int = 1, name: str = "order.placed", **more: Any
) -> str:
    draft = Draft(
        name, more, {}, [{"id": ALICE}], occurred_at=clock.now, schema_version=version or None
    )
    return signed(draft, seq, catalogue=by)


def there(records: Records, *at: int) -> list[bool]:
    return [any(part.disclosures for part in records.read(index).parts) for index in at]


async def alarms(records: Records) -> list[Any]:
    """What one look has to say of records that never expire."""
    with capture_logs() as logs:
        await passed(records)
    assert all(each["log_level"] == "error" for each in logs)
    return [(each["records"], each["types"]) for each in logs]


async def test_after_a_bump_each_version_is_taken_and_has_its_own_class(tmp_path: Path) -> None:
    clock = Clock()
    one = own(("order.placed", 1, "short"))
    two = own(("order.placed", 1, "short"), ("order.placed", 2, "long"))
    dropped = own(("order.placed", 2, "long"))
    spooled = order_placed(clock, 2, one)
    async with governed(tmp_path, clock=clock, catalogue=one) as records:
        await records.accept([order_placed(clock, 1, one)])
        await passed(records)
    async with opened(tmp_path, clock=clock, catalogue=two) as records:
        made = [spooled, order_placed(clock, 3, two, 0)]
        assert indices(await records.accept(made)) == [5, 6]
        assert [records.read(i).payload["schema_version"] for i in (4, 5, 6)] == [1, 1, 2]
        clock.now = datetime(2021, 1, 15, 12, tzinfo=UTC)
        assert await passed(records) == 0
        clock.now += timedelta(microseconds=1)
        assert await passed(records) == 2
        assert there(records, 4, 5, 6) == [False, False, True]
    async with opened(tmp_path, clock=clock, catalogue=dropped) as records:
        # What has expired is nobody's trouble.
        assert await alarms(records) == []
        (refusal,) = await records.accept([order_placed(clock, 4, two)])
        assert isinstance(refusal, EventRefused)
        assert "only [2]" in str(refusal)
        # But whoever had no answer, and sends it again, is told where it stands.
        (known,) = await records.accept([spooled])
        assert known == Recorded(5, duplicate=True)
        clock.now = datetime(2024, 1, 1, tzinfo=UTC)
        assert await passed(records) == 1


@pytest.mark.parametrize("left", [[], [("order.placed", 2, "short")]])
async def test_a_type_or_a_version_that_is_taken_out_raises_an_alarm_until_it_is_back(
    tmp_path: Path, left: list[tuple[str, int, str]]
) -> None:
    clock = Clock()
    whole, less = own(("order.placed", 1, "short"), *left), own(*left)
    async with governed(tmp_path, clock=clock, catalogue=whole) as records:
        await records.accept([order_placed(clock, seq, whole) for seq in (1, 2)])
        assert await alarms(records) == []
    async with opened(tmp_path, clock=clock, catalogue=less) as records:
        clock.now = datetime(2029, 1, 1, tzinfo=UTC)
        assert records.counters.strays == 0
        for _ in range(2):  # with every look, and not once more for each of them
            assert await alarms(records) == [(2, ["order.placed version 1"])]
            assert records.counters.strays == 2
        assert there(records, 4, 5) == [True, True]
    async with opened(tmp_path, clock=clock, catalogue=whole) as records:
        assert await alarms(records) == []
        assert records.counters.strays == 0
        assert there(records, 4, 5) == [False, False]


async def test_what_moves_to_a_class_that_was_looked_through_expires(tmp_path: Path) -> None:
    clock = Clock()
    long, short = own(("order.placed", 1, "long")), own(("order.placed", 1, "short"))
    async with governed(tmp_path, clock=clock, catalogue=long) as records:
        await records.accept([order_placed(clock, 1, long)])
        clock.now = datetime(2022, 1, 1, tzinfo=UTC)
        assert await passed(records) == 0
    async with opened(tmp_path, clock=clock, catalogue=short) as records:
        assert await passed(records) == 1
        size = records.log.sequencer.edge.size
        assert await passed(records) == 0
        records.catalogue = long
        assert await passed(records) == 0
        assert records.log.sequencer.edge.size == size


async def test_a_class_that_gets_months_lets_the_keys_of_epochs_go(tmp_path: Path) -> None:
    clock = Clock()
    ever = own(("order.placed", 1, "ever"), tokens="evidence", months={"ever": 0})
    while_ = own(("order.placed", 1, "ever"), tokens="evidence", months={"ever": 24})
    async with governed(tmp_path, clock=clock, catalogue=ever) as records:
        await records.accept([order_placed(clock, 1, ever)])
        clock.now = datetime(2026, 1, 1, tzinfo=UTC)
        assert await passed(records) == 0
        assert records.vault.find_epoch("2020Q1") is not None
        records.catalogue = while_
        assert await passed(records) == 1
        assert records.vault.find_epoch("2020Q1") is None


async def test_what_came_in_under_another_catalogue_between_two_looks_is_seen(
    tmp_path: Path,
) -> None:
    clock = Clock()
    more = own(("order.placed", 1, "short"))
    async with governed(tmp_path, clock=clock) as records:
        await passed(records)
    async with opened(tmp_path, clock=clock, catalogue=more) as records:
        await records.accept([order_placed(clock, 1, more)])
    async with opened(tmp_path, clock=clock) as records:
        assert await alarms(records) == [(1, ["order.placed version 1"])]


async def test_a_class_that_is_taken_out_is_named_and_the_names_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "MAX_NAMES", 3)
    monkeypatch.setattr(strays, "SCAN", 2)
    clock = Clock()
    names = [f"order.kind{i}" for i in range(5)]
    whole = own(*((name, 1, "short") for name in names))
    async with governed(tmp_path, clock=clock, catalogue=whole) as records:
        asks = access(public={"purpose": "x", "retention_class": "long"}, occurred_at=clock.now)
        made = [order_placed(clock, seq, whole, name=name) for seq, name in enumerate(names, 2)]
        await records.accept([signed(asks, 1, catalogue=whole), *made])
        records.catalogue = CATALOGUE
        assert await alarms(records) == [
            (
                6,
                [
                    "access.read version 1, class long",
                    "order.kind0 version 1",
                    "order.kind1 version 1",
                    "other types",
                ],
            )
        ]


LITIGATION = {"litigation": 120}


@pytest.mark.parametrize("later", [{"litigation": 1}, {}])
async def test_a_request_is_kept_24_months_whatever_class_it_asked_for(
    tmp_path: Path, later: dict[str, int]
) -> None:
    """A class of many months gets few, is taken out, and is put back with few."""
    clock, first = Clock(), own(months=LITIGATION)
    floor = {"requests": 24}
    async with governed(tmp_path, clock=clock, catalogue=first) as records:
        asks = {"retention_class": "litigation"}
        asked = received(public={**received().public, **asks}, occurred_at=clock.now)
        read = access(ALICE, public={"purpose": "x", **asks}, occurred_at=clock.now)
        made = [signed(each, seq, catalogue=first) for seq, each in enumerate((asked, read), 1)]
        assert indices(await records.accept(made)) == [4, 5]
        assert await passed(records) == 0
    if not later:
        async with opened(tmp_path, clock=clock, catalogue=own(months=floor)) as records:
            clock.now = datetime(2100, 1, 1, tzinfo=UTC)
            named = [
                f"{each} version 1, class litigation"
                for each in ("access.read", "request.received")
            ]
            assert await alarms(records) == [(2, named)]
            assert there(records, 4, 5) == [True, True]
            clock.now = START
        later = {"litigation": 1}
    async with opened(tmp_path, clock=clock, catalogue=own(months=later | floor)) as records:
        clock.now = months_before(START, -24)
        assert await passed(records) == 0
        assert there(records, 4, 5) == [True, True]
        clock.now += timedelta(microseconds=1)
        assert await passed(records) == 2
        assert there(records, 4, 5) == [False, False]


async def test_a_type_that_is_gone_keeps_a_record_that_asks_for_a_class_that_is_there(
    tmp_path: Path,
) -> None:
    clock, whole = Clock(), own(("request.special", 1, "long"), months=MONTHS | LITIGATION)
    async with governed(tmp_path, clock=clock, catalogue=whole) as records:
        made = order_placed(clock, 1, whole, 1, "request.special", retention_class="litigation")
        await records.accept([made])
        records.catalogue = own(months={"litigation": 1})
        clock.now = datetime(2021, 1, 1, tzinfo=UTC)
        assert await alarms(records) == [(1, ["request.special version 1"])]
        assert there(records, 4) == [True]


async def test_in_a_copy_that_is_put_back_classes_of_today_take_no_request_before_24_months(
    tmp_path: Path,
) -> None:
    clock = Clock()
    kind = "order.placed", 1, "litigation"
    long, short = own(kind, months=LITIGATION), own(kind, months={"litigation": 1})
    async with governed(tmp_path, clock=clock, catalogue=long) as records:
        public = {**received().public, "retention_class": "litigation"}
        asked = received(public=public, occurred_at=clock.now)
        made = [signed(asked, 1, catalogue=long), order_placed(clock, 2, long)]
        assert indices(await records.accept(made)) == [4, 5]
    shutil.copytree(tmp_path / "vault", tmp_path / "copy")
    clock.now = datetime(2020, 4, 1, tzinfo=UTC)
    async with opened(tmp_path, clock=clock, catalogue=short) as records:
        assert await passed(records) == 1
        assert there(records, 4, 5) == [True, False]
    shutil.rmtree(tmp_path / "vault")
    shutil.move(tmp_path / "copy", tmp_path / "vault")
    async with opened(tmp_path, clock=clock, catalogue=long) as records:
        assert there(records, 4, 5) == [True, False]


def _catalogues(rand: random.Random) -> Iterable[tuple[Catalogue, dict[Version, int]]]:
    """One catalogue after another, with the months of each type and version that is in it."""
    every = [(name, version) for name in ("order.placed", "order.sent") for version in (1, 2)]
    while True:
        months = {"short": rand.choice([6, 12, 24]), "long": rand.choice([24, 36])}
        kinds = {each: rand.choice(sorted(months)) for each in every if rand.random() < 0.7}
        made = own(*((*each, name) for each, name in kinds.items()), months=months)
        yield made, {each: months[name] for each, name in kinds.items()}


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_a_tenant_changes(tmp_path: Path, seed: int) -> None:
    """Against a model that looks at all records, each time."""
    rand, clock, seq = random.Random(seed), Clock(), 0
    known: dict[int, tuple[datetime, Version]] = {}
    expired = stray = 0
    async with governed(tmp_path, clock=clock) as records:
        catalogues = iter(_catalogues(rand))
        for _ in range(30):
            clock.now += timedelta(days=rand.randrange(1, 120))
            if rand.random() < 0.4:
                records.catalogue, months = next(catalogues)
            elif rand.random() < 0.7 and (
                kinds := sorted(records.catalogue.types.keys() - CATALOGUE.types.keys())
            ):
                name, version = rand.choice(kinds)
                seq += 1
                made = order_placed(clock, seq, records.catalogue, version, name)
                (index,) = indices(await records.accept([made]))
                known[index] = clock.now, (name, version)
            if not rand.randrange(3):
                continue
            await passed(records)
            for index, (then, kind) in list(known.items()):
                if kind in months and then < months_before(clock.now, months[kind]):
                    del known[index]
                    expired += 1
                    assert there(records, index) == [False]
            assert all(there(records, *known))
            unknown = sum(kind not in months for _, kind in known.values())
            assert records.counters.strays == unknown
            stray = max(stray, unknown)
    assert expired > 3
    assert stray > 0
