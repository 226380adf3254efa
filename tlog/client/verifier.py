"""Whoever holds what a log gave out, and wants to know whether to believe it: with no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlog.client import verification as rules
from tlog.client.errors import VerificationError
from tlog.client.verification import Head, Inclusion
from tlog.merkle import leaf_hash as hash_leaf
from tlog.notes import NoteError, Policy, VerifierKey, parse_policy


@dataclass(frozen=True, slots=True)
class Receipt:
    """A verified `.tlog-proof`: where the entry stands in the log of this head."""

    index: int
    leaf_hash: bytes
    head: Head


class Verifier:
    """Believes a log as far as a policy says. No network, no files; threads may share it.

    Args:
        policy: the trust policy (c2sp.org/tlog-policy), read or as its text: a checkpoint must be
            signed by one of its logs and cosigned by its quorum.

    Every method returns what is proven, or raises VerificationError naming the check that failed.

    Raises:
        NoteError: the text is no policy.
    """

    def __init__(self, policy: Policy | bytes) -> None:
        read = policy if isinstance(policy, Policy) else parse_policy(policy)
        self._weigh: Callable[[bytes], tuple[Head, str | None]] = lambda note: _weighed(read, note)

    @classmethod
    def with_vkeys(cls, vkeys: Sequence[str | VerifierKey]) -> Verifier:
        """One that wants the signatures of all these keys of one log, and no witness's.

        Raises:
            TrustError: none, not vkeys, those of several logs, or a witness's.
        """
        parsed = rules.parse_vkeys(vkeys)
        verifier = cls.__new__(cls)
        verifier._weigh = lambda note: (rules.open_head(note, parsed), None)
        return verifier

    def checkpoint(self, note: bytes) -> Head:
        """Verify a checkpoint (c2sp.org/tlog-checkpoint): its signatures, and the quorum."""
        head, missing = self._weigh(note)
        if missing is not None:
            raise VerificationError("quorum", missing)
        return head

    def weigh(self, note: bytes) -> tuple[Head, str | None]:
        """As `checkpoint`, but only the log's signatures are demanded.

        Returns:
            What the log has signed, and what is missing for the quorum; None if nothing is.
        """
        return self._weigh(note)

    def inclusion(
        self, head: Head, *, index: int, leaf_hash: bytes, hashes: Sequence[bytes]
    ) -> Inclusion:
        """Verify that entry `index` of a verified head has this leaf hash (RFC 6962, 2.1.1)."""
        return rules.check_inclusion(head, index=index, leaf_hash=leaf_hash, hashes=hashes)

    def consistency(self, old: Head, new: Head, proof: Sequence[bytes]) -> None:
        """Verify that the tree of `old` is the beginning of that of `new` (RFC 6962, 2.1.2)."""
        rules.check_follows(old, new, proof)

    def proof(self, proof: bytes, entry: bytes) -> Receipt:
        """Verify a receipt (c2sp.org/tlog-proof) for exactly the bytes of `entry`."""
        return self.proof_of_hash(proof, hash_leaf(entry))

    def proof_of_hash(self, proof: bytes, leaf_hash: bytes) -> Receipt:
        """As `proof`, for whoever has the 32-byte leaf hash of the entry."""
        claim = rules.open_proof(proof)
        head = self.checkpoint(claim.checkpoint)
        self.inclusion(head, index=claim.index, leaf_hash=leaf_hash, hashes=claim.hashes)
        return Receipt(claim.index, leaf_hash, head)


def _weighed(policy: Policy, note: bytes) -> tuple[Head, str | None]:
    try:
        verdict = policy.evaluate(note)
    except NoteError as error:
        raise VerificationError("signature", str(error)) from None
    head = rules.verified_head(verdict.verified, note)
    return head, None if verdict.satisfied else verdict.reason
