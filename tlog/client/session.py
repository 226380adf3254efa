"""One log as seen through one connection: questions, and answers that have passed the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from tlog.client import verification as rules
from tlog.client.errors import ClientError, TrustError, VerificationError, invalid, printable
from tlog.client.heads import Heads
from tlog.client.state import State
from tlog.client.transport import Transport
from tlog.client.verification import Head, Inclusion
from tlog.client.verifier import Verifier
from tlog.merkle import leaf_hash as hash_leaf
from tlog.v1 import log_pb2 as pb

M = TypeVar("M", bound=Message)


class Session:
    """Joins the transport, the trust in the log, and the rules. See `AsyncClient` for the rest."""

    def __init__(
        self,
        target: str,
        log: str,
        *,
        state: State,
        verifier: Verifier | None,
        trust_on_first_use: bool,
        timeout: float,
    ) -> None:
        self.log = log
        self.heads = Heads(
            state,
            verifier=verifier,
            first_use=self._listed_vkeys if trust_on_first_use else None,
            consistency=self.consistency,
        )
        self._target = target
        self._timeout = timeout
        self._transport: Transport | None = None

    def open(self) -> None:
        """Make the channel, on the running event loop."""
        if self._transport is None:
            self._transport = Transport(self._target, timeout=self._timeout)

    async def close(self) -> None:
        """Close it; calls in flight are cancelled."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            await transport.close()

    @property
    def transport(self) -> Transport:
        """The open channel."""
        if self._transport is None:
            raise ClientError("the client is closed, or not open yet: use it in a `with` block")
        return self._transport

    async def ask(self, method: str, request: Message, kind: type[M]) -> M:
        """Read something that can be verified."""
        await self.heads.trust()
        return await self.transport.read(method, request, kind)

    async def head_in(self, answer: Any) -> Head:
        """The head that an answer carries in its field `checkpoint`.

        The note alone is read: the fields beside it repeat it and are not signed.
        """
        if not answer.HasField("checkpoint"):
            raise VerificationError("message", "the answer has no checkpoint")
        return await self.heads.accept(answer.checkpoint.note)

    async def checkpoint(self) -> Head:
        """The latest head, or the last one seen where the server shows an older one."""
        request = pb.GetCheckpointRequest(log=self.log)
        head = await self.head_in(
            await self.ask("GetCheckpoint", request, pb.GetCheckpointResponse)
        )
        last = self.heads.last
        return last if last is not None and last.size > head.size else head

    async def consistency(self, old_size: int, new_size: int) -> Sequence[bytes]:
        """A consistency proof, not verified yet."""
        request = pb.GetConsistencyProofRequest(log=self.log, old_size=old_size, new_size=new_size)
        answer = await self.transport.read(
            "GetConsistencyProof", request, pb.GetConsistencyProofResponse
        )
        rules.check_echo("old size", answer.old_size, old_size)
        rules.check_echo("new size", answer.new_size, new_size)
        return answer.hashes

    async def prove(
        self, proofs: Sequence[pb.InclusionProof], leaf_hashes: Sequence[bytes], at: Head | int
    ) -> list[Inclusion]:
        """Verify inclusion proofs in the tree of one head, or of one size older than the head."""
        size = at if isinstance(at, int) else at.size
        rules.check_echo("number of proofs", len(proofs), len(leaf_hashes))
        for proof in proofs:
            rules.check_echo("tree size", proof.tree_size, size)
        head = await self._head_for(at)
        pairs = list(zip(proofs, leaf_hashes, strict=True))
        if head.size == size:
            return [
                rules.check_inclusion(head, index=proof.index, leaf_hash=leaf, hashes=proof.hashes)
                for proof, leaf in pairs
            ]
        roots = {
            rules.claimed_root(index=proof.index, size=size, leaf_hash=leaf, hashes=proof.hashes)
            for proof, leaf in pairs
        }
        consistency = await self.consistency(size, head.size)
        for root in roots:
            rules.check_past(head, size=size, root=root, proof=consistency)
        return [
            Inclusion(proof.index, size, leaf, tuple(proof.hashes), None) for proof, leaf in pairs
        ]

    async def entry(self, index: int, tree_size: int | None) -> tuple[bytes, Inclusion]:
        """An entry and its proof."""
        request = pb.GetEntryRequest(
            log=self.log, index=wire("index", index), tree_size=wire_size(tree_size)
        )
        answer = await self.ask("GetEntry", request, pb.GetEntryResponse)
        rules.check_echo("index", answer.proof.index, index)
        at = tree_size or await self.head_in(answer)
        (proven,) = await self.prove([answer.proof], [hash_leaf(answer.entry)], at)
        return answer.entry, proven

    async def _head_for(self, at: Head | int) -> Head:
        """A head that the tree of this size can be proven in."""
        if isinstance(at, Head):
            return at
        head = self.heads.last
        if head is None or head.size < at:
            head = await self.checkpoint()
        if head.size < at:
            raise VerificationError(
                "consistency", f"the server proves in a tree of size {at} but shows {head.size}"
            )
        return head

    async def _listed_vkeys(self) -> Sequence[str]:
        """The keys of the log, by the word of its server."""
        answer = await self.transport.read("ListLogs", pb.ListLogsRequest(), pb.ListLogsResponse)
        found = [log for log in answer.logs if self.log in ("", log.name)]
        if len(found) == 1:
            return list(found[0].vkeys)
        names = ", ".join(printable(log.name) for log in answer.logs) or "none"
        raise TrustError(f"which log to trust? Name one of those that the server holds: {names}")


def wire(field: str, number: int) -> int:
    """Refuse a number that no index or size can be, before it is sent."""
    if not 0 <= number < 1 << 63:
        raise invalid(field, f"{field} {number} is not in 0..2**63 - 1")
    return number


def wire_size(tree_size: int | None) -> int:
    """A tree size as requests have it: 0 stands for the latest."""
    if tree_size == 0:
        raise invalid("tree_size", "the tree of size 0 has no entries to prove")
    return wire("tree_size", tree_size or 0)
