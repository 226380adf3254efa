from __future__ import annotations

from pathlib import Path

import pytest

from tests.witness.support import SomeLog, write_list
from tlog.witness.conflict import Conflict
from tlog.witness.errors import WitnessError
from tlog.witness.evidence import MAX_PER_ORIGIN, EvidenceStore
from tlog.witness.logs import FreezeReason, LogList, freeze

LOG, FORK = SomeLog(), SomeLog(forked_at=0)


def conflict(size: int = 7) -> Conflict:
    return Conflict.between(LOG.note(size), FORK.note(size))


def test_what_is_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    store = EvidenceStore(tmp_path)
    assert LOG.origin not in store
    assert store.keep(conflict())
    assert not store.keep(conflict())
    again = EvidenceStore(tmp_path)
    assert again.origins() == [LOG.origin]
    assert again.files(LOG.origin) == [conflict().encode()]
    assert again.path_of(conflict().digest).read_bytes() == conflict().encode()
    assert not again.keep(conflict())


def test_a_log_cannot_fill_the_disk(tmp_path: Path) -> None:
    store = EvidenceStore(tmp_path)
    kept = [store.keep(conflict(size)) for size in range(1, 20)]
    assert kept == [True] * MAX_PER_ORIGIN + [False] * (19 - MAX_PER_ORIGIN)
    assert len(list((tmp_path / "conflicts").iterdir())) == MAX_PER_ORIGIN


def test_the_operator_clears(tmp_path: Path) -> None:
    write_list(tmp_path, LOG)
    running, cli = EvidenceStore(tmp_path), EvidenceStore(tmp_path)
    running.keep(conflict())
    freeze(tmp_path, LOG.origin, reason=FreezeReason.CONFLICT)
    (path,) = cli.clear(LOG.origin)
    assert path.read_bytes() == conflict().encode()
    log = LogList(tmp_path).find(LOG.origin)
    assert log is not None
    assert log.frozen is None
    running.refresh()
    assert LOG.origin not in running
    assert not running.keep(conflict()), "cleared: not taken again"
    assert running.keep(conflict(8)), "another one is"
    with pytest.raises(WitnessError, match="not frozen"):
        cli.clear("log.example/none")


def test_damaged_files_and_strangers_do_not_stop_it(tmp_path: Path) -> None:
    store = EvidenceStore(tmp_path)
    store.keep(conflict(7))
    store.keep(conflict(8))
    store.path_of(conflict(7).digest).write_bytes(b"damaged")
    (tmp_path / "conflicts" / "notes.txt").write_text("mine")
    (tmp_path / "conflicts" / f"{'0' * 32}.new").write_text("left by a crash")
    again = EvidenceStore(tmp_path)
    assert again.files(LOG.origin) == [conflict(8).encode()]


def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EvidenceStore(tmp_path)

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        with pytest.raises(WitnessError, match="No space"):
            store.keep(conflict())
    assert LOG.origin not in store
    assert LOG.origin not in EvidenceStore(tmp_path)
    assert store.keep(conflict())
