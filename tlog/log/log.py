"""One log: its directory, its parts put together, its life from open to close."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from tlog.log.config import LogConfig
from tlog.log.cosigners import Cosigner, Cosigners
from tlog.log.errors import LogError, OutOfRange, Reserved, StateRefused
from tlog.log.head import Head
from tlog.log.policy import FILE_NAME as POLICY
from tlog.log.policy import load_policy, policy_of, policy_text
from tlog.log.publisher import HeadSigner, Publisher
from tlog.log.reader import Reader
from tlog.log.scrubber import Scrubber, View
from tlog.log.sequencer import Accepted, Sequencer
from tlog.log.startup import recover
from tlog.merkle import RightEdge
from tlog.notes import (
    Algorithm,
    Policy,
    Signer,
    TlogProof,
    VerifierKey,
    load_signer,
    save_signer,
)
from tlog.store import LogStore, RocksStore, StoreView

KEYS = "keys"
# Today's witnesses need Ed25519; the specification recommends ML-DSA-44. Both sign every head.
KEY_FILES = {"ed25519.key": Algorithm.ED25519, "mldsa44.key": Algorithm.MLDSA44}

Connect = Callable[[str], Cosigner]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where an entry stands, proven in a published tree."""

    index: int
    hashes: Sequence[bytes]
    head: Head

    def tlog_proof(self) -> bytes:
        """The receipt as a file of format c2sp.org/tlog-proof."""
        return TlogProof(
            index=self.index, hashes=tuple(self.hashes), checkpoint=self.head.note
        ).encode()


def create_log(
    directory: Path,
    config: LogConfig,
    *,
    passphrase: bytes | None = None,
    policy: bytes | None = None,
) -> tuple[VerifierKey, ...]:
    """Make a log's directory: its keys, its policy, an empty store and, last, `log.toml`.

    A policy (c2sp.org/tlog-policy) is given without lines of this log: they are put into it.

    Returns:
        The verifier keys, Ed25519 first.

    Raises:
        LogError: the directory holds something already, or the policy cannot be that of this log.
        NoteError: it is not a policy.
    """
    if directory.exists() and any(directory.iterdir()):
        raise LogError(f"{directory} is not empty: choose a new directory for a new log")
    signers = [Signer.generate(config.origin, algorithm) for algorithm in KEY_FILES.values()]
    vkeys = tuple(signer.vkey for signer in signers)
    complete = None if policy is None else policy_of(policy, vkeys)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / KEYS).mkdir(mode=0o700)
    for file, signer in zip(KEY_FILES, signers, strict=True):
        save_signer(directory / KEYS / file, signer, passphrase=passphrase)
    if complete is not None:
        (directory / POLICY).write_bytes(complete)
    RocksStore.create(directory).close()
    config.save(directory)
    return vkeys


def load_signers(
    directory: Path, config: LogConfig, *, passphrase: bytes | None
) -> tuple[Signer, ...]:
    """Load the log's keys and check that they carry its origin.

    Raises:
        NoteError: a key file is missing, too open, sealed, or damaged.
        LogError: a key belongs to another log.
    """
    signers = tuple(
        load_signer(directory / KEYS / file, passphrase=passphrase) for file in KEY_FILES
    )
    for signer in signers:
        if signer.vkey.name != config.origin:
            raise LogError(
                f"{directory}: the keys are those of {signer.vkey.name!r}, not of the origin "
                f"{config.origin!r}"
            )
    return signers


@contextlib.contextmanager
def _view(directory: Path, store: RocksStore) -> Iterator[LogStore]:
    # What is in the memory of the store would be in that of the view once more.
    store.write_out()
    with TemporaryDirectory(prefix="tlog-scrub-") as scratch:
        view = StoreView(directory, Path(scratch))
        try:
            yield view
        finally:
            view.close()


