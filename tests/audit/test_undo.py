"""A mapping whose changes can be taken back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tlog.audit.undo import Undoable

KEYS = st.integers(0, 3)


@given(
    st.dictionaries(KEYS, st.integers()),
    st.lists(st.tuples(KEYS, st.integers()) | st.integers(0, 12), max_size=20),
)
def test_it_goes_back_to_what_it_was(
    begun: dict[int, int], steps: list[tuple[int, int] | int]
) -> None:
    mapping = Undoable(begun)
    was = [dict(begun)]
    for step in steps:
        if isinstance(step, tuple):
            key, value = step
            mapping[key] = value
            was.append({**was[-1], key: value})
        else:
            mapping.back_to(step)
            del was[step + 1 :]
        assert mapping == was[-1]
        assert mapping.changes == len(was) - 1
