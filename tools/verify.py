#!/usr/bin/env python3
"""Verify a receipt or evidence against a log, without any of that log's software.

    verify.py --policy POLICY           RECEIPT.tlog-proof ENTRYFILE
    verify.py --vkey VKEY [--vkey VKEY] RECEIPT.tlog-proof ENTRYFILE
    verify.py --policy POLICY           EVIDENCE.conflict

A receipt is verified when the log signed a tree that holds exactly the bytes of ENTRYFILE and,
with a policy, its quorum of witnesses cosigned that tree. With --vkey, all keys given must have
signed. Evidence is verified when the log signed trees that no log that only appends can have.

One file, made to be read from top to bottom, each part with the rules that it holds, in quotes
(c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy, tlog-proof; RFC 9162). It
opens the files that are named, nothing else, and no network. It needs Python 3.11 and the package
`cryptography`, release 50 or later. Exit code: 0 verified, 1 a file or key cannot be used, 2 the
command was not understood, 3 not verified.
"""

import argparse
import base64
import hashlib
import re
import sys
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

MAX_FILE, MAX_NOTE, MAX_EXTRA = 1 << 20, 256 << 10, 64 << 10  # bytes
MAX_SIGNATURES = 64  # of one note
MAX_NUMBER = (1 << 63) - 1


class RefusedError(Exception):
    """It does not hold, and this is why."""


# ---- Encodings. One value has one spelling, or a text could change and still mean the same. ----


def from_base64(text: str) -> bytes:
    """RFC 4648 section 4, padded, canonical."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if base64.b64encode(data).decode() != text:
        raise RefusedError(f"{text[:80]!r} is not base64")
    return data


def from_base64_hash(text: str) -> bytes:
    data = from_base64(text)
    if len(data) != 32:
        raise RefusedError(f"{text[:80]!r} is not a SHA-256 hash")
    return data


def from_decimal(text: str) -> int:
    """ "ASCII decimal with no leading zeroes" unless it is 0, and below 2^63."""
    if not re.fullmatch("0|[1-9][0-9]{0,18}", text) or int(text) > MAX_NUMBER:
        raise RefusedError(f"{text[:80]!r} is not a number below 2^63")
    return int(text)


def from_utf8(data: bytes) -> str:
    """ "MUST be valid UTF-8 and MUST NOT contain any ASCII control characters [...] other than
    newline" (signed-note)."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError("not valid UTF-8") from None
    if any(character < " " and character != "\n" for character in text):
        raise RefusedError("control characters")
    return text


def check_name(name: str) -> None:
    """ "Key names MUST be non-empty and MUST NOT contain any Unicode spaces or plus"."""
    if not name or "+" in name or any(character.isspace() for character in name):
        raise RefusedError(f"{name[:80]!r} is not a key name")


# ---- Keys (signed-note, "Verifier keys") ----

ED25519, ED25519_COSIGNATURE, MLDSA44 = 0x01, 0x04, 0x06
KEY_BYTES = {ED25519: 32, ED25519_COSIGNATURE: 32, MLDSA44: 1312}


class Key(NamedTuple):
    """A public key, and the name and signature type under which it signs."""

    name: str
    type: int
    public: bytes
    id: str


def parse_vkey(data: bytes) -> Key:
    """<key name>+hex(32-bit key ID)+base64(signature type || public key)"""
    name, key_id, encoded = [*from_utf8(data).split("+", 2), "", ""][:3]
    check_name(name)
    material = from_base64(encoded)
    # tlog-cosignature: "opaque cosigner_name<1..2^8-1>"
    if len(name.encode()) > 255 or len(material) != 1 + KEY_BYTES.get((material or b"?")[0], -1):
        raise RefusedError(f"{name[:80]!r} is not the name of a key of type 0x01, 0x04 or 0x06")
    # "key ID = SHA-256(key name || 0x0A || signature type || public key)[:4]"
    if hashlib.sha256(name.encode() + b"\n" + material).hexdigest()[:8] != key_id:
        raise RefusedError(f"the key ID of {name[:80]!r} is not that of its key")
    return Key(name, material[0], material[1:], key_id)


# ---- Signed checkpoints (signed-note, tlog-checkpoint, tlog-cosignature) ----


