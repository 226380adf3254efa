"""Lines: whole, in order, bounded, and never waiting for a pipe that is silent."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.cli import lines as module
from tlog.cli.errors import CommandError
from tlog.cli.lines import Lines
from tlog.merkle import MAX_ENTRY_SIZE


async def read(path: Path) -> list[bytes]:
    return [line async for line in Lines(path)]


@given(
    texts=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))),
    ends=st.booleans(),
    chunk=st.integers(1, 64),
)
def test_any_file_in_chunks_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], ends: bool, chunk: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"lines-{os.getpid()}"
    path.write_bytes(b"\n".join(texts) + (b"\n" if ends and texts else b""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found = asyncio.run(read(path))
    # Only a last line that is empty cannot be told from no line.
    expected = texts if ends or not texts or texts[-1] else texts[:-1]
    assert found == expected


async def test_an_empty_file_has_no_lines_and_an_empty_line_is_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "one").write_bytes(b"\n")
    assert await read(tmp_path / "empty") == []
    assert await read(tmp_path / "one") == [b""]


@pytest.mark.parametrize("end", [b"", b"\n", b"more" * MAX_ENTRY_SIZE])
async def test_a_line_that_is_too_long_is_named_after_those_before_it(
    tmp_path: Path, end: bytes
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"first\n" + b"x" * MAX_ENTRY_SIZE + b"\n" + b"y" * (MAX_ENTRY_SIZE + 1) + end)
    found = []
    with pytest.raises(CommandError, match=r"line 3 of .*lines is longer than 65535 bytes"):
        async for line in Lines(path):
            found.append(len(line))
    assert found == [5, MAX_ENTRY_SIZE]


async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="gone"):
        await read(tmp_path / "gone")


async def test_stop_does_not_wait_for_a_silent_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = Lines(pipe)
    assert lines.size is None
    found = []
    writer = await asyncio.to_thread(os.open, pipe, os.O_RDWR)
    os.write(writer, b"one\ntwo\nthr")
    async with asyncio.timeout(10):
        async for line in lines:
            found.append(line)
            if len(found) == 2:
                lines.stop()
    assert found == [b"one", b"two"]
    os.close(writer)
