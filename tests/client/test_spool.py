"""The spool through kills, torn tails, damage, full disks and many threads."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.client.spools import SMALL, drained, killed, left_on_disk, opened, put, segments
from tlog.client import segments as segment_files
from tlog.client import spool as spools
from tlog.client.errors import ClientError, SpoolDamaged, SpoolError, SpoolFull, StateError
from tlog.client.spool import LEAST_BYTES, Spool


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "_LARGEST_SEGMENT", SMALL)


def filled(path: Path, records: int = 6) -> list[bytes]:
    """A spool in one segment, killed; `durable` of its state is 0."""
    made = [b"record %d" % number for number in range(1, records + 1)]
    spool = opened(path)
    for data in made:
        put(spool, data)
    killed(spool)
    return made


def test_truncated_at_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(os, "fdatasync", lambda handle: None)
    monkeypatch.setattr(spools, "_LARGEST_SEGMENT", 1 << 20)
    made = filled(tmp_path / "whole", 3)
    size = segments(tmp_path / "whole")[0].stat().st_size
    frame = size // len(made)
    for cut in range(size + 1):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        os.truncate(segments(copy)[0], cut)
        spool = opened(copy)
        left = made[: cut // frame]
        assert put(spool, b"next") == len(left) + 1
        assert list(drained(spool).values()) == [*left, b"next"]
        spool.close()
        # What was known to be on the disk when it was closed cannot be torn any more.
        shutil.copytree(tmp_path / "whole", copy / "closed")
        opened(copy / "closed").close()
        os.truncate(segments(copy / "closed")[0], cut)
        if cut < size:
            with pytest.raises(SpoolDamaged, match=f"records {cut // frame + 1} "):
                opened(copy / "closed")
        shutil.rmtree(copy)


def test_every_byte_flipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(os, "fdatasync", lambda handle: None)
    monkeypatch.setattr(spools, "_LARGEST_SEGMENT", 1 << 20)
    made = filled(tmp_path / "whole", 3)
    data = segments(tmp_path / "whole")[0].read_bytes()
    frame = len(data) // len(made)
    for at in range(len(data)):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        segments(copy)[0].write_bytes(changed)
        hit = at // frame
        if hit < len(made) - 1:  # the frame after it says that it was on the disk
            with pytest.raises(SpoolDamaged, match=f"records {hit + 1} to {hit + 1} cannot"):
                opened(copy)
            assert segments(copy)[0].read_bytes() == changed
            spool = opened(copy, abandon_damaged=True)
            rest = {n: each for n, each in enumerate(made, 1) if n != hit + 1}
        else:  # nobody can tell it from a torn one
            spool = opened(copy)
            rest = dict(enumerate(made[:-1], 1))
        put(spool, b"next")
        assert drained(spool) == rest | {max(rest) + 1: b"next"}
        spool.close()
        shutil.rmtree(copy)


def test_segments_that_are_missing_changed_or_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole"
    made = dict(enumerate(filled(whole, 24), 1))
    names = [path.name for path in segments(whole)]
    assert len(names) > 4

    def damaged(name: str, change: Any, match: str, lost: set[int]) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        opened(copy).close()
        change(copy / name)
        for _ in range(2):  # it is not forgotten by being told
            with pytest.raises(SpoolDamaged, match=match):
                opened(copy)
        caplog.clear()
        spool = opened(copy, abandon_damaged=True)
        (told,) = [each.getMessage() for each in caplog.records]
        assert told.startswith(f"records of the spool {copy} are lost: ")
        assert re.search(match, told)
        assert put(spool, b"next") == 25
        assert drained(spool) == {n: d for n, d in made.items() if n not in lost} | {25: b"next"}
        spool.close()
        opened(copy).close()
        shutil.rmtree(copy)

    firsts = [int(name[:20]) for name in names] + [25]
    held = [set(range(a, b)) for a, b in itertools.pairwise(firsts)]
    for i, name in enumerate(names):
        damaged(name, Path.unlink, f"records {firsts[i]} to {firsts[i + 1] - 1} cannot", held[i])
        damaged(name, lambda path: os.truncate(path, 0), f"records {firsts[i]} ", held[i])
        damaged(
            name,
            lambda path: os.truncate(path, 50),
            f"records {firsts[i] + 1} ",
            held[i] - {firsts[i]},
        )
    first, second = segments(whole)[:2]
    first.rename(whole / "x")
    second.rename(first)
    (whole / "x").rename(second)
    with pytest.raises(SpoolDamaged, match=r"records 1 to 5 cannot .*records 6 to 10 cannot"):
        opened(whole)


def test_damage_that_comes_while_it_is_open(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for _ in range(12):
        put(spool, b"record")
    path = segments(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:40] + b"?" + path.read_bytes()[41:])
    spool.advance(spool.peek(1, 1000))
    with pytest.raises(SpoolDamaged, match=r"segment, after offset 34: records 2 to 2 cannot"):
        spool.peek(1, 1000)
    assert put(spool, b"record") == 13
    spool.close()


def test_a_state_that_is_lost_or_damaged(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for _ in range(12):
        put(spool, b"record")
    spool.advance(spool.peek(7, 1000))
    spool.close()
    state = tmp_path / "spool.json"
    text = state.read_text()
    state.write_text(text.replace('"cursor"', '"curse"'))
    with pytest.raises(StateError, match=r"damaged .*Remove it: .* delivered again"):
        opened(tmp_path)
    state.unlink()
    spool = opened(tmp_path)
    left = drained(spool)
    assert max(left) == 12
    assert set(range(min(left), 13)) == set(left)
    spool.tidy()
    spool.close()
    state.unlink()
    assert opened(tmp_path).next_number == 13


def test_who_may_have_it(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    assert stat.S_IMODE(tmp_path.joinpath("spool.json").stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in segments(tmp_path)} == {0o600}
    with pytest.raises(StateError, match="in use by another process: give each process"):
        opened(tmp_path)
    spool.close()
    spool.close()
    with pytest.raises(SpoolError, match="closed"):
        put(spool, b"late")
    with pytest.raises(SpoolError, match="is that of acme/shop: give acme/other another"):
        Spool(tmp_path, owner="acme/other")
    opened(tmp_path).close()
    with pytest.raises(SpoolError, match="at least"):
        opened(tmp_path, max_bytes=LEAST_BYTES - 1)
    (tmp_path / "file").touch()
    with pytest.raises(ClientError, match="cannot be"):
        opened(tmp_path / "file" / "spool")


def test_a_child_of_a_fork_leaves_it_alone(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    child = os.fork()
    if not child:
        try:
            put(spool, b"from the child")
        except SpoolError as error:
            spool.close()
            os._exit(42 if "fork" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert put(spool, b"from the parent") == 1
    # A child that lives on does not keep the lock.
    begin, end = os.pipe()
    told, tells = os.pipe()
    child = os.fork()
    if not child:
        os.close(end)
        os.write(tells, b"1")
        os.read(begin, 1)
        os._exit(0)
    os.read(told, 1)  # it lets go of the lock as soon as it runs
    spool.close()
    again = opened(tmp_path)
    assert list(drained(again).values()) == [b"from the parent"]
    for each in (begin, end, told, tells):
        os.close(each)
    os.waitpid(child, 0)
    again.close()


def test_a_signal_handler_does_not_record(tmp_path: Path) -> None:
    spool = opened(tmp_path)

    def make(number: int) -> bytes:
        with pytest.raises(SpoolError, match="signal handler"):
            put(spool, b"inner")
        return b"outer %d" % number

    assert spool.append(make) == 1
    assert drained(spool) == {1: b"outer 1"}
    spool.close()


def test_full_and_never_more_than_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "_LARGEST_SEGMENT", 16 << 20)
    spool = opened(tmp_path, max_bytes=LEAST_BYTES)
    data = bytes(100_000)
    with pytest.raises(SpoolFull, match=r"is full: 41 records wait, .*Bring the server back"):
        while True:
            put(spool, data)
    with pytest.raises(SpoolFull):
        put(spool, data)
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= LEAST_BYTES
    put(spool, b"a small one has room still")
    killed(spool)
    spool = opened(tmp_path, max_bytes=LEAST_BYTES)
    with pytest.raises(SpoolFull):
        put(spool, data)
    while len(segments(tmp_path)) > 6:
        spool.advance(spool.peek(1, 1))
    assert put(spool, data) == 43
    with pytest.raises(SpoolError, match="the limit is"):
        put(spool, bytes((1 << 20) + 1))
    waiting = spool.waiting
    assert set(drained(spool)) == set(range(44 - waiting, 44))
    spool.close()


def test_what_was_set_aside_makes_room_when_somebody_removes_it(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=LEAST_BYTES)
    spool.set_aside(bytes(LEAST_BYTES))
    with pytest.raises(SpoolFull, match=r"refused\.jsonl 4194304\. .* remove it"):
        put(spool, b"a record")
    spool.refused.unlink()
    assert put(spool, b"a record") == 1
    spool.close()


def test_a_disk_that_is_full_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    put(spool, b"before")
    real = os.write

    def short(handle: int, data: Any) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data[:20])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        for _ in range(3):
            with pytest.raises(SpoolError, match="No space left on device: nothing was taken"):
                put(spool, b"in between")
    assert put(spool, b"after") == 2
    killed(spool)
    assert drained(opened(tmp_path)) == {1: b"before", 2: b"after"}


def test_a_failed_fsync_is_never_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    put(spool, b"before")

    def broken(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(SpoolError, match="not known to be kept") as caught:
            put(spool, b"perhaps")
    assert caught.value.outcome_unknown
    with pytest.raises(SpoolError, match=r"failed before: .*Input/output error.*restart"):
        put(spool, b"after")
    # What is not known to be on the disk is not delivered: its number might be given again.
    assert drained(spool) == {1: b"before"}
    spool.close()
    assert drained(opened(tmp_path)) == {2: b"perhaps"}


@pytest.mark.parametrize("delivered", [1, 3, 5, 7, 12])
def test_what_is_delivered_leaves_the_disk(tmp_path: Path, delivered: int) -> None:
    def begun(name: str) -> Spool:
        spool = opened(tmp_path / name)
        for _ in range(12):
            put(spool, b"record")
        spool.advance(spool.peek(delivered, 1000))
        while spool.waiting > 12 - delivered:
            spool.advance(spool.peek(1, 1000))
        return spool

    rest = set(range(delivered + 1, 13))
    spool = begun("tidied")
    spool.tidy()
    assert left_on_disk(tmp_path / "tidied") == rest
    assert spool.used_bytes == sum(path.stat().st_size for path in segments(tmp_path / "tidied"))
    killed(spool)
    assert set(drained(opened(tmp_path / "tidied"))) == rest
    begun("closed").close()
    assert left_on_disk(tmp_path / "closed") == rest
    assert set(drained(opened(tmp_path / "closed"))) == rest
    killed(begun("killed"))
    spool = opened(tmp_path / "killed")
    spool.tidy()
    assert left_on_disk(tmp_path / "killed") == rest
    assert put(spool, b"next") == 13
    assert set(drained(spool)) == {*rest, 13}


@pytest.mark.parametrize(("records", "delivered"), [(5, 5), (5, 2), (12, 2)])
def test_killed_at_each_step_of_tidying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int, delivered: int
) -> None:
    whole = tmp_path / "whole"
    spool = opened(whole)
    for number in range(1, records + 1):
        put(spool, b"record %d" % number)
    spool.advance(spool.peek(delivered, 1000))
    killed(spool)
    rest = {number: b"record %d" % number for number in range(delivered + 1, records + 1)}

    class Killed(BaseException):
        pass

    def tidied_until(step: int) -> bool:
        """Whether it was killed before its end."""
        copy = tmp_path / f"copy{step}"
        shutil.copytree(whole, copy)
        spool = opened(copy)
        calls = itertools.count()

        def counted(real: Any) -> Any:
            def call(*args: Any, **more: Any) -> Any:
                if next(calls) >= step:
                    raise Killed  # and what would clean up is dead as well
                return real(*args, **more)

            return call

        ended = False
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            for name in ("fsync", "rename", "replace", "unlink", "open", "write"):
                patch.setattr(os, name, counted(getattr(os, name)))
            spool.tidy()
            ended = True
        killed(spool)
        spool = opened(copy)
        spool.tidy()
        assert left_on_disk(copy) == set(rest)
        assert drained(spool) == rest
        assert put(spool, b"next") == records + 1
        spool.close()
        opened(copy).close()
        return not ended

    steps = 0
    while tidied_until(steps):
        steps += 1
    assert steps > 5


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def nearly_full(path: Path) -> Any:
    """There is room for a copy, and hardly for anything else meanwhile."""
    return SimpleNamespace(free=segments(path)[0].stat().st_size)


@pytest.mark.parametrize(
    ("of", "name", "no_room"),
    [(segment_files, "replace_file", full), (shutil, "disk_usage", nearly_full)],
)
def test_a_disk_that_is_full_leaves_what_is_delivered_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Any, name: str, no_room: Any
) -> None:
    spool = opened(tmp_path)
    for _ in range(3):
        put(spool, b"record")
    spool.advance(spool.peek(1, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(of, name, no_room)
        with pytest.raises(SpoolError, match="No space left on device: delivered records stay"):
            spool.tidy()
        killed(spool)
        spool = opened(tmp_path)
        assert left_on_disk(tmp_path) == {1, 2, 3}
    assert put(spool, b"after") == 4
    spool.tidy()
    assert left_on_disk(tmp_path) == {2, 3, 4}
    assert set(drained(spool)) == {2, 3, 4}
    spool.close()


@pytest.mark.parametrize("at_once", [1, 7, 4096])
def test_what_is_set_aside_is_whole_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    spool = opened(tmp_path)
    lines = b'{"event": "%s"}\n' % (b"x" * 6000)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: real(handle, bytes(data)[:at_once]))
        spool.set_aside(lines)
    assert spool.refused.read_bytes() == lines
    room = at_once

    def short(handle: int, data: Any) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = real(handle, bytes(data)[:room])
        room -= taken
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(SpoolError, match=r"refused\.jsonl: No space left on device"):
            spool.set_aside(lines)
    assert spool.refused.read_bytes() == lines
    assert spool.used_bytes == len(lines)
    with spool.refused.open("ab") as file:
        file.write(b'{"torn by a k')
    spool.set_aside(lines)
    assert spool.refused.read_bytes() == lines + b'{"torn by a k\n' + lines
    assert spool.used_bytes == spool.refused.stat().st_size
    spool.close()


def test_threads_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "_LARGEST_SEGMENT", 1 << 14)
    calls = []
    real = os.fdatasync

    def slow(handle: int) -> None:
        calls.append(handle)
        time.sleep(0.002)
        real(handle)

    monkeypatch.setattr(os, "fdatasync", slow)
    spool = opened(tmp_path)
    made: dict[int, bytes] = {}
    delivered: dict[int, bytes] = {}

    def write(name: int) -> None:
        last = 0
        for i in range(50):
            data = b"%d/%d" % (name, i) + bytes(100)
            number = put(spool, data)
            assert number > last
            assert spool._synced >= number
            made[number] = data
            last = number

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while len(delivered) < 400 and time.monotonic() < deadline:
        if spool.wait(0.1):
            frames = spool.peek(10, 1000)
            assert all(frame.number <= spool._synced for frame in frames)
            delivered |= {frame.number: frame.data for frame in frames}
            spool.advance(frames)
    for thread in threads:
        thread.join()
    assert delivered == made
    assert list(delivered) == list(range(1, 401))
    assert len(calls) < 300
    spool.close()


WRITER = """
import sys, threading
from tlog.client import segments as segment_files
from tlog.client import spool as spools
spools._LARGEST_SEGMENT = 2000
spool = spools.Spool(sys.argv[1], owner="acme/shop")
lock = threading.Lock()
def write():
    while True:
        number = spool.append(lambda number: b"%d" % number * 20)
        with lock:
            print(number, flush=True)
def deliver():
    while True:
        if spool.wait(None) and (frames := spool.peek(3, 1000)):
            with lock:
                for frame in frames:
                    print("d%d" % frame.number, flush=True)
            spool.advance(frames)
            spool.tidy()
for run in (write, write, write, deliver):
    threading.Thread(target=run).start()
"""


def test_kill_loses_nothing_answered_for(tmp_path: Path) -> None:
    answered: set[int] = set()
    delivered: set[int] = set()
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(random.uniform(0, 0.12))
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines(True)
        writer.wait()
        writer.stdout.close()
        said = [line.strip() for line in lines if line.endswith("\n")]
        answered |= {int(line) for line in said if not line.startswith("d")}
        delivered |= {int(line[1:]) for line in said if line.startswith("d")}
    spool = opened(tmp_path)
    last = spool.next_number - 1
    spool.tidy()
    there = left_on_disk(tmp_path)
    left = drained(spool)
    assert there == set(left)
    assert all(data == b"%d" % number * 20 for number, data in left.items())
    assert answered <= delivered | set(left)
    assert delivered | set(left) == set(range(1, last + 1))
    spool.close()