class Head(NamedTuple):
    """A checkpoint whose signatures verified: by whom, and the newest time that each states."""

    origin: str
    size: int
    root: bytes
    signed_by: dict[Key, int]


def open_head(note: bytes, keys: list[Key]) -> Head:
    """Read a signed checkpoint and verify all signatures of these keys. Who has to have signed is
    for the caller to say."""
    # "a text ending in newline (U+000A), followed by a blank line (only a newline), followed by one
    # or more signature lines"; "the text is separated from the signatures by the last empty line".
    body, blank, lines = from_utf8(note).rpartition("\n\n")
    if not blank or not lines.endswith("\n") or len(note) > MAX_NOTE:
        raise RefusedError("a signed note that is too long, cut short, or without signatures")
    # "a sequence of at least three non-empty lines": origin, tree size, root hash, and perhaps
    # extension lines, which nobody has to understand.
    rows = body.split("\n")
    if len(rows) < 3 or "" in rows or len(rows[0].encode()) > 255:
        raise RefusedError("not a checkpoint: three lines, none empty, the first of 255 bytes")
    head = Head(rows[0], from_decimal(rows[1]), from_base64_hash(rows[2]), {})

    known: dict[tuple[str, str], Key] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise RefusedError(f"two different keys are called {key.name}+{key.id}")
    if lines.count("\n") > MAX_SIGNATURES:
        raise RefusedError(f"more than {MAX_SIGNATURES} signatures")
    for line in lines[:-1].split("\n"):
        # "em dash (U+2014), space (U+0020), key name, space, base64-encoded signature, newline";
        # "Signatures are the base64 encoding of 4+n bytes. The first four bytes [...] the key ID".
        dash, name, encoded = [*line.split(" ", 2), "", ""][:3]
        signature = from_base64(encoded)
        check_name(name)
        if dash != "—" or len(signature) < 5:
            raise RefusedError(f"{line[:80]!r} is not a signature line")
        # "Verifiers MUST ignore signatures from unknown keys"; "If a signature from a known key
        # fails to verify, clients SHOULD reject the whole note", and this one does.
        if (signer := known.get((name, signature[:4].hex()))) is not None:
            time = verify_signature(signer, signature[4:], f"{body}\n", head)
            head.signed_by[signer] = max(time, head.signed_by.get(signer, 0))
    return head


def verify_signature(key: Key, signature: bytes, text: str, head: Head) -> int:
    """Verify one signature of a note; the time that it states in seconds since 1970, 0 for none."""
    time, message = 0, text.encode()
    if key.type != ED25519:
        # "struct { u64 timestamp; [...] signature; } timestamped_signature": the time "MUST NOT
        # exceed 2^63 - 1".
        stamp, signature = signature[:8], signature[8:]
        if (time := int.from_bytes(stamp, "big")) > MAX_NUMBER:
            raise RefusedError(f"{key.name} states a time over 2^63 - 1")
    if key.type == ED25519_COSIGNATURE:
        # "two newline terminated lines [...] followed by the whole note body"
        message = f"cosignature/v1\ntime {time}\n{text}".encode()
    if key.type == MLDSA44:
        # "struct { uint8 label[12] = "subtree/v1\n\0"; opaque cosigner_name<1..2^8-1>;
        #   uint64 timestamp; opaque log_origin<1..2^8-1>; uint64 start; uint64 end;
        #   uint8 hash[32]; } cosigned_message": for a checkpoint, start is 0 and end its size.
        name, origin = key.name.encode(), head.origin.encode()
        message = b"subtree/v1\n\0" + bytes([len(name)]) + name + stamp
        message += bytes([len(origin)]) + origin + bytes(8) + head.size.to_bytes(8, "big")
        message += head.root
    kind = MLDSA44PublicKey if key.type == MLDSA44 else Ed25519PublicKey
    try:
        kind.from_public_bytes(key.public).verify(signature, message)
    except InvalidSignature:
        raise RefusedError(f"the signature of {key.name}+{key.id} does not verify") from None
    return time


# ---- Whom to trust: the keys of one log, or a policy (tlog-policy) ----


