"""The verifier without a connection: by policy and by keys, and every flipped byte refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.merkle import trees
from tests.notes.keyring import LOG, LOG_ED, LOG_PQ, TIME, W_ED, W_PQ, signer
from tlog.client import Head, TrustError, VerificationError, Verifier
from tlog.merkle import consistency_proof, inclusion_proof
from tlog.notes import (
    Algorithm,
    Checkpoint,
    NoteError,
    TlogProof,
    cosign,
    parse_policy,
    sign_checkpoint,
)

SIZE = 11
POLICY = f"""log {LOG_ED.vkey}
witness one {W_ED.vkey}
witness two {W_PQ.vkey}
group both all one two
quorum both
""".encode()
KEYS = [str(LOG_ED.vkey), str(LOG_PQ.vkey)]


def head(size: int, *witnesses: str, fork: bytes = b"", signers: int = 2) -> bytes:
    last = trees.leaf(fork or trees.entry(size - 1))
    root = trees.mth([*trees.leaves(size)[:-1], last])
    checkpoint = Checkpoint(LOG, size, root)
    note = sign_checkpoint(checkpoint, [LOG_ED, LOG_PQ][:signers], timestamp=TIME)
    for name in witnesses:
        note += cosign(checkpoint, {"one": W_ED, "two": W_PQ}[name], timestamp=TIME + 1).encode()
    return note


def receipt(index: int = 4, *witnesses: str) -> bytes:
    hashes = inclusion_proof(index, SIZE, trees.reader(SIZE))
    return TlogProof(index, tuple(hashes), head(SIZE, *witnesses)).encode()


def test_a_policy_wants_its_quorum() -> None:
    verifier = Verifier(POLICY)
    verified = verifier.checkpoint(head(SIZE, "one", "two"))
    assert (verified.origin, verified.size) == (LOG, SIZE)
    # The second key of the log is not in the policy.
    assert dict(verified.signed_by) == {LOG_ED.vkey: None, W_ED.vkey: TIME + 1, W_PQ.vkey: TIME + 1}
    assert Verifier(parse_policy(POLICY)).checkpoint(head(SIZE, "one", "two")) == verified
    for witnesses in ((), ("one",), ("two",)):
        with pytest.raises(VerificationError, match="'both'") as caught:
            verifier.checkpoint(head(SIZE, *witnesses))
        assert caught.value.check == "quorum"
    with pytest.raises(VerificationError) as caught:
        Verifier(POLICY.replace(str(LOG_ED.vkey).encode(), str(LOG_PQ.vkey).encode())).checkpoint(
            head(SIZE, "one", "two", signers=1)
        )
    assert caught.value.check == "signature"
    with pytest.raises(NoteError, match="line 1"):
        Verifier(b"nonsense\n")


def test_keys_must_all_have_signed() -> None:
    assert Verifier.with_vkeys(KEYS).checkpoint(head(SIZE)).size == SIZE
    with pytest.raises(VerificationError, match="has not signed"):
        Verifier.with_vkeys(KEYS).checkpoint(head(SIZE, signers=1))
    for wrong in ([], ["x"], [*KEYS, str(signer("other", Algorithm.ED25519).vkey)]):
        with pytest.raises(TrustError):
            Verifier.with_vkeys(wrong)


def test_a_receipt() -> None:
    proven = Verifier.with_vkeys(KEYS).proof(receipt(), trees.entry(4))
    assert (proven.index, proven.leaf_hash, proven.head.size) == (4, trees.leaf(b"entry 4"), SIZE)
    assert Verifier(POLICY).proof(receipt(4, "one", "two"), b"entry 4").index == 4
    with pytest.raises(VerificationError) as caught:
        Verifier(POLICY).proof(receipt(), b"entry 4")
    assert caught.value.check == "quorum"
    for entry in (b"", b"entry 5", b"entry 4 "):
        with pytest.raises(VerificationError) as caught:
            Verifier.with_vkeys(KEYS).proof(receipt(), entry)
        assert caught.value.check == "inclusion"


def test_every_flipped_byte_of_a_receipt_is_refused() -> None:
    verifier, good = Verifier.with_vkeys(KEYS), receipt()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        with pytest.raises(VerificationError):
            verifier.proof(bytes(bad), b"entry 4")


def test_heads_against_each_other() -> None:
    verifier = Verifier.with_vkeys(KEYS)
    old, new = (verifier.checkpoint(head(size)) for size in (7, SIZE))
    proof = consistency_proof(7, SIZE, trees.reader(SIZE))
    verifier.consistency(old, new, proof)
    for number, element in enumerate(proof):
        for position in range(len(element)):
            bad = bytearray(element)
            bad[position] ^= 0x80
            with pytest.raises(VerificationError) as caught:
                verifier.consistency(old, new, [*proof[:number], bytes(bad), *proof[number + 1 :]])
            assert caught.value.evidence == (old.note, new.note)
    forked = verifier.checkpoint(head(SIZE, fork=b"another"))
    with pytest.raises(VerificationError) as caught:
        verifier.consistency(new, forked, [])
    assert caught.value.check == "fork"
    assert isinstance(forked, Head)


def test_it_is_there_under_the_name_of_the_package() -> None:
    script = "import tlog; print(tlog.Verifier)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert b"Verifier" in done.stdout