class Log:
    """A log that is open. Make one with `Log.opened`; all methods run on one event loop.

    Attributes:
        config: its settings.
        vkeys: its verifier keys, Ed25519 first.
        sequencer: its write path.
        publisher: signs and shows its heads.
        cosigners: its witnesses, None when its policy asks for none.
        reader: entries and proofs. Sizes given to it must have passed `published_size`.
        scrubber: re-hashes what is stored, None when its settings say never.
        policy: for whoever verifies it, the text of its trust policy (c2sp.org/tlog-policy).
        reserved: why `submit` refuses, for a log whose layer above appends by the sequencer itself;
            empty when anybody may append.
    """

    def __init__(
        self,
        config: LogConfig,
        store: LogStore,
        signers: Sequence[Signer],
        *,
        clock: Callable[[], float],
        view: View,
        policy: Policy | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.config = config
        self.vkeys = tuple(signer.vkey for signer in signers)
        self.policy = b""
        self.reserved = ""
        self._store = store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"tlog-{config.name}")
        state = recover(store, self.vkeys)
        self.sequencer = Sequencer(
            store,
            state.edge,
            config,
            executor=self._executor,
            reload=self._reload,
            integrated=lambda: self.publisher.integrated(),  # noqa: PLW0108 -- made below
        )
        self.reader = Reader(store)
        self._signer = HeadSigner(store, self.reader, signers, clock=clock, signed=state.signed)
        self.cosigners = self._cosigners(policy, connect, state.published)
        self.publisher = Publisher(
            store,
            self.sequencer,
            self._signer,
            executor=self._executor,
            interval=config.checkpoint_interval,
            published=state.published,
            witnessing=self.cosigners,
            refresh_interval=config.refresh_interval,
        )
        self.scrubber = (
            Scrubber(
                view, self.vkeys, name=config.name, interval=config.scrub_interval, clock=clock
            )
            if config.scrub_interval
            else None
        )

    def _cosigners(
        self, policy: Policy | None, connect: Connect | None, published: Head | None
    ) -> Cosigners | None:
        """The witnesses of the policy that have a URL; None when it asks for none."""
        if policy is None or not policy.witnesses:
            return None
        if connect is None:
            raise LogError(f"{self.name}: its policy names witnesses, but nothing connects to them")
        urls = dict.fromkeys(witness.url for witness in policy.witnesses if witness.url)
        return Cosigners(
            policy,
            {url: connect(url) for url in urls},
            self.reader,
            published=published,
            timeout=self.config.quorum_timeout,
            fail_open=self.config.fail_open,
            late=lambda head: self.publisher.amend(head),  # noqa: PLW0108 -- made below
        )

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls,
        directory: Path,
        *,
        passphrase: bytes | None = None,
        clock: Callable[[], float] = time.time,
        connect: Connect | None = None,
    ) -> AsyncIterator[Log]:
        """Open a log, prove its state, publish what was not yet, and run it.

        With a policy file in the directory a head is published when its quorum has cosigned it;
        `connect` gives the way to the witness at a URL.

        On leaving: take nothing new, finish and publish what was accepted, close the store.

        Raises:
            LogError, NoteError, StoreError: the log cannot be opened; the message says why.
        """
        config = LogConfig.load(directory)
        signers = load_signers(directory, config, passphrase=passphrase)
        store = RocksStore.open(directory)
        try:
            policy = load_policy(directory, [signer.vkey for signer in signers])
            log = cls(
                config,
                store,
                signers,
                clock=clock,
                view=partial(_view, directory, store),
                policy=policy,
                connect=connect,
            )
            log.policy = policy_text(directory, log.vkeys)
            # A fresh log thus signs a head of size 0 before its first write, and publishes it
            # unless witnesses must cosign it first.
            await log.publisher.sign()
            if policy is None or policy.satisfied_by(()):
                await log.publisher.publish()
            log.publisher.integrated()
            async with log._running():
                yield log
        finally:
            store.close()

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        write = asyncio.create_task(self.sequencer.run(), name=f"{self.name}-sequencer")
        publish = asyncio.create_task(self.publisher.run(), name=f"{self.name}-publisher")
        tasks = [write, publish]
        if self.cosigners is not None:
            tasks.append(asyncio.create_task(self.cosigners.run(), name=f"{self.name}-cosigners"))
        if self.scrubber is not None:
            tasks.append(asyncio.create_task(self.scrubber.run(), name=f"{self.name}-scrubber"))
        for task in tasks:
            task.add_done_callback(self._stopped)
        try:
            yield
        finally:
            self.sequencer.close()
            await asyncio.wait([write])
            self.publisher.close()
            await asyncio.wait([publish])
            for task in tasks[2:]:
                task.cancel()
            if tasks[2:]:
                await asyncio.wait(tasks[2:])
            self._executor.shutdown()

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """A task that dies takes the log's write path with it: safety by refusal."""
        if not task.cancelled() and (error := task.exception()) is not None:
            reason = error if isinstance(error, LogError) else "internal error; restart it"
            self.sequencer.stop(StateRefused(f"the log stopped: {reason}"))
            _log.critical("log stopped", log=self.name, task=task.get_name(), exc_info=error)

    @property
    def name(self) -> str:
        """How requests and URLs address the log."""
        return self.config.name

    @property
    def origin(self) -> str:
        """The log's identity, as in its checkpoints."""
        return self.config.origin

    @property
    def published(self) -> Head:
        """The latest published head."""
        return self.publisher.published

    @property
    def signed_size(self) -> int:
        """Entries of the last head that was signed, published or not."""
        return 0 if self._signer.signed is None else self._signer.signed.size

    @property
    def tree_size(self) -> int:
        """Entries of the latest published head; 0 while the first one waits for its quorum."""
        return 0 if self.publisher.latest is None else self.publisher.latest.size

    def published_size(self, size: int) -> int:
        """The tree size a request means: 0 stands for the latest published one.

        Raises:
            OutOfRange: larger than that.
        """
        published = self.published.size
        if size > published:
            raise OutOfRange(
                f"tree size {size} is not published: the latest checkpoint has {published} entries",
                field="tree_size",
            )
        return size or published

    def submit(self, entries: Sequence[bytes]) -> Accepted:
        """Accept entries; await the answer for their indices. See `Sequencer.submit`.

        Raises:
            Reserved: the log is a layer's above it.
        """
        if self.reserved:
            raise Reserved(self.reserved, field="log")
        return self.sequencer.submit(entries)

    async def append_published(self, entries: Sequence[bytes]) -> list[Receipt]:
        """Append entries and wait until a published head includes them all.

        Raises:
            Unavailable: the log stopped first. The entries are durable all the same.
        """
        return await self.receipts(await self.submit(entries))

    async def receipts(self, indices: Sequence[int]) -> list[Receipt]:
        """Wait until a published head includes these durable entries.

        Raises:
            Unavailable: the log stopped first.
        """
        head = await self.publisher.wait_for(max(indices) + 1)
        return [
            Receipt(index, self.reader.inclusion_proof(index, head.size), head) for index in indices
        ]

    def _reload(self) -> RightEdge:
        """Reopen the store after a failed write and prove it anew, by writing too."""
        self._store.reopen()
        state = recover(self._store, self.vkeys)
        self._store.put_state({"probe": b""})
        self._store.sync()
        self._signer.signed = state.signed
        return state.edge
