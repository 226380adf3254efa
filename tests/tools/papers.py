"""Random policies, receipts and evidence, and ways to damage them."""

from __future__ import annotations

import base64
import random
import re
from dataclasses import dataclass, replace

from tests.merkle import trees
from tests.witness.support import signer
from tlog.merkle import consistency_ranges, inclusion_ranges, root_from_inclusion
from tlog.notes import (
    Algorithm,
    Checkpoint,
    Note,
    NoteSignature,
    Signer,
    TlogProof,
    cosign,
)
from tlog.notes.note import sign_text
from tools import verify

ORIGINS = ("log.example/one", "log.example/two")
LOG_KEYS = (Algorithm.ED25519, Algorithm.MLDSA44)
COSIGNER_KEYS = (Algorithm.ED25519_COSIGNATURE, Algorithm.MLDSA44)
WITNESSES = [signer(f"witness.example/w{n}", COSIGNER_KEYS[n % 2]) for n in range(6)]
TIMES = (1, 1_700_000_000, 253_402_300_800, 2**63 - 1)


@dataclass(frozen=True, slots=True)
class Papers:
    """What a verifier is given: a policy or vkeys, a receipt or evidence, and maybe an entry."""

    policy: bytes | None
    vkeys: tuple[str, ...]
    file: bytes
    entry: bytes = b""


# ---- what is whole ----


def log_signers(choose: random.Random, origin: str) -> list[Signer]:
    keys = choose.choice(((Algorithm.ED25519,), (Algorithm.MLDSA44,), LOG_KEYS))
    return [signer(origin, algorithm) for algorithm in keys]


def signature(checkpoint: Checkpoint, key: Signer, time: int) -> NoteSignature:
    if key.vkey.algorithm is Algorithm.ED25519:
        return sign_text(checkpoint.body(), key)
    return cosign(checkpoint, key, timestamp=time)


def a_note(choose: random.Random, checkpoint: Checkpoint, keys: list[Signer]) -> bytes:
    signatures = [signature(checkpoint, key, choose.choice(TIMES)) for key in keys]
    if choose.random() < 0.2:
        stranger = signer("stranger.example", Algorithm.ED25519, choose.randrange(3))
        signatures.append(signature(checkpoint, stranger, 1))
    if choose.random() < 0.1:
        signatures.append(choose.choice(signatures))
    choose.shuffle(signatures)
    return Note(checkpoint.body(), tuple(signatures)).encode()


def a_policy(choose: random.Random, logs: list[Signer]) -> bytes:
    """Groups within groups, in lines that are written in any way that is allowed."""
    lines = [f"log {key.vkey}" for key in logs]
    loose = []
    for number, key in enumerate(WITNESSES[: choose.randrange(len(WITNESSES) + 1)]):
        lines.append(f"witness w{number} {key.vkey}{choose.choice(['', ' https://w.example/'])}")
        loose.append(f"w{number}")
    choose.shuffle(lines)
    for number in range(choose.randrange(4)):
        if not loose:
            break
        choose.shuffle(loose)
        size = choose.randint(1, min(3, len(loose)))
        members, loose = loose[:size], loose[size:]
        k = choose.choice(["any", "all", str(choose.randint(1, size))])
        lines.append(f"group g{number} {k} {' '.join(members)}")
        loose.append(f"g{number}")
    lines.append(f"quorum {choose.choice([*loose, *loose, 'none'])}")
    if choose.random() < 0.3:
        lines.insert(choose.randrange(len(lines)), "  # ein Kommentar über nichts")
        lines = [line.replace(" ", choose.choice([" ", "  ", "\t"])) for line in lines]
    return "".join(f"{line}\n" for line in lines).encode()


def a_tree(choose: random.Random) -> tuple[int, int, bytes, list[bytes], bytes]:
    """Size, index, entry, inclusion proof, root: of a real tree, or of one too large to build."""
    if choose.random() < 0.6:
        size = choose.randint(1, 40)
        index = choose.randrange(size)
        leaves = trees.leaves(size)
        return size, index, trees.entry(index), trees.path(index, leaves), trees.mth(leaves)
    size = min(choose.getrandbits(choose.randint(1, 63)) + 1, 2**63 - 1)
    index = choose.choice([choose.randrange(size), size - 1])
    path = [choose.randbytes(32) for _ in inclusion_ranges(index, size)]
    entry = choose.randbytes(choose.randrange(50))
    return size, index, entry, path, root_from_inclusion(index, size, trees.leaf(entry), path)


