"""Keys and strategies that the tests of this room share. Every seed is a test's own."""

import hashlib

from hypothesis import strategies as st

from tlog.notes import Algorithm, Checkpoint, Signer

LOG = "log.example/one"
TIME = 1_700_000_000


def signer(name: str, algorithm: Algorithm, number: int = 0) -> Signer:
    seed = hashlib.sha256(f"{name} {algorithm} {number}".encode()).digest()
    return Signer.from_seed(name, algorithm, seed)


LOG_ED = signer(LOG, Algorithm.ED25519)
LOG_PQ = signer(LOG, Algorithm.MLDSA44)
W_ED = signer("witness.example/w1", Algorithm.ED25519_COSIGNATURE)
W_PQ = signer("witness.example/w2", Algorithm.MLDSA44)

HEAD = Checkpoint(LOG, 1234567, hashlib.sha256(b"root").digest())

# Unicode spaces: the White_Space property of Unicode.
SPACES = "\u0020\u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)

hashes = st.binary(min_size=32, max_size=32)
integers = st.integers(0, 2**63 - 1)
_letters = st.characters(min_codepoint=0x21, exclude_categories=["Cs"])
names = st.text(_letters, min_size=1, max_size=60).filter(
    lambda name: "+" not in name and not any(map(str.isspace, name))
)
lines = st.text(
    st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1, max_size=60
)
checkpoints = st.builds(Checkpoint, lines, integers, hashes, st.lists(lines, max_size=3).map(tuple))
