"""The client for asyncio. Every answer is verified before it is given out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Self

import grpc
from cryptography import x509

from tlog.audit.evidence_check import Verdict
from tlog.client import verification as rules
from tlog.client.batcher import Batcher, Limits, Send
from tlog.client.errors import Refused, Unreachable, VerificationError, invalid, printable
from tlog.client.session import Session, wire, wire_size
from tlog.client.state import FileState, State, default_path
from tlog.client.status import LogStatus, read_status
from tlog.client.stream import AppendSession, Source, acknowledge, append_session
from tlog.client.transport import Backoff
from tlog.client.values import Appended, LogInfo, Wait
from tlog.client.verification import Head, Inclusion
from tlog.client.verifier import Verifier
from tlog.merkle import TILE_WIDTH
from tlog.merkle import leaf_hash as hash_leaf
from tlog.notes import Checkpoint, Policy, VerifierKey
from tlog.v1 import log_pb2 as pb

# The server's own bound on one BatchGetInclusionProofs is higher.
PROOFS_AT_ONCE = 1024

_WAIT_FOR = {"durable": pb.WAIT_FOR_DURABLE, "published": pb.WAIT_FOR_PUBLISHED}


class AsyncClient:
    """A client of one log. An async context manager; its methods run on one event loop.

    It follows the log: every head it is shown must be signed by the pinned keys and proven of one
    history with the last one it saw, in this run or an earlier one; see `tlog.client.heads`.

    Raises, beside what the methods say: TrustError, StateError, VerificationError (nothing is
    remembered of an answer that was refused), Unreachable, TimedOut, Refused. Calls that read are
    asked again while the server is away. Memory of the last head is written on the event loop: a
    few milliseconds for each new head.

    Args:
        target: the server, `HOST:PORT`.
        vkeys: the log's verifier keys. Every one of them must sign every head. None for those of
            the policy, or those that were pinned before.
        policy: the trust policy (c2sp.org/tlog-policy), read or as its text: every head must be
            signed by its log and cosigned by its quorum.
        max_age: seconds since the policy's quorum cosigned a head, at most; None for ever.
        log: the name of the log; empty when the server holds only one.
        state: the file to remember keys and head in, one file for one log; None for one in
            `$XDG_STATE_HOME/tlog`, by target and log. Or another `State`.
        trust_on_first_use: with neither vkeys given nor pinned, believe the server which they are,
            and pin them.
        timeout: seconds for each call, with its retries; of a stream, for each message.
    """

    def __init__(
        self,
        target: str,
        *,
        vkeys: Sequence[str | VerifierKey] | None = None,
        policy: Policy | bytes | None = None,
        max_age: float | None = None,
        log: str = "",
        state: Path | State | None = None,
        trust_on_first_use: bool = False,
        timeout: float = 30.0,
    ) -> None:
        if state is None:
            state = default_path(target, log)
        self._log = log
        self._session = Session(
            target,
            log,
            state=FileState(state) if isinstance(state, Path) else state,
            verifier=_verifier(vkeys, policy, max_age),
            trust_on_first_use=trust_on_first_use,
            timeout=timeout,
        )

    async def __aenter__(self) -> Self:
        self._session.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled. Closing twice does nothing."""
        await self._session.close()

    # ---- appending ----

    async def append(self, entry: bytes, *, wait: Wait = "durable") -> Appended:
        """Append an entry of at most 65,535 bytes.

        With `wait="published"` the answer has a proof, verified against the entry. Sent again only
        when nothing can have been taken: while there is no connection, and when the log is full
        and says when to come back. When the answer is lost the error has `outcome_unknown`.
        """
        rules.check_entry(entry)
        request = pb.AppendRequest(log=self._log, entry=entry, wait_for=_WAIT_FOR[wait])
        if wait == "published":
            await self._session.heads.trust()
        answer = await self._session.transport.append("Append", request, pb.AppendResponse)
        if wait == "durable":
            return Appended(answer.index)
        proof = rules.open_proof(answer.tlog_proof)
        rules.check_echo("index", proof.index, answer.index)
        head = await self._session.heads.accept(proof.checkpoint)
        rules.check_inclusion(
            head, index=proof.index, leaf_hash=hash_leaf(entry), hashes=proof.hashes
        )
        return Appended(proof.index, proof)

    async def append_batch(
        self, entries: Sequence[bytes], *, wait: Wait = "durable"
    ) -> list[Appended]:
        """Append entries in order, all of them or none. Waits and retries as `append`."""
        for number, entry in enumerate(entries):
            rules.check_entry(entry, f"entries[{number}]")
        request = pb.AppendBatchRequest(log=self._log, entries=entries, wait_for=_WAIT_FOR[wait])
        if wait == "published":
            await self._session.heads.trust()
        answer = await self._session.transport.append(
            "AppendBatch", request, pb.AppendBatchResponse
        )
        rules.check_echo("number of entries", len(answer.indices), len(entries))
        if wait == "durable":
            return [Appended(index) for index in answer.indices]
        head = await self._session.head_in(answer)
        for index, proof in zip(answer.indices, answer.proofs, strict=False):
            rules.check_echo("index", proof.index, index)
        leaves = list(map(hash_leaf, entries))
        proven = await self._session.prove(answer.proofs, leaves, head)
        return [Appended(one.index, one.proof) for one in proven]

    async def append_stream(self, entries: Source) -> AsyncGenerator[int, None]:
        """Append all entries of an iterable; give their indices, in order, as they are durable.

        The connection paces it: the source is read no further than the log can follow. Nothing is
        ever sent twice; after an error, entries without an index may be appended or not. An error
        of the source is raised when all entries before it are acknowledged. An iterable that is
        not async is read on the event loop and must not block.
        """
        stream = acknowledge(self._session.transport, self._log, entries)
        async with aclosing(stream) as acknowledged:
            async for indices in acknowledged:
                for index in indices:
                    yield index

    def batcher(
        self,
        *,
        max_entries: int = 1024,
        max_bytes: int = 4 << 20,
        linger: float = 0.005,
        in_flight: int = 4,
        wait: Wait = "durable",
    ) -> Batcher:
        """Coalesce single appends into batches; an async context manager. See `Batcher`, `Limits`.

        Memory is bounded: at most `in_flight + 1` batches wait, then appending waits for room.
        """
        return Batcher(self.sender(wait), Limits(max_entries, max_bytes, linger, in_flight))

    def sender(self, wait: Wait) -> Send:
        """`append_batch`, as batchers want it."""
        return lambda entries: self.append_batch(entries, wait=wait)

    def open_stream(self) -> AbstractAsyncContextManager[AppendSession]:
        """The stream under `append_stream`, for who reads the source himself."""
        return append_session(self._session.transport, self._log)

    # ---- heads ----

    async def checkpoint(self) -> Head:
        """The latest head of the log.

        When the server shows an older one than it did before, and proves it to be the past of that
        one, this is the one it showed before.
        """
        return await self._session.checkpoint()

    async def watch(self) -> AsyncGenerator[Head, None]:
        """The latest head at once, and then each newer one, for ever.

        A server that goes away is waited for as long as the timeout.
        """
        await self._session.heads.trust()
        await self._session.transport.connect(self._session.transport.deadline())
        previous, shown = self._session.heads.last, -1
        backoff = Backoff(self._session.transport.deadline())
        while True:
            old_size = 0 if previous is None else previous.size
            request = pb.WatchCheckpointsRequest(log=self._log, old_size=old_size)
            try:
                answers = self._session.transport.messages(
                    "WatchCheckpoints", request, pb.WatchCheckpointsResponse, patience=None
                )
                advanced = False
                async with aclosing(answers) as stream:
                    async for answer in stream:
                        head = await self._session.heads.accept(
                            answer.checkpoint.note, after=previous, proof=answer.consistency_proof
                        )
                        if advanced and previous is not None and head.size <= previous.size:
                            raise VerificationError(
                                "echo", f"the head after size {previous.size} has {head.size}"
                            )
                        previous, advanced = head, True
                        backoff = Backoff(self._session.transport.deadline())
                        if head.size > shown:
                            shown = head.size
                            yield head
                raise Unreachable(f"{self._session.transport.target} ended the watch")
            except Unreachable as error:
                await backoff.pause(error)
            except Refused as refusal:
                if refusal.code is not grpc.StatusCode.OUT_OF_RANGE:
                    raise
                # The server does not know the last head it showed: a rollback, or about to know.
                await self.checkpoint()
                await backoff.pause(refusal)

    async def consistency_proof(
        self, old: Checkpoint | Head, new: Checkpoint | Head | None = None
    ) -> tuple[Head | Checkpoint, tuple[bytes, ...]]:
        """Prove that the tree of one checkpoint is the beginning of the tree of another.

        Both root hashes are the caller's, from wherever it has them; `new=None` is the latest head.

        Returns:
            The newer one, and the proof (RFC 6962, section 2.1.2), which was verified.
        """
        newer = await self.checkpoint() if new is None else new
        hashes = (
            ()
            if old.size in (0, newer.size)
            else await self._session.consistency(old.size, newer.size)
        )
        head = Head(newer, b"") if isinstance(newer, Checkpoint) else newer
        rules.check_past(head, size=old.size, root=old.root_hash, proof=hashes)
        return newer, tuple(hashes)

    # ---- entries and their proofs ----

    async def inclusion_proof(
        self,
        index: int | None = None,
        *,
        leaf_hash: bytes | None = None,
        tree_size: int | None = None,
    ) -> Inclusion:
        """Prove an entry in the tree of a published size, by default the latest.

        With a leaf hash alone, the first entry that has it. With an index alone, the entry is
        fetched for its hash, since a proof says nothing without one. A `Refused` NOT_FOUND is the
        server's word only: that an entry is absent cannot be proven.
        """
        if leaf_hash is None:
            if index is None:
                raise invalid("entry", "which entry? give an index or a leaf hash")
            return (await self._session.entry(index, tree_size))[1]
        rules.check_leaf_hash(leaf_hash)
        request = pb.GetInclusionProofRequest(log=self._log, tree_size=wire_size(tree_size))
        if index is None:
            request.leaf_hash = leaf_hash
        else:
            request.index = wire("index", index)
        answer = await self._session.ask("GetInclusionProof", request, pb.GetInclusionProofResponse)
        if index is not None:
            rules.check_echo("index", answer.proof.index, index)
        at = tree_size or await self._session.head_in(answer)
        return (await self._session.prove([answer.proof], [leaf_hash], at))[0]

    async def inclusion_proofs(
        self,
        leaf_hashes: Sequence[bytes],
        *,
        indices: Sequence[int] | None = None,
        tree_size: int | None = None,
    ) -> list[Inclusion]:
        """Prove many entries in one tree; give their indices too if the log may repeat entries."""
        if indices is not None and len(indices) != len(leaf_hashes):
            raise invalid("indices", f"{len(indices)} indices for {len(leaf_hashes)} leaf hashes")
        for leaf in leaf_hashes:
            rules.check_leaf_hash(leaf)
        proven: list[Inclusion] = []
        at: Head | int | None = tree_size
        for start in range(0, len(leaf_hashes), PROOFS_AT_ONCE):
            leaves = leaf_hashes[start : start + PROOFS_AT_ONCE]
            wanted = None if indices is None else indices[start : start + PROOFS_AT_ONCE]
            request = pb.BatchGetInclusionProofsRequest(
                log=self._log,
                indices=wanted or (),
                leaf_hashes=leaves if wanted is None else (),
                tree_size=at.size if isinstance(at, Head) else wire_size(at),
            )
            answer = await self._session.ask(
                "BatchGetInclusionProofs", request, pb.BatchGetInclusionProofsResponse
            )
            at = at or await self._session.head_in(answer)
            for index, proof in zip(wanted or (), answer.proofs, strict=False):
                rules.check_echo("index", proof.index, index)
            proven += await self._session.prove(answer.proofs, leaves, at)
        return proven

    async def entry(self, index: int) -> bytes:
        """One entry, proven in the latest tree."""
        return (await self._session.entry(index, None))[0]

    async def entries(self, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The entries [start, end) in order, proven in the latest tree; to its end by default."""
        async with aclosing(self.bundles(start, end)) as bundles:
            async for bundle in bundles:
                for entry in bundle:
                    yield entry

    async def bundles(
        self, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[list[bytes], None]:
        """As `entries`, but up to 256 at a time, for speed."""
        head = await self.checkpoint()
        end = head.size if end is None else end
        if not 0 <= start <= end <= head.size:
            raise Refused(
                grpc.StatusCode.OUT_OF_RANGE,
                f"[{start}, {end}) is not a range of the {head.size} published entries",
            )
        backoff = Backoff(self._session.transport.deadline())
        next_ = start - start % TILE_WIDTH
        while next_ < end:
            request = pb.StreamEntriesRequest(
                log=self._log, start=max(start, next_), end=end, tree_size=head.size
            )
            answers = self._session.transport.messages(
                "StreamEntries",
                request,
                pb.StreamEntriesResponse,
                patience=self._session.transport.timeout,
            )
            try:
                async with aclosing(answers) as stream:
                    async for answer in stream:
                        if next_ >= end:
                            raise VerificationError("bundle", "more bundles than were asked for")
                        entries = list(answer.entries)
                        rules.check_bundle(
                            head,
                            first=answer.first_index,
                            expected=next_,
                            entries=entries,
                            proof=answer.subtree_proof,
                        )
                        first, next_ = next_, next_ + TILE_WIDTH
                        yield entries[max(0, start - first) : end - first]
                        backoff = Backoff(self._session.transport.deadline())
            except Unreachable as error:
                await backoff.pause(error)
            else:
                if next_ < end:
                    raise VerificationError("bundle", f"the entries end at {next_}, not at {end}")

    async def evidence(
        self,
        package: bytes,
        *,
        service: str | VerifierKey | None = None,
        tsa_roots: Sequence[x509.Certificate] = (),
    ) -> Verdict:
        """Verify an evidence package of this log as `Verifier.evidence` does.

        Its checkpoint must be of one history with the last head seen, too.
        """
        verifier = await self._session.heads.trust()
        verdict = verifier.evidence(package, service=service, tsa_roots=tsa_roots)
        await self._session.heads.accept(verdict.contents.checkpoint)
        return verdict

    async def list_logs(self) -> list[LogInfo]:
        """What the server says of its logs: the one answer that cannot be verified."""
        answer = await self._session.transport.read(
            "ListLogs", pb.ListLogsRequest(), pb.ListLogsResponse
        )
        return [
            LogInfo(
                name=printable(log.name),
                origin=printable(log.origin),
                vkeys=tuple(log.vkeys),
                tree_size=log.tree_size,
            )
            for log in answer.logs
        ]

    async def log_status(self) -> LogStatus:
        """How the log does, as its server says: for its operator, and not verified."""
        answer = await self._session.transport.read(
            "GetLogStatus", pb.GetLogStatusRequest(log=self._log), pb.GetLogStatusResponse
        )
        return read_status(answer)


def _verifier(
    vkeys: Sequence[str | VerifierKey] | None, policy: Policy | bytes | None, max_age: float | None
) -> Verifier | None:
    """What a client was told to trust; None when it was told nothing."""
    if vkeys is None and policy is None and max_age is None:
        return None
    verifier = Verifier(policy, vkeys=() if vkeys is None else vkeys, max_age=max_age)
    verifier.log_keys()  # refuses a policy for several logs before anything is asked
    return verifier
