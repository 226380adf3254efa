"""Files that verbs write: whole or not at all, and what is no file keeps its place."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from tlog.cli.files import whole_file


def kind(path: Path) -> int:
    return stat.S_IFMT(path.lstat().st_mode)


def test_a_file_is_whole_or_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "feed"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), whole_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"before"
    with whole_file(path) as file:
        file.write(b"whole")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    with whole_file(path) as file:
        file.write(b"first ")
        file.write(b"second")
    reader.join(10)
    assert read == [b"first second"]
    assert kind(path) == stat.S_IFIFO
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no such directory here")
def test_the_pipe_of_a_shell_is_written_through() -> None:
    """`-o >(gzip > feed.gz)`: a link to what has no path."""
    read, write = os.pipe()
    with open(read, "rb") as reader, open(write, "wb"):
        with whole_file(Path(f"/dev/fd/{write}")) as file:
            file.write(b"through")
        assert os.read(reader.fileno(), 99) == b"through"


def test_a_link_to_itself_becomes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    path.symlink_to(path)
    with whole_file(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_device_stays_and_a_full_one_is_told(tmp_path: Path) -> None:
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    with whole_file(null) as file:
        file.write(b"gone")
    assert (kind(null), kind(Path("/dev/null"))) == (stat.S_IFLNK, stat.S_IFCHR)
    with pytest.raises(OSError, match="No space left"), whole_file(Path("/dev/full")) as file:
        file.write(b"more")
    assert kind(Path("/dev/full")) == stat.S_IFCHR


def test_a_link_stays_and_what_it_leads_to_is_whole(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    target.parent.mkdir()
    target.write_bytes(b"before")
    link.symlink_to(target)
    with pytest.raises(RuntimeError), whole_file(link) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"before"
    with whole_file(link) as file:
        file.write(b"whole")
    assert (kind(link), target.read_bytes()) == (stat.S_IFLNK, b"whole")
    # One that leads nowhere yet.
    target.unlink()
    with whole_file(link) as file:
        file.write(b"new")
    assert (kind(link), target.read_bytes()) == (stat.S_IFLNK, b"new")


def test_a_socket_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    os.mknod(path, stat.S_IFSOCK | 0o600)
    with pytest.raises(OSError), whole_file(path):  # noqa: PT011 -- what the system says
        pass
    assert kind(path) == stat.S_IFSOCK
