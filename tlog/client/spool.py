"""The spool: records on the local disk, from the moment they are made until the server has them.

`append` returns when the record is on the disk (fsync; threads that append at the same time share
one). So a kill of the application, or of the machine, loses nothing that was answered for. Records
leave in their order, each at least once: the server knows those that it has by their event id.

    <directory>/spool.json               whose it is, the cursor, what is known to be on the disk
    <directory>/<number>.segment         records from that number on (`frames`)
    <directory>/refused.jsonl            what the server refused for good, and why

A record's number is its place in its producer's sequence: it is given, signed and written in one
step. A torn tail is cut when the spool is opened (`segments`); anything else that cannot be read is
named, and refused. The files hold personal data in the clear, readable by their owner alone. What
is delivered goes with `tidy`, which the drain calls when it starts and every few seconds, and when
the spool is closed. It may take room on the disk: nothing else waits for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tlog.client.errors import SpoolDamaged, SpoolError, SpoolFull
from tlog.client.files import append_lines, sync_directory, write_all
from tlog.client.frames import MAX_DATA, MAX_FRAME, Frame, encode_frame, read_frames
from tlog.client.sealed import SealedFile
from tlog.client.segments import Segment, find_segments, trim

DEFAULT_BYTES: Final = 256 << 20
LEAST_BYTES: Final = 4 << 20
_MODERATE = 16 << 10
_LARGEST_SEGMENT = 16 << 20
_FORMAT = "tlog spool 1"


@dataclass(frozen=True, slots=True)
class _State:
    """What spool.json says.

    Attributes:
        cursor: the number of the next record to deliver; None if nobody knows.
        durable: the number of the last record known to be on the disk.
    """

    owner: str
    cursor: int | None
    durable: int

    @classmethod
    def read(cls, fields: dict[str, Any]) -> _State:
        state = cls(fields["owner"], int(fields["cursor"]), int(fields["durable"]))
        if not 1 <= int(fields["cursor"]) <= state.durable + 1:
            raise ValueError("its cursor is beyond what was kept")
        return state


class Spool:
    """The spool of one producer, open. One process has it; any number of its threads may append.

    `peek` and `advance` are for one thread, the one that delivers.

    Args:
        directory: where; made if it is not there.
        owner: whose records it holds; a spool is refused to anybody else.
        max_bytes: of all its files together, at least 4 MiB.
        abandon_damaged: deliver what can still be read of a damaged spool, instead of refusing it.

    Raises:
        SpoolDamaged: records that were answered for cannot be read.
        SpoolError: the directory cannot be used, or is somebody else's.
        StateError: another process has it, or spool.json is damaged.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        owner: str,
        max_bytes: int = DEFAULT_BYTES,
        abandon_damaged: bool = False,
    ) -> None:
        if max_bytes < LEAST_BYTES:
            raise SpoolError(f"max_bytes is {max_bytes}: give a spool at least {LEAST_BYTES}")
        self.directory = Path(directory)
        self.max_bytes = max_bytes
        self._segment_bytes = min(max_bytes // 8, _LARGEST_SEGMENT)
        self._owner = owner
        self._file = SealedFile(
            self.directory / "spool.json",
            "the spool's state",
            _FORMAT,
            1 << 16,
            "give each process a producer and a spool of its own",
            "Remove it: what is still in the spool is delivered again, which does no harm",
        )
        self._changed = threading.Condition()
        self._inside: set[int] = set()  # threads that append
        self._syncing = False
        self._failure = ""
        self._handle = -1
        self._stepping_over = abandon_damaged
        self._done: list[Segment] = []  # delivered, to be deleted once that is written down
        self._pid = os.getpid()
        self._held = contextlib.ExitStack()
        try:
            self._open()
        except OSError as error:
            self._held.close()
            raise SpoolError(f"the spool {directory} cannot be opened: {error.strerror}") from None
        except BaseException:
            self._held.close()
            raise
        _OPEN.add(self)

    def _open(self) -> None:
        self._held.enter_context(self._file.held())
        state = self._file.load(_State.read) or _State(self._owner, None, 0)
        if state.owner != self._owner:
            raise SpoolError(
                f"the spool {self.directory} is that of {state.owner}: give {self._owner} another"
            )
        found = find_segments(
            self.directory,
            cursor=state.cursor,
            durable=state.durable,
            abandon=self._stepping_over,
        )
        self._segments, self._offset = found.segments, found.offset
        self._cursor, self._next = found.cursor, found.next
        self.refused = self.directory / "refused.jsonl"
        self._refused_bytes = self.refused.stat().st_size if self.refused.exists() else 0
        self._handle = _open_segment(self._segments[-1])
        os.fsync(self._handle)
        self._synced = self._next - 1
        self._save()

    @property
    def next_number(self) -> int:
        """The number of the next record."""
        return self._next

    @property
    def waiting(self) -> int:
        """How many records are not delivered."""
        with self._changed:
            return self._next - self._cursor

    @property
    def used_bytes(self) -> int:
        """Of all its files."""
        with self._changed:
            return self._used()

    def append(self, make: Callable[[int], bytes]) -> int:
        """Add a record; it is on the disk when this returns.

        Args:
            make: gives the record of a number. Whatever it raises leaves the number free.

        Returns:
            The record's number.

        Raises:
            SpoolFull: too much is waiting; the record was not taken.
            SpoolError: the disk, or a fork. With `outcome_unknown` it may be taken all the same.
        """
        with self._entered():
            with self._changed:
                self._check()
                if self._segments[-1].size >= self._segment_bytes:
                    self._roll()
                number = self._next
                data = make(number)
                if len(data) > MAX_DATA:
                    raise SpoolError(f"a record of {len(data)} bytes, the limit is {MAX_DATA}")
                self._write(encode_frame(number, self._synced, data))
            self._sync_to(number)
        return number

    def check(self) -> None:
        """Raise what `append` would raise now for a record of moderate size."""
        self._check_process()
        with self._changed:
            self._check()
            self._check_room(_MODERATE)

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        self._check_process()
        thread = threading.get_ident()
        if thread in self._inside:
            # A signal came while its thread was recording: the locks are its own, and held.
            raise SpoolError("a record within a record: do not record in a signal handler")
        self._inside.add(thread)
        try:
            yield
        finally:
            self._inside.discard(thread)

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that opened it: then its locks are nobody's."""
        return os.getpid() != self._pid

    def _check_process(self) -> None:
        if self.forked:
            raise SpoolError("a spool does not survive a fork: make a new producer in the child")

    def _check(self) -> None:
        if self._handle < 0:
            raise SpoolError("the spool is closed")
        if self._failure:
            raise SpoolError(
                f"the spool {self.directory} failed before: {self._failure}. Mend the disk and "
                "restart"
            )

    def _write(self, frame: bytes) -> None:
        self._check_room(len(frame))
        segment = self._segments[-1]
        size = segment.size + len(frame)
        try:
            write_all(self._handle, frame)
        except BaseException as error:
            self._unwrite(segment)
            if isinstance(error, OSError):
                raise SpoolError(f"{segment.path}: {error.strerror}: nothing was taken") from None
            raise
        # No call between the two: nothing can interrupt them.
        segment.size = size
        self._next += 1

    def _check_room(self, size: int) -> None:
        if self._used() + size > self.max_bytes:
            self._refused_bytes = self.refused.stat().st_size if self.refused.exists() else 0
        if self._used() + size > self.max_bytes:
            aside = f", {self.refused.name} {self._refused_bytes}" if self._refused_bytes else ""
            raise SpoolFull(
                f"the spool {self.directory} is full: {self._next - self._cursor} records wait, "
                f"and its files have {self._used()} of {self.max_bytes} bytes{aside}. Bring the "
                f"server back, {'deal with that and remove it, ' if aside else ''}or raise "
                "max_bytes"
            )

    def _unwrite(self, segment: Segment) -> None:
        try:
            os.ftruncate(self._handle, segment.size)
        except OSError as error:
            self._failure = f"{segment.path}: {error.strerror}"

    def _sync_to(self, number: int) -> None:
        """Wait until a record is on the disk: one of those who wait sees to it for all."""
        while True:
            with self._changed:
                while self._syncing and self._synced < number:
                    self._changed.wait()
                if self._synced >= number:
                    return
                if self._failure:
                    raise SpoolError(f"not known to be kept: {self._failure}", outcome_unknown=True)
                self._syncing = True
                target, handle = self._next - 1, self._handle
            synced = 0
            try:
                os.fdatasync(handle)
                synced = target
            except OSError as error:
                # What the system has dropped by now, a second fsync would not tell.
                self._failure = f"{self.directory}: fsync: {error.strerror}"
            finally:
                with self._changed:
                    self._syncing = False
                    self._synced = max(self._synced, synced)
                    self._changed.notify_all()

    def _sync_all(self) -> None:
        """The same, for one who has the lock."""
        while self._syncing:
            self._changed.wait()
        self._check()
        try:
            os.fsync(self._handle)
        except OSError as error:
            self._failure = f"{self.directory}: fsync: {error.strerror}"
            self._check()
        self._synced = self._next - 1
        self._changed.notify_all()

    def _roll(self) -> None:
        """Begin a new segment; the old one is whole and on the disk."""
        self._sync_all()
        segment = Segment.of(self.directory, self._next)
        try:
            handle = _open_segment(segment)
        except OSError as error:
            raise SpoolError(f"{segment.path}: {error.strerror}: nothing was taken") from None
        os.close(self._handle)
        self._handle = handle
        self._segments.append(segment)

    def _used(self) -> int:
        files = (*self._done, *self._segments)
        return self._refused_bytes + sum(segment.size for segment in files)

    def wait(self, timeout: float | None) -> bool:
        """Wait until a record can be delivered, or somebody wakes; whether one can."""
        with self._changed:
            if self._synced < self._cursor:
                self._changed.wait(timeout)
            return self._synced >= self._cursor

    def wake(self) -> None:
        """End a `wait`."""
        with self._changed:
            self._changed.notify_all()

    def wait_delivered(self, timeout: float | None) -> bool:
        """Wait until all that was appended before this call is delivered; whether it is.

        Raises:
            SpoolError: it was opened before a fork.
        """
        self._check_process()
        with self._changed:
            last = self._next
            return self._changed.wait_for(lambda: self._cursor >= last, timeout)

    def peek(self, max_records: int, max_bytes: int) -> list[Frame]:
        """The next records to deliver: at least one, if one is on the disk and can be read.

        Raises:
            SpoolDamaged: the next one cannot be read.
            OSError: the disk.
        """
        with self._changed:
            segment, offset = self._segments[0], self._offset
            cursor, synced = max(self._cursor, segment.first), self._synced
        if cursor > synced:
            return []
        with segment.path.open("rb") as file:
            file.seek(offset)
            data = file.read(max_bytes + MAX_FRAME)
            first = next(read_frames(data, cursor), None)
            if not isinstance(first, Frame):
                if not self._stepping_over:
                    raise SpoolDamaged(f"{segment.path}, after offset {offset}: {first}")
                data += file.read()
        taken: list[Frame] = []
        size = 0
        for frame in read_frames(data, cursor):
            if not isinstance(frame, Frame):
                if taken:  # or only the rest of it was not read
                    break
                continue
            size += len(frame.data)
            if frame.number > synced or len(taken) == max_records or (taken and size > max_bytes):
                break
            taken.append(frame)
        if not taken:
            if segment is self._segments[-1]:
                raise SpoolDamaged(f"{segment.path}, after offset {offset}: {first}")
            self._go_on(self._segments[1].first, 0)
        return taken

    def advance(self, frames: Sequence[Frame]) -> None:
        """These records, the first that `peek` gave, are delivered.

        Raises:
            StateError: it cannot be written down; the next call tries again.
        """
        self._go_on(frames[-1].number + 1, self._offset + frames[-1].end)

    def tidy(self) -> None:
        """Take off the disk what is delivered, also where what is not stands beside it.

        A kill in the midst of it loses nothing, and the next call after it does the rest.

        Raises:
            SpoolError, StateError: it stays, and the next call tries again.
        """
        with self._changed:
            begun = self._cursor > self._segments[0].first
            if not begun and not self._done:
                return
            if begun and len(self._segments) == 1:
                self._roll()
            parted = begun and self._segments[1].first > self._cursor
        if parted:
            self._trim()
        self._go_on(self._cursor, self._offset)

    def _trim(self) -> None:
        """Part the first segment at the cursor; nobody appends to it any more."""
        self._save()
        segment = self._segments[0]
        try:
            copy = trim(segment, self._cursor, self._offset)
        except OSError as error:
            raise SpoolError(f"{segment.path}: {error.strerror}: delivered records stay") from None
        with self._changed:
            self._segments[0], self._offset = copy, 0
            self._done.append(segment)

    def _go_on(self, cursor: int, offset: int) -> None:
        with self._changed:
            self._cursor, self._offset = cursor, offset
            while len(self._segments) > 1 and self._segments[1].first <= cursor:
                self._done.append(self._segments.pop(0))
                self._offset = 0
            self._changed.notify_all()
        self._save()
        if self._done:
            self._delete_done()

    def _delete_done(self) -> None:
        with self._changed:
            try:
                while self._done:
                    self._done[-1].path.unlink(missing_ok=True)
                    self._done.pop()
                sync_directory(self.directory)
            except OSError as error:
                raise SpoolError(
                    f"{self.directory}: {error.strerror}: delivered records stay"
                ) from None

    def set_aside(self, lines: bytes) -> None:
        """Keep what the server refused for good, for a person to read.

        Raises:
            SpoolError: it cannot be written; then it MUST NOT count as delivered.
        """
        try:
            size = append_lines(self.refused, lines)
        except OSError as error:
            raise SpoolError(f"{self.refused}: {error.strerror}") from None
        with self._changed:
            self._refused_bytes = size

    def _save(self) -> None:
        with self._changed:
            cursor, durable = self._cursor, self._synced
        self._file.save({"owner": self._owner, "cursor": cursor, "durable": durable})

    def close(self) -> None:
        """Let go of the directory; again, do nothing. What was not delivered is kept, alone.

        Raises:
            SpoolError, StateError: what was delivered may stay until it is opened again.
        """
        if self.forked or self._handle < 0:
            return
        _OPEN.discard(self)
        try:
            with self._changed:
                if not self._failure:
                    self._sync_all()
            self._save()
            if not self._failure:
                self.tidy()
        finally:
            with self._changed:
                os.close(self._handle)
                self._handle = -1
                self._changed.notify_all()
            self._held.close()

    def forget(self) -> None:
        """In the child of a fork: leave it all to the parent, the lock too."""
        os.close(self._handle)
        self._held.close()


_APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def _open_segment(segment: Segment) -> int:
    handle = os.open(segment.path, _APPENDING, 0o600)
    sync_directory(segment.path.parent)
    return handle


# A child would keep the lock of a parent that was killed.
_OPEN: weakref.WeakSet[Spool] = weakref.WeakSet()


def _forget_all() -> None:
    for spool in list(_OPEN):
        spool.forget()
    _OPEN.clear()


os.register_at_fork(after_in_child=_forget_all)
