import os
import threading
from pathlib import Path

import pytest

from tlog.store import StoreCorrupt, StoreError
from tlog.store.marker import MAX_MARKER_SIZE, read_marker, write_marker


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "HEAD"
    assert read_marker(path) is None
    for marker in (b"", b"first", b"x" * MAX_MARKER_SIZE, b"short"):
        write_marker(path, marker)
        assert read_marker(path) == marker
    assert os.listdir(tmp_path) == ["HEAD"]


def test_over_long_markers_are_refused_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "HEAD"
    write_marker(path, b"good")
    with pytest.raises(StoreError, match="1048576"):
        write_marker(path, b"x" * (MAX_MARKER_SIZE + 1))
    assert read_marker(path) == b"good"
    path.write_bytes(b"x" * (MAX_MARKER_SIZE + 1))
    with pytest.raises(StoreCorrupt, match="HEAD"):
        read_marker(path)


def test_a_failed_write_leaves_the_old_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "HEAD"
    write_marker(path, b"old")

    def failing(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(StoreError, match="not written"):
            write_marker(path, b"new")
    assert read_marker(path) == b"old"
    # What the failure, or a crash, left behind is in nobody's way.
    write_marker(path, b"newer")
    assert read_marker(path) == b"newer"


def test_a_reader_sees_one_marker_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "HEAD"
    markers = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_marker(path, markers[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for marker in markers:
                write_marker(path, marker)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert all(read_marker(path) in markers for _ in range(300))
    finally:
        stop.set()
        thread.join()


def test_an_unreadable_marker_is_not_an_absent_one(tmp_path: Path) -> None:
    (tmp_path / "HEAD").mkdir()
    with pytest.raises(StoreError, match="HEAD"):
        read_marker(tmp_path / "HEAD")