class Trust:
    """Logs, witnesses by name, groups by name in order (threshold, members), and the quorum."""

    def __init__(self) -> None:
        self.logs: list[Key] = []
        self.all_must_sign = False
        self.witnesses: dict[bytes, Key] = {}
        self.groups: dict[bytes, tuple[int, list[bytes]]] = {}
        self.quorum = b""

    def open(self, note: bytes) -> Head:
        """ "a checkpoint is considered valid if it is signed by any one of the listed logs, and it
        is cosigned by witnesses according to the defined quorum rule"."""
        head = open_head(note, [*self.logs, *self.witnesses.values()])
        # The log's name "MUST correspond to the log's origin line".
        signers = [log for log in self.logs if log in head.signed_by and log.name == head.origin]
        if not signers or (self.all_must_sign and len(signers) < len(self.logs)):
            raise RefusedError(f"the checkpoint of {head.origin[:80]!r} lacks its log's signature")
        # "the group is considered to witness a checkpoint if and only if at least k of its n
        # members have witnessed". Members are defined before their group: one pass is enough.
        witnessed = {name for name, key in self.witnesses.items() if key in head.signed_by}
        for name, (threshold, members) in self.groups.items():
            if sum(member in witnessed for member in members) >= threshold:
                witnessed.add(name)
        if self.quorum != b"none" and self.quorum not in witnessed:
            raise RefusedError(f"no quorum, the witnesses are {sorted(witnessed) or 'absent'}")
        return head


def trust_keys(vkeys: list[str]) -> Trust:
    """The keys of one log, all of which must have signed, and no witnesses."""
    trust = Trust()
    trust.logs = [parse_vkey(vkey.encode("utf-8", "surrogateescape")) for vkey in vkeys]
    trust.all_must_sign, trust.quorum = True, b"none"
    if len({key.name for key in trust.logs}) > 1:
        raise RefusedError("keys of several logs: give those of one")
    refuse_witnesses(trust.logs)
    return trust


def refuse_witnesses(logs: list[Key]) -> None:
    if any(key.type == ED25519_COSIGNATURE for key in logs):
        raise RefusedError("a key of type 0x04 is a witness's: give the log's own")


def trust_policy(data: bytes) -> Trust:
    """Read a policy. Names are octets: "names must be handled as opaque octet strings"."""
    # "the allowed octet values are 0x09 (tab), 0x0A (newline), 0x20-0x7E, and 0x80-0xFF"; "each
    # line is terminated by ASCII newline".
    if re.search(rb"[^\t\n\x20-\x7e\x80-\xff]", data) or not data.endswith(b"\n"):
        raise RefusedError("a character that is not allowed, or a last line without its end")
    trust = Trust()
    for number, line in enumerate(data.split(b"\n"), 1):
        items = line.split()
        if items and not items[0].startswith(b"#"):
            try:
                read_policy_line(trust, *items)
            except RefusedError as error:
                raise RefusedError(f"line {number}: {error}") from None
    if not trust.quorum:
        raise RefusedError("no quorum line")
    return trust


def read_policy_line(trust: Trust, keyword: bytes, *items: bytes) -> None:
    defined = {b"none"} | trust.witnesses.keys() | trust.groups.keys()
    if keyword == b"log" and len(items) in (1, 2):  # log <vkey> [<url>]
        trust.logs.append(new_key(items[0], trust.logs))
    elif keyword == b"witness" and len(items) in (2, 3):  # witness <name> <vkey> [<url>]
        key = new_key(items[1], [*trust.witnesses.values()])
        if key.type == ED25519 or items[0] in defined:
            raise RefusedError(f"{items[0]!r} is defined before, or its key is not a cosigner's")
        trust.witnesses[items[0]] = key
    elif keyword == b"group" and len(items) > 2:  # group <name> all|any|<k> <name>...
        name, k, *members = items
        threshold = {b"all": len(members), b"any": 1}.get(k) or from_decimal(k.decode("latin-1"))
        listed = members + [member for _, others in trust.groups.values() for member in others]
        # "it is required that 1 <= k <= n"; "Each defined name can be listed as a group member at
        # most once"; `none` "is invalid as a group member".
        if (
            not 1 <= threshold <= len(members)
            or len(set(listed)) < len(listed)
            or not defined - {b"none"} >= set(members)
            or name in defined
        ):
            raise RefusedError(f"the group {name!r} has a wrong threshold, member or name")
        trust.groups[name] = (threshold, members)
    elif keyword == b"quorum" and len(items) == 1:  # quorum <name>
        # "A policy file must include exactly one quorum line."
        if trust.quorum or items[0] not in defined:
            raise RefusedError("a second quorum, or one that is not defined before")
        trust.quorum = items[0]
    else:
        raise RefusedError(f"{keyword!r} with {len(items)} items is not understood")


