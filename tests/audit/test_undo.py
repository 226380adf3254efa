"""Mappings whose changes can be taken back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tlog.audit.undo import Journal, Undoable, take_back

KEYS = st.integers(0, 3)


@given(
    st.lists(st.dictionaries(KEYS, st.integers()), min_size=2, max_size=2),
    st.lists(st.tuples(st.integers(0, 1), KEYS, st.integers()) | st.integers(0, 12), max_size=20),
)
def test_they_go_back_to_what_they_were(
    begun: list[dict[int, int]], steps: list[tuple[int, int, int] | int]
) -> None:
    journal: Journal = []
    mappings = [Undoable(journal, made) for made in begun]
    was = [[dict(made) for made in begun]]
    for step in steps:
        if isinstance(step, tuple):
            which, key, value = step
            mappings[which][key] = value
            was.append([dict(made) for made in was[-1]])
            was[-1][which][key] = value
        else:
            take_back(journal, step)
            del was[step + 1 :]
        assert mappings == was[-1]
        assert len(journal) == len(was) - 1
