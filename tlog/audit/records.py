"""The write path of the records layer: events go in, are verified, sealed, and put into the log.

The room's `__init__` tells the order of the steps and why a kill between any two of them loses and
duplicates nothing. `Records` runs them in rounds, one at a time: what comes in during a round is
the next one. The log is the records layer's alone, and refuses the appends of others: what a record
says of an index is said before the record has it. Entries that are no records are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import structlog

from tlog.audit.catalogue import Catalogue
from tlog.audit.deadlines import Terms
from tlog.audit.deeds import Deeds, to_its_end
from tlog.audit.docket import Docket
from tlog.audit.errors import AuditError, EventRefused
from tlog.audit.event import Draft
from tlog.audit.expiry import carry_out
from tlog.audit.intake import Batch, Intake, Outcome, Recorded
from tlog.audit.orders import DEFAULT_LIMITS, Limits
from tlog.audit.rebuild import State, load_state, replay
from tlog.audit.round import Counters, Placed, Round
from tlog.audit.shredding import Shredding
from tlog.audit.stored import StoredRecord, read_stored
from tlog.audit.tokens import canonical
from tlog.audit.vault import Vault
from tlog.audit.verifying import Verifiers
from tlog.log import Log, LogError, Unavailable
from tlog.notes import Signer, VerifierKey
from tlog.store import StoreError

if TYPE_CHECKING:
    from tlog.audit.indexer import Indexer

ROUND_EVENTS = 1024
"""Events of one round: they keep the event loop for some 100 ms, in steps of a few."""
SNAPSHOT_EVERY = 4096
"""Entries between two snapshots: what a start reads again, and verifies again."""
# An event may bring four records of the log's own with it: a conflict, a repeat, a clock, and that
# somebody is enrolled again.
_PER_EVENT = 5
_STEP = 32

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Records:
    """The records of one tenant. Make it with `Records.opened`; one event loop runs it all.

    Attributes:
        service: what the log is called as a producer.
        vkey: of the log's own records.
        root: the first key that it had.
        counters: what came in so far, for the metrics.
        clock: the time of receipt.
        limits: on what orders may do.
        docket: the requests, and how their deadlines stand.
        deeds: what goes on to its end, whoever waits for it.
        grew: set whenever the log has more records.
        workers: processes that verify, and index; None if there are none.
        index: finds records; None where `indexer.indexing` keeps none.
    """

    def __init__(
        self,
        log: Log,
        vault: Vault,
        signer: Signer,
        *,
        tenant: str,
        catalogue: Catalogue,
        clock: Callable[[], datetime],
        limits: Limits,
        root: VerifierKey | None,
        verifiers: Verifiers | None,
        terms: Terms | None,
    ) -> None:
        self.log = log
        self.vault = vault
        self.catalogue = catalogue
        self.tenant = tenant
        self.limits = limits
        self.service = signer.vkey.name
        self.vkey = signer.vkey
        self.counters = Counters()
        self.docket = Docket(log, terms or Terms())
        self._signer = signer
        self.root = root or signer.vkey
        self.workers = verifiers
        self.clock = clock
        self._state: State | None = None
        self._wake = asyncio.Event()
        self.grew = asyncio.Event()
        self.index: Indexer | None = None
        self._exclusive = asyncio.Lock()
        self._shredding = asyncio.Lock()
        self.deeds = Deeds()
        self._closing = False
        at_once = min(ROUND_EVENTS, log.config.max_batch_entries // _PER_EVENT)
        if not at_once:
            raise AuditError(f"max_batch_entries of the log is under {_PER_EVENT}: raise it")
        self._intake = Intake(at_once)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls,
        log: Log,
        vault: Vault,
        signer: Signer,
        *,
        tenant: str,
        catalogue: Catalogue,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        limits: Limits = DEFAULT_LIMITS,
        root: VerifierKey | None = None,
        verifiers: Verifiers | None = None,
        terms: Terms | None = None,
    ) -> AsyncIterator[Records]:
        """Reconcile the vault with the log, and run.

        On leaving: take nothing new, finish what was accepted. The log and the vault stay open.

        Args:
            log: the log, running; the records layer's alone.
            vault: the tenant's.
            signer: the key of the log's own records, named by the service's producer id.
            tenant: as in the claims of its events.
            catalogue: the types of events.
            clock: the time of receipt.
            limits: on what orders may do.
            root: the first key that the service had, if it has been rotated since.
            verifiers: other processes that verify signatures; the caller's to close.
            terms: how the deadlines of requests are reckoned; as in California, if not given.

        Raises:
            AuditError, StoreError, LogError: the two cannot be reconciled.
        """
        log.reserved = (
            f"{log.name} is a records log, which takes signed events only: send them with "
            "AuditService.Record (tlog.client.Producer), or append to another log"
        )
        records = cls(
            log,
            vault,
            signer,
            tenant=tenant,
            catalogue=catalogue,
            clock=clock,
            limits=limits,
            root=root,
            verifiers=verifiers,
            terms=terms,
        )
        await records._recover()
        task = asyncio.create_task(records._run(), name=f"{tenant}-records")
        try:
            yield records
        finally:
            records._closing = True
            records._wake.set()
            await asyncio.wait([task])
            await records.deeds.ended()

    async def accept(self, events: Sequence[str]) -> list[Outcome]:
        """Record events, SD-JWTs with all their disclosures; the answer comes when all is durable.

        A refused event does not keep the others from being recorded.

        Returns:
            For each event, in order, where it stands, or why it was refused.

        Raises:
            Overloaded: too many are waiting; nothing was taken.
            Unavailable: it is not known whether they are recorded. Send them again.
        """
        return await self._submit(events)

    async def record(self, draft: Draft) -> Recorded:
        """Record an event of the log's own, signed with the service's key.

        Raises:
            EventRefused, Overloaded, Unavailable: as `accept`.
        """
        (outcome,) = await self._submit([draft])
        if isinstance(outcome, EventRefused):
            raise outcome
        return outcome

    async def _submit(self, events: Sequence[str | Draft]) -> list[Outcome]:
        if self._closing:
            raise Unavailable("the records layer is shutting down")
        if not events:
            return []
        answered = self._intake.add(events)
        self._wake.set()
        # Whoever gives up does not take its events back.
        return await asyncio.shield(answered)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._intake:
                async with self._exclusive:
                    await self._one_round(self._intake.take())
            if self._closing:
                self._save()
                return

    async def _one_round(self, batch: Batch) -> None:
        """From verification to answer. The steps are numbered as in `__init__`."""
        try:
            this = self._round(await self._current())
            await self._take_all(this, batch)  # steps 1 and 2
            outcomes = await self._commit(this)
        except (AuditError, LogError, StoreError) as error:
            known = error if isinstance(error, LogError) else Unavailable(f"not recorded: {error}")
            self._intake.fail(batch, known)
        except BaseException as error:
            self._state = None
            refusal = Unavailable("internal error: not known to be recorded")
            self._intake.fail(batch, refusal)
            if not isinstance(error, Exception):
                raise
            _log.critical("a round of records failed", tenant=self.tenant, exc_info=error)
        else:
            self._intake.answer(batch, outcomes)

    def _round(self, state: State) -> Round:
        return Round(
            state,
            self.vault,
            self._signer,
            tenant=self.tenant,
            catalogue=self.catalogue,
            now=self.clock(),
            max_leaf=self.log.config.max_entry_size,
        )

    async def _take_all(self, this: Round, batch: Batch) -> None:
        batch.begin(this, self.workers)
        taken = 0
        async for event, seen in batch.events(this):
            this.take(event, seen)
            taken += 1
            if taken % _STEP == 0:
                await asyncio.sleep(0)
                if self.workers is not None:
                    self._intake.look_ahead(this, self.workers)

    async def _commit(self, this: Round) -> list[Outcome]:
        """Make a round durable."""
        placed: Sequence[int] = ()
        if this.gathered.leaves:
            placed = await self._place(this)
        this.count(self.counters)
        return [_outcome(each, placed) for each in this.outcomes]

    async def _place(self, this: Round) -> Sequence[int]:
        store, loop = self.vault.store, asyncio.get_running_loop()
        # Whatever fails from here on: what became of it is read from the disk, before the next.
        state, self._state = this.state, None
        gathered = this.gathered
        store.write([*gathered.sealing.puts, *this.marks()])  # step 3
        await self._meanwhile(this, loop.run_in_executor(None, store.sync))
        gathered.sealing.done()
        placed = await self._meanwhile(this, self.log.sequencer.submit(gathered.leaves))  # step 4
        state.registry, state.size = gathered.registry, placed[-1] + 1
        store.write(this.unmarks(placed))  # step 5
        for place, record in gathered.obliging:
            store.write(state.obligations.apply(record, placed[place]))
        if state.size - state.saved >= SNAPSHOT_EVERY:
            store.write([state.snapshot()])
        self._state = state
        self.grew.set()
        return placed

    async def _meanwhile(self, this: Round, waiting: Awaitable[T]) -> T:
        """Read ahead until something is done.

        It is waited for whatever happens: what the disk does not have yet would seem lost.
        """
        done = asyncio.ensure_future(waiting)
        try:
            while not done.done():
                if not await self._intake.read_ahead(this):
                    break
        finally:
            await asyncio.wait([done])
        return await done

    async def _recover(self) -> State:
        """Bring the vault to where the log is."""
        if (refusal := self.log.sequencer.refusal) is not None:
            raise Unavailable(f"the log takes no entries: {refusal}")
        self.vault.recover()
        state = load_state(self.vault.store, self.root)
        await replay(state, self.log, self.vault)
        try:
            state.registry.key(self._signer.vkey.label, now=self.clock())
        except EventRefused as refusal:
            raise AuditError(
                f"the log's own records cannot be signed: {refusal}. If it was rotated, give the "
                "new key, and the first one as `root`"
            ) from None
        await self._settle(state)
        while (begun := self.vault.store.shredding) is not None:
            await self._compact(begun)
            self.vault.store.end_shred(begun)
        self._state = state
        self.counters.producers = state.registry.producers
        return state

    async def _current(self) -> State:
        """The state, read anew if it is not known whether the vault has all of it."""
        if self._state is not None and self.vault.store.writable:
            return self._state
        self._state = None
        return await self._recover()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[State]:
        """Between two rounds, with the state as it is: for what must not change meanwhile."""
        async with self._exclusive:
            if self._closing:
                raise Unavailable("the records layer is shutting down")
            try:
                state = await self._current()
            except (AuditError, StoreError) as error:
                raise Unavailable(f"not known to be in order: {error}") from error
            yield state

    async def record_alone(self, draft: Draft) -> int:
        """Record an event of the log's own, inside `alone`, and do what it obliges to.

        What is deleted is off the disk after `shred` only. A caller that is called off, as by a
        client that hangs up, leaves `alone` no sooner than all is done: what the log does not have
        yet would seem lost to the next round.

        Returns:
            Its index.

        Raises:
            EventRefused: nothing is recorded.
            LogError, StoreError, AuditError: it is not known what is recorded. What is, is done
                before anything else is recorded, after a restart too.
        """
        return await to_its_end(self._record_alone(draft))

    async def _record_alone(self, draft: Draft) -> int:
        this = self._round(await self._current())
        this.take(draft)
        (outcome,) = await self._commit(this)
        if isinstance(outcome, EventRefused):
            raise outcome
        if (state := self._state) is not None:
            self._state = None
            about = [canonical(subject["id"]) for subject in draft.subjects]
            await self._settle(state, identifier=about[0] if about else None)
            self._state = state
        return outcome.index

    async def _settle(self, state: State, *, identifier: str | None = None) -> None:
        """Destroy what the log says is destroyed; the rest of a deed that a crash cut short, too.

        So whatever copy of the vault is restored, what was erased since is erased in it again.
        """
        due = state.obligations
        shredding = Shredding(self.vault)
        shredding.destroy(due.keys, identifier=identifier)
        await carry_out(self, due.expiries, due.holds, shredding)
        # That takes long, maybe: a search may have found one meanwhile.
        self.vault.forget(due.keys)
        if shredding.puts:
            self.vault.store.begin_shred(shredding.puts, shredding.ranges)
        due.keys.clear()
        due.expiries.clear()

    async def shred(self) -> None:
        """Force off the disk what `record_alone` has deleted. Not inside `alone`: it takes long.

        Raises:
            StoreError: it may be there yet. What is recorded next finishes it first.
        """
        store = self.vault.store
        async with self._shredding:
            while (begun := store.shredding) is not None:
                await self._compact(begun)
                async with self._exclusive:
                    state, self._state = self._state, None
                    store.end_shred(begun)
                    self._state = state

    async def _compact(self, begun: bytes) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.vault.store.compact_shredded, begun)

    def _save(self) -> None:
        if self._state is not None and self._state.size > self._state.saved:
            with contextlib.suppress(StoreError):  # the next start reads some more of the log
                self.vault.store.write([self._state.snapshot()])

    def read(self, index: int) -> StoredRecord:
        """A record with all of it that can still be opened, checked against what was signed.

        For the rooms above: they ask for a purpose first, and record the reading.

        Raises:
            OutOfRange: the log has no such entry.
            EventRefused: the entry is no record.
            VaultDamaged: a part is not what was signed.
        """
        return read_stored(self.log, self.vault, index)


def _outcome(each: EventRefused | Placed, placed: Sequence[int]) -> Outcome:
    """What is said of an event: its place in the round is an index now."""
    if isinstance(each, EventRefused):
        return each
    index = each.index if each.place < 0 else placed[each.place]
    return Recorded(index, duplicate=each.duplicate, conflict=each.conflict)
