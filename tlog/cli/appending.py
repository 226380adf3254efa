"""What `tlog append` does: entries go up, indices and proofs come down."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import click

from tlog.cli.errors import CommandError, Exit, exit_code, one_line
from tlog.cli.lines import Lines
from tlog.cli.options import read_bounded
from tlog.cli.output import Output
from tlog.client import AsyncClient
from tlog.merkle import MAX_ENTRY_SIZE, leaf_hash

PROOFS_AT_ONCE = 1024


async def append_one(
    client: AsyncClient, entry: bytes, *, published: bool, proof: Path | None, out: Output
) -> None:
    """Append one entry; its proof goes to the file `proof`, or into that directory."""
    # Before the entry is in the log: afterwards its proof would have no place to go.
    if proof is not None and not proof.parent.is_dir():
        raise click.UsageError(f"--proof {proof}: there is no directory {proof.parent}")
    appended = await client.append(entry, wait="published" if published else "durable")
    fields: dict[str, object] = {"index": appended.index}
    if proof is not None and appended.proof is not None:
        fields["proof"] = str(_write(proof, appended.index, appended.proof.encode()))
    out.result(str(appended.index), **fields)


async def append_lines(
    client: AsyncClient, path: Path, *, published: bool, proofs: Path | None, out: Output
) -> None:
    """Append each line of a file. Ctrl-C ends the reading; what was sent is waited for."""
    lines = Lines(path)
    run = _Run(client, published=published, proofs=proofs)
    with (
        _on_interrupt(lines.stop) as interrupted,
        out.progress(f"appending {path} (bytes)", lines.size) as progress,
    ):
        await run.append(lines, progress=lambda: progress(lines.read))
    if interrupted.is_set():
        raise CommandError(f"interrupted. {run.so_far()}", Exit.INTERRUPTED)
    run.tell(out)


async def append_files(
    client: AsyncClient, files: Sequence[Path], *, published: bool, proofs: Path | None, out: Output
) -> None:
    """Append each file whole. All are looked at before the first one is sent."""
    for file in files:
        if (size := file.stat().st_size) > MAX_ENTRY_SIZE:
            raise CommandError(
                f"{file} has {size} bytes, an entry at most {MAX_ENTRY_SIZE}: append a hash of it. "
                "Nothing was appended"
            )

    async def entries() -> AsyncIterator[bytes]:
        for done, file in enumerate(files):
            yield read_bounded(file, MAX_ENTRY_SIZE)
            progress(done)

    run = _Run(client, published=published, proofs=proofs)
    with out.progress("appending files", len(files)) as progress:
        await run.append(entries())
    run.tell(out)


class _Run:
    """Appends many entries in order and keeps count of what is durable."""

    def __init__(self, client: AsyncClient, *, published: bool, proofs: Path | None) -> None:
        if proofs is not None:
            if proofs.exists() and not proofs.is_dir():
                raise click.UsageError(f"--proof {proofs}: several entries need a directory")
            proofs.mkdir(parents=True, exist_ok=True)
        self._client = client
        self._published = published
        self._proofs = proofs
        self._count = self._first = self._last = 0
        self._consecutive = True
        # Leaf hashes of what was sent, and of what is durable, but not proven yet.
        self._sent: deque[bytes] = deque()
        self._durable: list[tuple[int, bytes]] = []

    async def append(
        self, entries: AsyncIterable[bytes], *, progress: Callable[[], None] = lambda: None
    ) -> None:
        """Append all of the entries.

        Raises:
            CommandError: something went wrong on the way; the message says how far it came.
        """
        highest = -1
        try:
            async with contextlib.aclosing(
                self._client.append_stream(self._noted(entries))
            ) as indices:
                async for index in indices:
                    self._note(index)
                    highest = max(highest, index)
                    if self._proofs is not None:
                        self._durable.append((index, self._sent.popleft()))
                        if len(self._durable) == PROOFS_AT_ONCE:
                            await self._prove(self._proofs, highest)
                    progress()
            if self._proofs is not None and self._durable:
                await self._prove(self._proofs, highest)
            elif self._published and self._count:
                await self._publication(highest)
        except Exception as error:
            code = exit_code(error)
            if code is None or not self._count:
                raise
            raise CommandError(f"{one_line(error)}. {self.so_far()}", code) from None
        except asyncio.CancelledError:
            raise CommandError(f"interrupted. {self.so_far()}", Exit.INTERRUPTED) from None

    def so_far(self) -> str:
        """How many entries are durable."""
        if not self._count:
            return "No entry is known to be durable"
        return f"{self._count} entries are durable: {self._first}..{self._last}"

    def tell(self, out: Output) -> None:
        """Say where the entries stand."""
        if not self._count:
            out.hint("nothing to append: no lines")
            if out.as_json:
                out.result("", count=0)
            return
        fields = {"proofs": str(self._proofs)} if self._proofs else {}
        out.result(
            f"{self._first}..{self._last}" if self._count > 1 else str(self._first),
            count=self._count,
            first=self._first,
            last=self._last,
            consecutive=self._consecutive,
            **fields,
        )
        if not self._consecutive:
            out.hint("Not consecutive: others append too, or entries were in the log already.")

    async def _noted(self, entries: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for entry in entries:
            if self._proofs is not None:
                self._sent.append(leaf_hash(entry))
            yield entry

    def _note(self, index: int) -> None:
        if not self._count:
            self._first = index
        elif index != self._last + 1:
            self._consecutive = False
        self._count += 1
        self._last = index

    async def _publication(self, index: int) -> None:
        async with contextlib.aclosing(self._client.watch()) as heads:
            async for head in heads:
                if head.size > index:
                    return

    async def _prove(self, directory: Path, highest: int) -> None:
        durable, self._durable = self._durable, []
        await self._publication(highest)
        proven = await self._client.inclusion_proofs(
            [leaf for _, leaf in durable], indices=[index for index, _ in durable]
        )
        for inclusion in proven:
            if inclusion.proof is None:
                raise CommandError(f"entry {inclusion.index}: no proof in the latest tree")
            _write(directory, inclusion.index, inclusion.proof.encode())


@contextlib.contextmanager
def _on_interrupt(stop: Callable[[], None]) -> Iterator[asyncio.Event]:
    """The first Ctrl-C calls `stop` and sets the event; the second one cancels all."""
    loop, task, interrupted = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()

    def interrupt() -> None:
        if interrupted.is_set() and task is not None:
            task.cancel()
        interrupted.set()
        stop()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _write(place: Path, index: int, proof: bytes) -> Path:
    """Write a proof to a file, or into a directory under the entry's index."""
    path = place / f"{index}.tlog-proof" if place.is_dir() else place
    try:
        path.write_bytes(proof)
    except OSError as error:
        raise CommandError(
            f"entry {index} is in the log, but its proof was not written: {one_line(error)}. "
            f"Get it with: tlog prove {index}"
        ) from None
    return path