def some_trust(choose: random.Random, logs: list[Signer]) -> tuple[bytes | None, tuple[str, ...]]:
    if choose.random() < 0.75:
        return a_policy(choose, logs), ()
    return None, tuple(str(key.vkey) for key in logs)


def receipt(choose: random.Random) -> Papers:
    origin = choose.choice(ORIGINS)
    logs = log_signers(choose, origin)
    policy, vkeys = some_trust(choose, logs)
    if policy is not None and choose.random() < 0.2:
        other = [signer(ORIGINS[0], algorithm) for algorithm in LOG_KEYS]
        policy = a_policy(choose, [*{key.vkey: key for key in (*logs, *other)}.values()])
    size, index, entry, path, root = a_tree(choose)
    extensions = ("extension",) if choose.random() < 0.1 else ()
    cosigners = choose.sample(WITNESSES, choose.randint(0, len(WITNESSES)))
    signing = [*(logs if choose.random() < 0.8 else logs[:1]), *cosigners]
    note = a_note(choose, Checkpoint(origin, size, root, extensions), signing)
    extra = choose.choice([None, None, b"", b"extra"])
    return Papers(policy, vkeys, TlogProof(index, tuple(path), note, extra).encode(), entry)


def evidence(choose: random.Random) -> Papers:
    origin = choose.choice(ORIGINS)
    logs = log_signers(choose, origin)
    policy, vkeys = some_trust(choose, logs)

    def head(size: int, root: bytes) -> bytes:
        some = logs if choose.random() < 0.8 else logs[:1]
        return a_note(choose, Checkpoint(origin, size, root), some)

    one, two = sorted(choose.randbytes(32) for _ in range(2))
    size = choose.randint(0, 20)
    header, heads = [verify.EVIDENCE], []
    match choose.randrange(4):
        case 0:
            header.append("same-size")
            heads = [head(size, one), head(size, two)]
        case 1:
            header.append("empty-tree")
            heads = [head(0, one)]
        case _:
            old, new, root, new_root, path = a_history(choose)
            header += ["inconsistent", f"root {base64.b64encode(root).decode()}"]
            header += [base64.b64encode(element).decode() for element in path]
            heads = [head(old, choose.choice([one, one, one, root])), head(new, new_root)]
    text = "".join(f"{line}\n" for line in header).encode()
    return Papers(policy, vkeys, text + b"".join(b"\n" + head for head in heads))


def a_history(choose: random.Random) -> tuple[int, int, bytes, bytes, list[bytes]]:
    """Two sizes, their roots, and the consistency proof: of real trees, or of too large ones."""
    if choose.random() < 0.5:
        old, new = sorted(choose.sample(range(1, 41), 2))
        leaves = trees.leaves(new)
        path = trees.subproof(old, leaves, True)
        return old, new, trees.mth(leaves[:old]), trees.mth(leaves), path
    new = min(choose.getrandbits(choose.randint(2, 63)) + 2, 2**63 - 1)
    old = choose.randrange(1, new)
    path = [choose.randbytes(32) for _ in consistency_ranges(old, new)]
    # Of the two verifiers that are compared, one makes the proof, so that the other can judge it.
    roots = verify.roots_of_consistency(old, new, choose.randbytes(32), path)
    return old, new, *roots, path


# ---- and what is not ----

ODD = (
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\t",
        b" ",
        b"  ",
        b"\0",
        b"\x0c",
        b"\x7f",
        b"\xff",
        b"+",
        b"=",
    ),
    *(
        b"0",
        b"-",
        b"_",
        b"#",
        b"A",
        b"none",
        b"any",
        "\u2028".encode(),
        "\u00a0".encode(),
        "—".encode(),
    ),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"root ", b"extra "),
)
# A hash or a signature, which is a word; or the key of a vkey.
BASE64 = re.compile(
    rb"(?:(?<=[ \n])|(?<=\+[0-9a-f]{8}\+))"
    rb"(?:[A-Za-z0-9+/]{4}){6,}[A-Za-z0-9+/]{2,4}={0,2}(?=[ \n]|$)"
)


