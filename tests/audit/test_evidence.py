"""Evidence packages: what they prove, and to whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from tests.audit.approvers import CISO, DPO
from tests.audit.authority import make_root
from tests.audit.evidence import (
    ACCESSED,
    COSIGNED_AT,
    ERASURE,
    FULFILLED,
    GOOD,
    NOBODY,
    RECEIVED,
    SECOND,
    TWO,
    WITNESS,
    contents_of,
    refused,
    shown,
)
from tests.audit.producer import signer_of
from tests.audit.tenant import NOW
from tlog.audit.codec import encode_base64url
from tlog.audit.evidence import Gone, StampItem, Why
from tlog.audit.evidence_check import _bounds, _Stamped, check_package
from tlog.audit.evidence_file import encode_package
from tlog.audit.stamps import StampTime
from tlog.audit.zipped import read_zip
from tlog.client import VerificationError, Verifier
from tlog.notes import Algorithm, Checkpoint, Signer, VerifierKey, parse_unverified

ALICE = "alice@example.com"


def test_what_was_chosen_is_disclosed_and_nothing_else() -> None:
    verdict = GOOD.verify(GOOD.before)
    assert [each.record.index for each in verdict.chosen()] == [RECEIVED, ACCESSED, FULFILLED]
    assert shown(verdict, RECEIVED) == [{"actor": {"id": "eve", "ip": "192.0.2.1"}}, {"id": ALICE}]
    # Of an event about two, nothing of the one who was not asked for.
    assert shown(verdict, ACCESSED) == [{"actor": "eve"}, {"id": ALICE}, {}]
    hidden = [part.hidden for each in verdict.chosen() for part in each.record.parts]
    assert hidden == [1, 1, 1, 0, 1, 0]
    members = read_zip(GOOD.before)
    for word in (b"by post", b"Alice", b"bob@example.com", b"customers/17"):
        assert not [name for name, data in members.items() if word in data]
    # Long enough for base64 not to say it by chance.
    for word in (b"by post", b'"Alice"]', b"bob@example.com", b"customers/17"):
        encoded = encode_base64url(b"x" + word)[2:-3].encode()
        assert not [name for name, data in members.items() if encoded in data]
    everything = GOOD.verify(GOOD.everything)
    assert shown(everything, ACCESSED)[2] == {"id": "bob@example.com"}
    assert {part.hidden for each in everything.chosen() for part in each.record.parts} == {0}


def test_who_signed_and_when_it_was_there() -> None:
    verdict = GOOD.verify(GOOD.before)
    assert [each.registered for each in verdict.records] == [None, None, 0, 0, 1]
    assert (verdict.service_known, verdict.same_policy) == (True, True)
    assert dict(verdict.head.signed_by)[WITNESS.vkey] == COSIGNED_AT
    first, second = verdict.chosen()[0].times
    # The root of the one is ours, of the other we know none.
    assert [(each.authority, each.trusted) for each in (first, second)] == [
        ("one", True), ("two", False),
    ]  # fmt: skip
    assert (first.including, first.excluding) == (ACCESSED + 1, RECEIVED)
    assert first.not_before is not None
    received = verdict.chosen()[0].record.leaf.received_at
    assert first.not_before.replace(microsecond=0) <= received <= first.not_after
    assert (second.including, second.excluding, second.not_before) == (ACCESSED + 1, None, None)
    assert verdict.chosen()[2].times == []


def test_whose_stamp_it_is_says_its_certificate() -> None:
    """The package may call an authority by any name."""
    contents = contents_of(GOOD.before)
    renamed = replace(
        contents,
        stamps=[replace(each, authority=f"notary-{each.authority}") for each in contents.stamps],
        certificates={f"notary-{name}": pem for name, pem in contents.certificates.items()},
    )
    for package, prefix in ((GOOD.before, ""), (encode_package(renamed), "notary-")):
        bound = GOOD.verify(package).chosen()[0].times[0]
        assert (bound.authority, bound.signer, bound.trusted) == (f"{prefix}one", "CN=TSA", True)


def test_the_time_of_a_witness_is_no_word_of_the_logs() -> None:
    @dataclass(frozen=True)
    class Weighed:
        """The log's signatures have no time, as with Ed25519 alone, and a witness's has."""

        checkpoint: Checkpoint
        signed_by: tuple[tuple[VerifierKey, int | None], ...]

    class Trusting(Verifier):
        def weigh(self, note: bytes) -> Any:
            head = parse_unverified(note).checkpoint
            return Weighed(head, ((GOOD.vkeys[0], None), (WITNESS.vkey, 1_600_000_000))), None

    verdict = check_package(GOOD.before, Trusting(GOOD.policy), roots=[GOOD.root])
    bound = verdict.chosen()[0].times[0]
    assert (bound.excluding, bound.not_before) == (RECEIVED, None)


def test_after_an_erasure_the_old_package_holds_and_the_new_one_proves_it() -> None:
    old = GOOD.verify(GOOD.before)
    assert old.head.checkpoint.size == FULFILLED + 1
    verdict = GOOD.verify(GOOD.after)
    received, fulfilled = (each.record for each in verdict.chosen())
    assert [part.gone for part in received.parts] == [Gone(ERASURE, "R-1")] * 2
    assert [part.gone for part in fulfilled.parts] == [None]
    assert shown(verdict, RECEIVED) == [{}, {}]
    (erasure,) = [each for each in verdict.records if each.record.item.why is Why.GONE]
    assert (erasure.record.index, erasure.registered) == (ERASURE, None)
    # Two approvers have signed the order, with keys that the log knew.
    assert erasure.approvers == {CISO.vkey.label: 3, DPO.vkey.label: 2}
    assert verdict.alone == []
    assert {each.record.index for each in verdict.records if each.record.item.why is Why.KEY} == {
        0, 1, 2, 3,
    }  # fmt: skip
    # The same leaf, under a later head.
    (before,) = [each.record for each in old.records if each.record.index == RECEIVED]
    assert before.item.leaf == received.item.leaf


def test_of_several_subjects_one_is_erased() -> None:
    chosen = {each.record.index: each.record for each in GOOD.verify(GOOD.others).chosen()}
    gone = Gone(SECOND, "R-2")
    assert [part.gone for part in chosen[TWO].parts] == [gone, gone, None]
    assert [part.gone for part in chosen[NOBODY].parts] == [None]
    assert [part.gone for part in chosen[ACCESSED].parts[1:]] == [Gone(ERASURE, "R-1"), gone]


def test_nothing_in_the_package_is_trusted() -> None:
    other = signer_of("log", 99).vkey
    assert "is log+" in refused(GOOD.before, service=other)
    assert "not the one that you gave" in refused(GOOD.before, service=other)
    verdict = GOOD.verify(GOOD.before, service=None, tsa_roots=[])
    assert not verdict.service_known
    assert not any(bound.trusted for each in verdict.records for bound in each.times)
    # A root of somebody else's is no better than none.
    verdict = GOOD.verify(GOOD.before, tsa_roots=[make_root("Evil").certificate])
    assert not any(bound.trusted for each in verdict.records for bound in each.times)
    # The keys of the log alone ask for no witness.
    assert Verifier.with_vkeys(GOOD.vkeys).evidence(GOOD.before).same_policy is None
    stranger = Signer.generate(GOOD.vkeys[0].name, Algorithm.ED25519).vkey
    with pytest.raises(VerificationError, match="signature check failed"):
        Verifier.with_vkeys([stranger]).evidence(GOOD.before)
    with pytest.raises(VerificationError, match="freshness check failed"):
        late = Verifier(GOOD.policy, max_age=60, clock=lambda: COSIGNED_AT + 61)
        late.evidence(GOOD.before)
    with pytest.raises(VerificationError, match="quorum check failed"):
        absent = Signer.generate("w2.example", Algorithm.ED25519_COSIGNATURE).vkey
        lines = [line for line in GOOD.policy.decode().splitlines() if line.startswith("log")]
        lines += [f"witness w2 {absent}", "quorum w2"]
        Verifier("".join(f"{line}\n" for line in lines).encode()).evidence(GOOD.before)


def test_a_policy_that_differs_is_said_to() -> None:
    contents = replace(
        contents_of(GOOD.before), policy=GOOD.policy.replace(b"quorum w1", b"quorum none")
    )
    assert GOOD.verify(encode_package(contents)).same_policy is False


def stamped(seconds: int, *, trusted: bool, name: str = "one") -> _Stamped:
    at = NOW + timedelta(seconds=seconds)
    item = StampItem(name, 10 + seconds, b"", b"", ())
    return _Stamped(item, StampTime(at, None, 1, at, f"CN={name}"), None, trusted)


class Counted(list[_Stamped]):
    """Counts how often all of it is looked at."""

    looks = 0

    def __iter__(self) -> Iterator[_Stamped]:
        self.looks += 1
        return super().__iter__()


def test_stamps_are_looked_at_once_however_many_authorities_there_are() -> None:
    """A package may name a thousand, and each of its records asks."""
    stamps = Counted([stamped(n % 4, trusted=True, name=f"{n // 4:03}") for n in range(100)])
    bounds = _bounds(11, stamps)
    assert [each.authority for each in bounds] == [f"{n:03}" for n in range(25)]
    assert {(each.including, each.excluding) for each in bounds} == {(12, 11)}
    assert stamps.looks == 1


def test_a_stamp_of_a_trusted_authority_counts_before_an_earlier_one_of_a_stranger() -> None:
    own, strange = stamped(2, trusted=True), stamped(1, trusted=False)
    for stamps in ([own, strange], [strange, own]):
        (bound,) = _bounds(4, stamps)
        assert (bound.trusted, bound.not_after) == (True, own.time.not_after)
    assert not _bounds(4, [strange])[0].trusted
    assert _bounds(11, [strange]) == []


def test_one_spelling() -> None:
    for package in (GOOD.before, GOOD.after, GOOD.everything):
        contents = contents_of(package)
        assert encode_package(contents) == package
        shuffled = replace(contents, items=contents.items[::-1], stamps=contents.stamps[::-1])
        assert encode_package(shuffled) == package