def new_key(vkey: bytes, others: list[Key]) -> Key:
    """Keys are duplicate "if they wrap the same underlying public key", which is "not allowed"."""
    key = parse_vkey(vkey)
    if any(key.public == other.public for other in others):
        raise RefusedError(f"the public key of {key.name} is there twice")
    return key


# ---- The Merkle tree (RFC 9162 section 2.1) ----


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of_inclusion(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    """The root that an inclusion proof leads to: section 2.1.3.2, in its letters."""
    if index >= size:
        raise RefusedError(f"entry {index} is not in a tree of {size}")
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            raise RefusedError("the inclusion proof is too long")
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise RefusedError("the inclusion proof is too short")
    return r


def roots_of_consistency(
    first: int, second: int, first_hash: bytes, path: list[bytes]
) -> tuple[bytes, bytes]:
    """The two roots that a consistency proof leads to, 0 < first < second: section 2.1.4.2."""
    if first & (first - 1) == 0:  # "first is an exact power of 2"
        path = [first_hash, *path]
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0] if path else b""
    for c in path[1:]:
        if sn == 0:
            raise RefusedError("the consistency proof is too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise RefusedError("the consistency proof is too short")
    return fr, sr


# ---- Receipts (tlog-proof) ----

RECEIPT = "c2sp.org/tlog-proof@v1"


def verify_receipt(data: bytes, entry: bytes, trust: Trust) -> str:
    """Verify that the log holds exactly these bytes; what is proven, in one line."""
    # Header, perhaps "extra <base64>", "index <decimal>", hashes; then "After the inclusion proof
    # lines and an empty line, the checkpoint issued by the log is included verbatim".
    above, _, note = data.partition(b"\n\n")
    header, *lines = from_utf8(above).split("\n")
    extra = lines.pop(0)[6:] if lines and lines[0].startswith("extra ") else ""
    if header != RECEIPT or not lines or not lines[0].startswith("index "):
        raise RefusedError(f"no {RECEIPT}, with its index")
    # "Applications MUST NOT implicitly trust the extra data, as it is not authenticated."
    if len(from_base64(extra)) > MAX_EXTRA:
        raise RefusedError(f"extra data of more than {MAX_EXTRA} bytes")
    index = from_decimal(lines[0].removeprefix("index "))
    path = [from_base64_hash(line) for line in lines[1:]]
    # "1. Compute the leaf hash." "2. Check that the checkpoint origin line is acceptable, and that
    # the checkpoint is signed by a log public key configured for that origin line." "3. Verify all
    # cosignatures for witnesses known to the verifier."
    head = trust.open(note)
    # "4. Check that the inclusion proof is valid, to bind the leaf hash [...] to the root hash"
    if root_of_inclusion(index, head.size, leaf_hash(entry), path) != head.root:
        raise RefusedError(f"these bytes are not proven to be entry {index} of {head.origin}")
    by = ", ".join(signer(key, time) for key, time in head.signed_by.items())
    return f"entry {index} of {head.origin}, in the tree of {head.size}, signed by {by}"


def signer(key: Key, time: int) -> str:
    said = f" (at {time} s since 1970)" if time else ""
    if 0 < time < 253402300800:  # the year 10000
        said = f" ({datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC)"
    return f"{key.name}+{key.id}{said}"


# ---- Evidence that a log contradicts itself ----

EVIDENCE = "tlog-conflict@v1"


def verify_evidence(data: bytes, trust: Trust) -> str:
    """Verify that the log signed trees of which one excludes the other; which, in one line.

    The file is a header and then one or two signed checkpoints, each after an empty line:

        tlog-conflict@v1
        same-size | inconsistent | empty-tree
        root <base64>    only if inconsistent: the root of the first entries of the second tree,
        <base64>...      as many as the first tree has, and the consistency proof that shows it
    """
    above, *parts = data.split(b"\n\n")
    kind, *lines = from_utf8(above).removeprefix(f"{EVIDENCE}\n").split("\n")
    if len(parts) not in (2, 4):
        raise RefusedError("there are not one or two signed checkpoints")
    # A signed checkpoint has an empty line of its own. Splitting took a newline from the first.
    notes = [parts[0] + b"\n\n" + parts[1] + b"\n", b"\n\n".join(parts[2:])]
    notes = notes if len(parts) == 4 else [notes[0][:-1]]
    refuse_witnesses(trust.logs)
    heads = [open_head(note, trust.logs) for note in notes]
    for head in heads:
        if not any(key.name == head.origin == heads[0].origin for key in head.signed_by):
            raise RefusedError(f"a checkpoint is not signed by the log of {heads[0].origin[:80]!r}")
    sizes, roots = [head.size for head in heads], [head.root for head in heads]
    if kind == "empty-tree" and not lines and sizes == [0]:
        # "The hash of an empty list is the hash of an empty string" (RFC 9162 section 2.1.1).
        proven = roots[0] != hashlib.sha256(b"").digest()
    elif kind == "same-size" and not lines and len(heads) == 2 and sizes[0] == sizes[1]:
        proven = roots[0] < roots[1]  # different, and in the order that makes one spelling
    elif kind == "inconsistent" and len(heads) == 2 and 0 < sizes[0] < sizes[1]:
        # The proof leads to the second root, which thereby fixes the root of its first entries;
        # and that is not the one that the log signed for them.
        if not lines or not lines[0].startswith("root "):
            raise RefusedError("there is no root line")
        root, *path = map(from_base64_hash, [lines[0].removeprefix("root "), *lines[1:]])
        shown = roots_of_consistency(sizes[0], sizes[1], root, path)
        proven = shown == (root, roots[1]) and root != roots[0]
    else:
        raise RefusedError(f"{kind[:80]!r} does not fit what follows it")
    if not proven:
        raise RefusedError("no contradiction is proven")
    said = " and ".join(f"size {head.size} with root {head.root.hex()}" for head in heads)
    return f"the log {heads[0].origin} contradicts itself ({kind}): it signed {said}"


# ---- The command ----


def read(path: str) -> bytes:
    """A file of at most 1 MiB; - is standard input."""
    try:
        with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        sys.exit(f"cannot verify: {path}: {error.strerror}")
    if len(data) > MAX_FILE:
        sys.exit(f"cannot verify: {path} has more than {MAX_FILE} bytes")
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description="Verify a .tlog-proof, or evidence of a conflict.")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--policy", metavar="FILE", help="a trust policy (c2sp.org/tlog-policy)")
    given.add_argument("--vkey", action="append", help="a key of the log; all given must sign")
    parser.add_argument("file", help="the receipt (.tlog-proof) or the evidence (.conflict)")
    parser.add_argument("entry", nargs="?", help="of a receipt: the file with the entry's bytes")
    arguments = parser.parse_args()
    try:
        vkeys = arguments.vkey
        trust = trust_keys(vkeys) if vkeys else trust_policy(read(arguments.policy))
    except RefusedError as error:
        sys.exit(f"cannot verify: the keys or the policy: {error}")
    data = read(arguments.file)
    evidence = data.startswith(f"{EVIDENCE}\n".encode())
    if evidence == (arguments.entry is not None):
        parser.error("a receipt is given with the file of its entry, evidence is given alone")
    try:
        said = verify_evidence(data, trust) if evidence else ""
        said = said or verify_receipt(data, read(arguments.entry), trust)
        said, code = f"verified: {said}", 0
    except RefusedError as error:
        said, code = f"NOT VERIFIED: {error}", 3
    # A stranger may have worded a part of it: nothing that a terminal would act on.
    said = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in said)
    print(said, file=sys.stderr if code else sys.stdout)
    sys.exit(code)


if __name__ == "__main__":
    main()