def flip_a_bit(choose: random.Random, data: bytes) -> bytes:
    broken = bytearray(data)
    broken[choose.randrange(len(broken))] ^= 1 << choose.randrange(8)
    return bytes(broken)


def insert_oddly(choose: random.Random, data: bytes) -> bytes:
    place = choose.randrange(len(data) + 1)
    return data[:place] + choose.choice(ODD) + data[place + choose.choice([0, 0, 1]) :]


def cut(choose: random.Random, data: bytes) -> bytes:
    begin = choose.randrange(len(data) + 1)
    return choose.choice([data[:begin], data[begin:], data[:begin] + data[begin + 1 :]])


def move_lines(choose: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    one, two = choose.randrange(len(lines)), choose.randrange(len(lines))
    match choose.randrange(4):
        case 0:
            lines[one], lines[two] = lines[two], lines[one]
        case 1:
            del lines[one]
        case 2:
            lines.insert(two, lines[one])
        case _:
            lines[one] = lines[two]
    return b"\n".join(lines)


def other_number(choose: random.Random, data: bytes) -> bytes:
    """One of the decimals is another one, or the same one in another spelling."""
    found = list(re.finditer(rb"(?<![\w+/=.])[0-9]+(?![\w+/=.])", data))
    if not found:
        return data
    match = choose.choice(found)
    number = int(match[0])
    changed = choose.choice(
        [str(number + 1), str(max(0, number - 1)), f"0{number}", str(number * 2), f"{number:_}"]
    )
    return data[: match.start()] + changed.encode() + data[match.end() :]


def within_base64(choose: random.Random, data: bytes) -> bytes:
    """The bytes that base64 stands for are changed, and encoded again: nothing is malformed."""
    found = list(BASE64.finditer(data))
    if not found:
        return data
    match = choose.choice(found)
    decoded = bytearray(base64.b64decode(match[0] + b"=="))
    match choose.randrange(4):
        case 0:
            decoded[choose.randrange(min(13, len(decoded)))] ^= 1 << choose.randrange(8)
        case 1:
            decoded[-1] ^= 1
        case 2:
            decoded = decoded[: choose.randrange(len(decoded))]
        case _:
            decoded += bytes(choose.randint(1, 3))
    return data[: match.start()] + base64.b64encode(decoded) + data[match.end() :]


def not_canonical(choose: random.Random, data: bytes) -> bytes:
    """Base64 whose unused bits are not zero, or that is not padded, or padded twice."""
    found = [match for match in BASE64.finditer(data) if match[0].endswith(b"=")]
    if not found:
        return data
    match = choose.choice(found)
    text = match[0].rstrip(b"=")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(text[-1]) ^ choose.randint(0, 3)]
    padding = choose.choice([b"", b"=", b"==", b"==="])
    return data[: match.start()] + text[:-1] + bytes([last]) + padding + data[match.end() :]


DAMAGES = (
    flip_a_bit,
    insert_oddly,
    cut,
    move_lines,
    move_lines,
    other_number,
    within_base64,
    within_base64,
    not_canonical,
)


def damaged(choose: random.Random, papers: Papers) -> Papers:
    """Papers with something changed: mostly the file, also the policy, a key or the entry."""

    def break_(data: bytes) -> bytes:
        return choose.choice(DAMAGES)(choose, data) if data else b"\n"

    place = choose.random()
    if place < 0.6:
        return replace(papers, file=break_(papers.file))
    if place < 0.65 and papers.entry:
        return replace(papers, entry=break_(papers.entry))
    if papers.policy is not None:
        return replace(papers, policy=break_(papers.policy))
    vkeys = [break_(vkey.encode()).decode("utf-8", "replace") for vkey in papers.vkeys]
    return replace(papers, vkeys=tuple(vkeys))
