"""What is told before an erasure, and recorded as any look: what would go, and what holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.audit.approvers import every_byte, governed, order, refused
from tests.audit.producer import ALICE, access, received, signed
from tests.audit.tenant import indices, opened, types, values
from tlog.audit import Draft, EventRefused, overview
from tlog.audit.erasing import submit
from tlog.audit.errors import Held
from tlog.audit.orders import Kind
from tlog.audit.overview import preview, standing
from tlog.audit.reading import Access, Caller
from tlog.audit.search import Query, find_all, search
from tlog.audit.survey import Survey, survey
from tlog.audit.tokens import canonical
from tlog.audit.vault import NOBODY, Erasure, Part
from tlog.log import Unavailable

BOB = "bob@example.com"
LOOK = Access(Caller("olga", "local_user"), "request R-1")


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
