"""Logs that grow and fork, a witness on a real store, and a clock that the tests move."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from tests.merkle import trees
from tlog.notes import (
    Algorithm,
    Checkpoint,
    Note,
    NoteSignature,
    Signer,
    open_checkpoint,
    parse_note,
    sign_checkpoint,
)
from tlog.notes.note import sign_text
from tlog.store.heads import HeadStore
from tlog.witness import Head, Inconsistency, LogList, OnInconsistent, Witness, WitnessConfig
from tlog.witness.commits import Heads

NAME = "witness.example/w1"
ORIGIN = "log.example/one"
START = 1_700_000_000


@cache
def signer(name: str, algorithm: Algorithm, number: int = 0) -> Signer:
    seed = hashlib.sha256(f"{name} {algorithm} {number}".encode()).digest()
    return Signer.from_seed(name, algorithm, seed)


WITNESS_SIGNERS = (
    signer(NAME, Algorithm.ED25519_COSIGNATURE),
    signer(NAME, Algorithm.MLDSA44),
)
WITNESS_VKEYS = tuple(s.vkey for s in WITNESS_SIGNERS)


@cache
def leaves(fork: str, size: int) -> trees.Hashes:
    return [hashlib.sha256(f"{fork} {i}".encode()).digest() for i in range(size)]


@dataclass(frozen=True)
class SomeLog:
    """A log that signs anything: its tree, and from `forked_at` on, another one."""

    origin: str = ORIGIN
    algorithms: tuple[Algorithm, ...] = (Algorithm.ED25519,)
    forked_at: int | None = None

    @property
    def signers(self) -> list[Signer]:
        return [signer(self.origin, algorithm) for algorithm in self.algorithms]

    def leaves(self, size: int) -> trees.Hashes:
        if self.forked_at is None:
            return leaves("main", size)
        common = min(size, self.forked_at)
        return [*leaves("main", common), *leaves("fork", size)[common:]]

    def root(self, size: int) -> bytes:
        return trees.mth(self.leaves(size))

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(self.origin, size, self.root(size))

    @cache  # noqa: B019 -- ML-DSA signatures are random: a log has one note of one size
    def note(self, size: int) -> bytes:
        return sign_checkpoint(self.checkpoint(size), self.signers, timestamp=START)

    def head(self, size: int) -> Head:
        """Its head of that size, verified."""
        vkeys = [s.vkey for s in self.signers]
        return Head.of(open_checkpoint(self.note(size), vkeys, origin=self.origin))

    def proof(self, old: int, new: int) -> trees.Hashes:
        return trees.subproof(old, self.leaves(new), True) if 0 < old < new else []

    def request(self, old: int, new: int) -> tuple[int, trees.Hashes, bytes]:
        return old, self.proof(old, new), self.note(new)


@dataclass
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Evidence:
    """An `OnInconsistent` that keeps everything."""

    found: list[Inconsistency] = field(default_factory=list)

    async def __call__(self, inconsistency: Inconsistency, /) -> None:
        self.found.append(inconsistency)


def write_list(directory: Path, *logs: SomeLog) -> None:
    lines = [f"log {s.vkey} {log.origin}\n" for log in logs for s in log.signers]
    (directory / "logs").write_text("".join(lines))


@contextlib.asynccontextmanager
async def a_witness(
    directory: Path,
    *logs: SomeLog,
    heads: Heads | None = None,
    clock: Clock | None = None,
    monotonic: Clock | None = None,
    on_inconsistent: OnInconsistent | None = None,
    rate: float = 1000,
    burst: int = 1000,
) -> AsyncIterator[Witness]:
    """A witness on a real store in a directory, which is made unless it is there."""
    if not (directory / "logs").exists():
        directory.mkdir(exist_ok=True)
        write_list(directory, *(logs or (SomeLog(),)))
    store = None
    if heads is None:
        there = (directory / "db").exists()
        store = heads = HeadStore.open(directory) if there else HeadStore.create(directory)
    try:
        witness = Witness(
            WitnessConfig(name=NAME, rate=rate, burst=burst),
            WITNESS_SIGNERS,
            LogList(directory, clock=monotonic or Clock()),
            heads,
            clock=clock or Clock(),
            monotonic=monotonic or Clock(),
            on_inconsistent=on_inconsistent,
        )
        try:
            yield witness
        finally:
            await witness.close()
    finally:
        if store is not None:
            store.close()


def times_of(note: bytes, cosignatures: Sequence[NoteSignature]) -> set[int | None]:
    """Verify cosignatures on a note as a client does; the timestamps of both keys."""
    lines = b"".join(signature.encode() for signature in cosignatures)
    verified = open_checkpoint(note + lines, WITNESS_VKEYS, origin=open_origin(note))
    assert {vkey for vkey, _ in verified.signed_by} == set(WITNESS_VKEYS)
    return {timestamp for _, timestamp in verified.signed_by}


def signed(checkpoint: Checkpoint, *, extensions: tuple[str, ...] = ()) -> bytes:
    """A note of the log over anything, sane or not."""
    text = replace(checkpoint, extensions=extensions).body()
    return Note(text, (sign_text(text, SomeLog().signers[0]),)).encode()


def flip(note: bytes, index: int = -1) -> bytes:
    """The note with a bit of one of its signatures flipped."""
    parsed = parse_note(note)
    signatures = list(parsed.signatures)
    broken = bytearray(signatures[index].signature)
    broken[-1] ^= 1
    signatures[index] = replace(signatures[index], signature=bytes(broken))
    return Note(parsed.text, tuple(signatures)).encode()


def open_origin(note: bytes) -> str:
    return note.split(b"\n", 1)[0].decode()
