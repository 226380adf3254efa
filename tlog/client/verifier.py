"""Whoever holds what a log gave out, and wants to know whether to believe it: with no network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cryptography import x509

from tlog.audit import AuditError
from tlog.audit.evidence_check import Verdict, check_package
from tlog.client import verification as rules
from tlog.client.errors import TrustError, VerificationError
from tlog.client.verification import Head, Inclusion
from tlog.merkle import leaf_hash as hash_leaf
from tlog.notes import NoteError, Policy, VerifierKey, Weighed, parse_policy


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
            signed by one of its logs and cosigned by its quorum. None asks for no witnesses.
        vkeys: keys of one log that must all have signed, beside what the policy wants.
        max_age: seconds since the quorum cosigned, at most; None for what the policy says already.
        clock: gives POSIX time.

    Every method returns what is proven, or raises VerificationError naming the check that failed.

    Raises:
        NoteError: the text is no policy, or not one that could be met.
        TrustError: neither policy nor keys; keys that are a witness's, of several logs, or none.
    """

    def __init__(
        self,
        policy: Policy | bytes | None,
        *,
        vkeys: Sequence[str | VerifierKey] = (),
        max_age: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        read = parse_policy(policy) if isinstance(policy, bytes) else policy
        if max_age is not None:
            if read is None:
                raise TrustError("a maximum age needs a policy: its witnesses say what is fresh")
            read = read.with_max_age(max_age)
        self._policy = read
        self._vkeys = rules.parse_vkeys(vkeys) if vkeys or read is None else ()
        self._clock = clock

    @classmethod
    def with_vkeys(cls, vkeys: Sequence[str | VerifierKey]) -> Verifier:
        """One that wants the signatures of all these keys of one log, and no witness's.

        Raises:
            TrustError: none, not vkeys, those of several logs, or a witness's.
        """
        return cls(None, vkeys=vkeys)

    def log_keys(self) -> tuple[VerifierKey, ...]:
        """The keys of the one log that this verifier believes.

        Raises:
            TrustError: its policy is for several logs, or none.
        """
        if self._vkeys or self._policy is None:
            return self._vkeys
        keys = tuple(log.vkey for log in self._policy.logs)
        if len({key.name for key in keys}) != 1:
            names = ", ".join(sorted({repr(key.name) for key in keys})) or "no log"
            raise TrustError(f"the policy is for {names}: give the vkeys of the one that is meant")
        return keys

    def checkpoint(self, note: bytes) -> Head:
        """Verify a checkpoint (c2sp.org/tlog-checkpoint): its signatures, and the quorum."""
        head = self._signed(note)
        self.check_quorum(head)
        return head

    def weigh(self, note: bytes) -> tuple[Head, str | None]:
        """As `checkpoint`, but only the log's signatures are demanded.

        Returns:
            What the log has signed, and what is missing for the quorum; None if nothing is.
        """
        head = self._signed(note)
        weighed = self._weighed(head)
        return head, None if weighed is None or weighed.satisfied else weighed.reason

    def check_quorum(self, head: Head) -> None:
        """Verify that a quorum stands, as of now, behind a head whose signatures are verified."""
        weighed = self._weighed(head)
        if weighed is None or self._policy is None or weighed.satisfied:
            return
        ever = self._policy.satisfied_by((*weighed.cosigned_by, *weighed.stale))
        raise VerificationError("freshness" if ever else "quorum", weighed.reason)

    def _signed(self, note: bytes) -> Head:
        heads = [rules.open_head(note, self._vkeys)] if self._vkeys else []
        if self._policy is not None:
            heads.append(_opened(self._policy, note))
        signed_by = {vkey: time for head in heads for vkey, time in head.signed_by}
        return replace(heads[0], signed_by=tuple(signed_by.items()))

    def _weighed(self, head: Head) -> Weighed | None:
        if self._policy is None:
            return None
        return self._policy.weigh(dict(head.signed_by), now=self._clock())

    def inclusion(
        self, head: Head, *, index: int, leaf_hash: bytes, hashes: Sequence[bytes]
    ) -> Inclusion:
        """Verify that entry `index` of a verified head has this leaf hash (RFC 6962, 2.1.1)."""
        return rules.check_inclusion(head, index=index, leaf_hash=leaf_hash, hashes=hashes)

    def consistency(self, old: Head, new: Head, proof: Sequence[bytes]) -> None:
        """Verify that the tree of `old` is the beginning of that of `new` (RFC 6962, 2.1.2)."""
        rules.check_follows(old, new, proof)

    def evidence(
        self,
        package: bytes,
        *,
        service: str | VerifierKey | None = None,
        tsa_roots: Sequence[x509.Certificate] = (),
    ) -> Verdict:
        """Verify an evidence package (`tlog evidence`), and say of each record what is proven.

        Args:
            package: the file.
            service: the first key of the log's own records, which `tlog records init` printed: the
                keys of all producers lead back to it. Without it they are the package's word.
            tsa_roots: certificates of time-stamp authorities that are trusted.
        """
        try:
            key = VerifierKey.parse(service) if isinstance(service, str) else service
        except NoteError as error:
            raise TrustError(f"not a verifier key: {error}") from None
        try:
            return check_package(package, self, policy=self._policy, service=key, roots=tsa_roots)
        except AuditError as error:
            raise VerificationError("evidence", str(error)) from None

    def proof(self, proof: bytes, entry: bytes) -> Receipt:
        """Verify a receipt (c2sp.org/tlog-proof) for exactly the bytes of `entry`."""
        return self.proof_of_hash(proof, hash_leaf(entry))

    def proof_of_hash(self, proof: bytes, leaf_hash: bytes) -> Receipt:
        """As `proof`, for whoever has the 32-byte leaf hash of the entry."""
        claim = rules.open_proof(proof)
        head = self.checkpoint(claim.checkpoint)
        self.inclusion(head, index=claim.index, leaf_hash=leaf_hash, hashes=claim.hashes)
        return Receipt(claim.index, leaf_hash, head)


def _opened(policy: Policy, note: bytes) -> Head:
    try:
        # Whether the quorum is met now is another question.
        verdict = policy.with_max_age(None).evaluate(note)
    except NoteError as error:
        raise VerificationError("signature", str(error)) from None
    return rules.verified_head(verdict.verified, note)
