"""Bad input: refused, with the reason, and nothing stored; what comes after it is taken."""

from __future__ import annotations

from pathlib import Path

from tests.audit.bad_input import BAD, BOB, acquaint, everything
from tests.audit.producer import access, received, signed
from tests.audit.tenant import NOW, indices, tenant
from tlog.audit import EventRefused
from tlog.audit.intake import Recorded


async def test_refused_with_the_reason_and_nothing_stored(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=lambda: NOW) as records:
        size = await acquaint(records)
        before, refused = await everything(records, tmp_path)
        for bad in BAD:
            (outcome,) = await records.accept([bad.make(1)])
            assert isinstance(outcome, EventRefused), (bad.what, outcome)
            assert (bad.what, outcome.field) == (bad.what, bad.field)
            assert bad.says in str(outcome), bad.what
            refused += 1
            assert (bad.what, await everything(records, tmp_path)) == (bad.what, (before, refused))
        # The place in the sequence is open yet: there is no gap, and no repeat.
        assert await records.accept([signed(received(occurred_at=NOW), 1)]) == [Recorded(size)]
        assert records.log.sequencer.edge.size == size + 1


async def test_amidst_others_each_is_refused_and_the_others_are_taken(tmp_path: Path) -> None:
    async with tenant(tmp_path, clock=lambda: NOW) as records:
        size = await acquaint(records)
        before, _ = await everything(records, tmp_path)
        events = []
        for seq, bad in enumerate(BAD, 1):
            events += [bad.make(seq), signed(access(BOB, occurred_at=NOW), seq)]
        outcomes = await records.accept(events)
        refused = [outcome for outcome in outcomes[::2] if isinstance(outcome, EventRefused)]
        assert [refusal.field for refusal in refused] == [bad.field for bad in BAD]
        # No number is missing, and none came twice: the log had nothing to say.
        assert indices(outcomes[1::2]) == list(range(size, size + len(BAD)))
        found, count = await everything(records, tmp_path)
        assert count == len(BAD)
        assert len(found["entries"]) == len(found["index"]["records"]) == size + len(BAD)
        assert len(found["vault"]["parts"]) == len(before["vault"]["parts"]) + 2 * len(BAD)
        for family in ("keys", "subjects", "epochs", "state", "pending"):
            assert found["vault"][family] == before["vault"][family]
