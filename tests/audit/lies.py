"""Ways to lie with an evidence package, and what is said of each."""

from __future__ import annotations

import json
from base64 import encodebytes
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.audit.evidence import (
    ACCESSED,
    ASKED,
    COSIGNED_AT,
    ERASURE,
    EXPIRY,
    FULFILLED,
    GOOD,
    LATE,
    NOBODY,
    OWN_EXPIRY,
    READ,
    RECEIVED,
    SECOND,
    TWO,
    WITNESS,
    with_checkpoint,
)
from tests.audit.producer import SHOP, signer_of
from tests.audit.tenant import LOG
from tlog.audit import sdjwt
from tlog.audit.codec import decode_base64url, dump_json, encode_base64url
from tlog.audit.evidence import PAGES, Contents, Gone, Why
from tlog.audit.evidence_file import MANIFEST
from tlog.audit.leaf import encode_leaf, parse_leaf
from tlog.audit.zipped import read_zip, write_zip
from tlog.notes import parse_note


def members_of(package: bytes) -> dict[str, bytes]:
    return read_zip(package)


# ---- lies: packed again, as if nothing had happened ----

Lie = Callable[[dict[str, bytes], dict[str, Any]], None]


def relisted(package: bytes, lie: Lie) -> bytes:
    """Whoever changes members can change their hashes."""
    members = members_of(package)
    manifest = json.loads(members.pop(MANIFEST))
    lie(members, manifest)
    for name, data in members.items():
        if name in manifest["members"]:
            manifest["members"][name] = sha256(data).hexdigest()
    return write_zip({**members, MANIFEST: dump_json(manifest)})


def flip(data: bytes, at: int = -20) -> bytes:
    bad = bytearray(data)
    bad[at] ^= 1
    return bytes(bad)


def changed(name: str, change: Callable[[bytes], bytes]) -> Lie:
    def lie(members: dict[str, bytes], _: dict[str, Any]) -> None:
        members[name] = change(members[name])

    return lie


def said(**values: Any) -> Lie:
    return lambda _, manifest: manifest.update(values)


def said_of(number: int, **values: Any) -> Lie:
    return lambda _, manifest: manifest["records"][number].update(values)


def moved(members: dict[str, bytes], _: dict[str, Any]) -> None:
    one, other = (f"records/{index:06}/" for index in (RECEIVED, ACCESSED))
    for file in ("leaf.json", "proof.tlog-proof", "disclosures.txt"):
        members[one + file], members[other + file] = members[other + file], members[one + file]


def swapped(file: str) -> Lie:
    def lie(members: dict[str, bytes], _: dict[str, Any]) -> None:
        one, other = (f"records/{index:06}/{file}" for index in (RECEIVED, ACCESSED))
        members[one], members[other] = members[other], members[one]

    return lie


def disclosures(change: Callable[[list[str]], list[str]]) -> Lie:
    def made(data: bytes) -> bytes:
        jws, encoded = sdjwt.split(data.decode())
        return sdjwt.join(jws, change(encoded)).encode()

    return changed(f"records/{RECEIVED:06}/disclosures.txt", made)


def left_out(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
    for file in ("leaf.json", "proof.tlog-proof"):
        del members[f"keys/000000/{file}"]
        del manifest["members"][f"keys/000000/{file}"]
    del manifest["records"][0]


def another_key(members: dict[str, bytes], _: dict[str, Any]) -> None:
    """The record of the shop's key, with another key in it, as the log never signed it."""
    leaf = parse_leaf(members["keys/000000/leaf.json"])
    header, payload, signature = leaf.jws.split(".")
    claims = json.loads(decode_base64url(payload, field=""))
    claims["vkey"] = str(signer_of("shop", 66).vkey)
    jws = f"{header}.{encode_base64url(dump_json(claims))}.{signature}"
    members["keys/000000/leaf.json"] = encode_leaf(replace(leaf, jws=jws))


def without(*names: str) -> Lie:
    def lie(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
        for name in names:
            del members[name]

    return lie


def unlisted(name: str) -> Lie:
    def lie(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
        del members[name]
        del manifest["members"][name]

    return lie


def added(name: str, *, listed: bool) -> Lie:
    def lie(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
        members[name] = b"more"
        if listed:
            manifest["members"][name] = ""

    return lie


NEW = sdjwt.disclose("details", {"note": "as we say now"}).encoded
BOB = sdjwt.split(members_of(GOOD.everything)[f"records/{ACCESSED:06}/disclosures.txt"].decode())[
    1
][-1]
R4, R5 = f"records/{RECEIVED:06}", f"records/{ACCESSED:06}"
LIES: dict[str, tuple[Lie, str]] = {
    "the token of a leaf": (
        changed(
            f"{R4}/leaf.json", lambda data: data.replace(b'"field":"actor"', b'"field":"resource"')
        ),
        f"{R4}: the entry is not proven to be in the log",
    ),
    "the time of a leaf": (
        changed(
            f"{R4}/leaf.json", lambda data: data.replace(b'"received_at":"20', b'"received_at":"19')
        ),
        f"{R4}: jws.header.kid: the key {SHOP.vkey.label} is valid from",
    ),
    "no leaf": (changed(f"{R4}/leaf.json", lambda _: b"{}"), f"{R4}: leaf: no leaf of a record"),
    "the event beside the leaf": (
        changed(f"{R4}/disclosures.txt", lambda data: data.replace(b".", b".A", 1)),
        f"{R4}/disclosures.txt is not of the event in leaf.json",
    ),
    "a disclosure": (
        disclosures(lambda encoded: [encoded[0][:-1] + "A", *encoded[1:]]),
        f"{R4}: disclosures[0]: it matches no digest of the event",
    ),
    "a disclosure left out": (
        disclosures(lambda encoded: encoded[1:]),
        f"{R4}/disclosures.txt discloses [] of part 0, and {MANIFEST} says ['actor']",
    ),
    "a disclosure added": (
        disclosures(lambda encoded: [*encoded, NEW]),
        f"{R4}: disclosures[2]: it matches no digest of the event",
    ),
    "a disclosure added that is true": (
        disclosures(
            lambda encoded: sdjwt.split(
                members_of(GOOD.everything)[f"{R4}/disclosures.txt"].decode()
            )[1]
        ),
        f"{R4}/disclosures.txt discloses ['actor', 'details'] of part 0",
    ),
    "a disclosure exchanged": (
        disclosures(lambda encoded: [encoded[0], BOB]),
        f"{R4}: disclosures[1]: it matches no digest of the event",
    ),
    "a disclosure that comes twice": (
        disclosures(lambda encoded: [*encoded, encoded[0]]),
        f"{R4}: disclosures[2]: it comes twice",
    ),
    "disclosures in another order": (
        disclosures(lambda encoded: encoded[::-1]),
        f"{R4}/disclosures.txt is not written as it is always written",
    ),
    "a key binding": (
        changed(f"{R4}/disclosures.txt", lambda data: data + b"e30.e30.AA"),
        f"{R4}/disclosures.txt: event: an SD-JWT ends with `~`",
    ),
    "a hash of a proof": (
        changed(
            f"{R4}/proof.tlog-proof",
            lambda data: data.replace(data.splitlines()[2], data.splitlines()[3], 1),
        ),
        f"{R4}: the entry is not proven to be in the log",
    ),
    "the index of a proof": (
        changed(f"{R4}/proof.tlog-proof", lambda data: data.replace(b"index 4", b"index 5")),
        f"{R4}: the proof is of entry 5",
    ),
    "the checkpoint of a proof": (
        changed(f"{R4}/proof.tlog-proof", lambda data: data[: data.rindex("—".encode())]),
        f"{R4}: the proof leads to another checkpoint than `checkpoint`",
    ),
    "no proof": (
        changed(f"{R4}/proof.tlog-proof", lambda _: b"index 4\n"),
        f"{R4}: a proof without",
    ),
    "records exchanged": (moved, f"{R4}: the proof is of entry {ACCESSED}"),
    "leaves exchanged": (swapped("leaf.json"), f"{R4}: disclosures[0]: it matches no digest"),
    "proofs exchanged": (swapped("proof.tlog-proof"), f"{R4}: the proof is of entry {ACCESSED}"),
    "disclosures exchanged": (
        swapped("disclosures.txt"),
        f"{R4}: disclosures[0]: it matches no digest",
    ),
    "the policy": (
        changed("policy", lambda data: data.replace(b"quorum w1", b"quorum w2")),
        "policy: ",
    ),
    "the report": (
        changed("report.html", lambda data: data.replace(b"webform", b"by mail")),
        "report.html does not say what the rest of the package says",
    ),
    "the guide": (
        changed("VERIFY.txt", lambda data: data.replace(b"YOUR-ROOT.pem", b"our-root.pem")),
        "VERIFY.txt does not say what the rest of the package says",
    ),
    "a key that is left out": (
        left_out,
        f"{R4}: jws.header.kid: no producer has the key '{SHOP.vkey.label}'",
    ),
    "another key": (
        another_key,
        f"keys/000000: jws.signature: the signature is not that of {LOG.vkey.label}",
    ),
    "the root of all keys": (
        said(service=str(signer_of("log", 99).vkey)),
        "the key of the log's own records is",
    ),
    "no root": (said(service="log"), f"{MANIFEST}: service: "),
    "a stamp": (
        changed("timestamps/one/000006.tsr", flip),
        "timestamps/one/000006.tsr: one: the stamp does not verify",
    ),
    "no stamp": (
        changed("timestamps/one/000006.tsr", lambda _: b"0\x00"),
        "timestamps/one/000006.tsr: one: the stamp does not verify",
    ),
    "the stamp of another head": (
        lambda members, _: members.update(
            {"timestamps/one/000006.tsr": members["timestamps/one/000004.tsr"]}
        ),
        "does not verify: VerificationError: Mismatch between messages",
    ),
    "the stamp of another authority": (
        lambda members, _: members.update(
            {"timestamps/one/000006.tsr": members["timestamps/two/000006.tsr"]}
        ),
        "timestamps/one/000006.tsr: one: signed with certificate",
    ),
    "a stamped head": (
        changed("timestamps/one/000006.note", lambda data: data.replace(b"\n6\n", b"\n5\n")),
        "timestamps/one/000006.note is of 'example.com/records' and size 5",
    ),
    "the signature of a stamped head": (
        changed("timestamps/one/000006.note", lambda data: flip(data, -5)),
        "timestamps/one/000006",
    ),
    "no stamped head": (
        changed("timestamps/one/000006.note", lambda _: b"6\n"),
        "timestamps/one/000006.note: ",
    ),
    "a path": (
        changed("timestamps/one/000006.path", lambda data: data[45:] + data[:45]),
        "timestamps/one/000006.path: the stamped head is not proven",
    ),
    "no path": (
        changed("timestamps/one/000006.path", lambda _: b"AA==\n"),
        "timestamps/one/000006.path: 'AA==' holds 1 bytes",
    ),
    "the certificates": (
        changed("timestamps/one/certificates.pem", lambda data: data.replace(b"M", b"N", 3)),
        "timestamps/one",
    ),
    "no certificates": (
        changed("timestamps/one/certificates.pem", lambda _: b"more"),
        "timestamps/one/certificates.pem: ",
    ),
    "a member that nobody needs": (
        added("records/more", listed=True),
        "records/more belongs to nothing in the package",
    ),
    "a member that is not listed": (
        added("records/more", listed=False),
        f"records/more is in the package, but not in its {MANIFEST}",
    ),
    "a member that is missing": (
        without(f"{R4}/disclosures.txt"),
        f"'{R4}/disclosures.txt' is missing: {MANIFEST} lists it",
    ),
    "a member that is missing and not listed": (
        unlisted(f"{R4}/disclosures.txt"),
        f"{R4}/disclosures.txt is missing",
    ),
    "no checkpoint": (unlisted("checkpoint"), "checkpoint is missing"),
    "another format": (said(format="zip"), f"{MANIFEST} is not one of a tlog-evidence"),
    "another version": (said(version=2), f"{MANIFEST} is of version 2, this reads 1"),
    "a version that is true": (said(version=True), f"{MANIFEST} is of version True"),
    "pages in no words": (said(pages=0), f"in words 0, this release knows 1 to {PAGES}"),
    "pages in words of later": (said(pages=PAGES + 1), f"its pages are in words {PAGES + 1}, this"),
    "pages in words that are true": (said(pages=True), f"{MANIFEST}: pages is malformed"),
    "pages in words of before": (
        said(pages=PAGES - 1),
        "report.html does not say what the rest of the package says",
    ),
    "another log": (
        said(origin="example.com/other"),
        "the checkpoint is of 'example.com/records', not of 'example.com/other'",
    ),
    "another size": (said(tree_size=9), "the checkpoint is of size 7, not 9"),
    "another tenant": (said(tenant="umbrella"), "keys/000000 is of another tenant than 'umbrella'"),
    "another request": (said(request_id="R-9"), f"{R4} is not of request 'R-9'"),
    "a name of no meaning": (said(made_by="us"), f"{MANIFEST} is not in canonical form"),
    "another reason": (said_of(2, why="key"), "keys/000004/leaf.json is missing"),
    "no reason": (said_of(2, why="because"), f"{MANIFEST}: records[2]: why is 'because'"),
    "another index": (said_of(2, index=3), "records/000003/leaf.json is missing"),
    "the same index": (said_of(2, index=1, why="key"), "records are not in the order"),
    "an index below all": (said_of(2, index=-1), "records[2].index is out of bounds"),
    "no parts": (said_of(2, parts=[]), f"{R4}: it has 2 parts, not 0"),
    "parts of a key": (
        said_of(0, parts=[{"disclosed": [], "gone": None}]),
        f"{MANIFEST} is not in canonical form",
    ),
    "gone, and shown all the same": (
        said_of(2, parts=[{"disclosed": ["actor"], "gone": {"index": 6, "request_id": "R-1"}}] * 2),
        f"{R4}: a part is said to be gone, and shown all the same",
    ),
    "gone by nothing": (
        said_of(4, parts=[{"disclosed": [], "gone": {"index": 9, "request_id": "R-1"}}]),
        "records/000006: it is said to be erased at entry 9 under request R-1, and the package has",
    ),
    "nonsense for parts": (
        said_of(2, parts=[1, 2]),
        f"{MANIFEST}: records[2].parts[0] is no object",
    ),
    "nonsense for records": (said(records=7), f"{MANIFEST}: records is malformed"),
    "nonsense for members": (said(members=[]), f"{MANIFEST}: members is malformed"),
    "a stamp that is not there": (
        said(stamps=[{"authority": "one", "size": 3}]),
        "timestamps/one/000003.path is missing",
    ),
    "stamps that are left out": (said(stamps=[]), "timestamps/one/000004.note belongs to nothing"),
    "a stamp that climbs": (
        said(stamps=[{"authority": "../x", "size": 3}]),
        "no authority, or no size",
    ),
}


# ---- lies of whoever makes the whole package anew, report and all ----

Remake = Callable[[Contents], Contents]


def noted(change: Callable[[bytes], bytes]) -> Remake:
    return lambda contents: with_checkpoint(contents, change(contents.checkpoint))


def item(index: int, **values: Any) -> Remake:
    def made(contents: Contents) -> Contents:
        items = [
            replace(each, **values) if each.index == index else each for each in contents.items
        ]
        return replace(contents, items=items)

    return made


def dropped(index: int) -> Remake:
    def made(contents: Contents) -> Contents:
        return replace(contents, items=[each for each in contents.items if each.index != index])

    return made


def certified(change: Callable[[bytes], bytes]) -> Remake:
    """Change the certificates of the first authority."""

    def made(contents: Contents) -> Contents:
        found = x509.load_pem_x509_certificates(contents.certificates["one"])
        ders = [change(each.public_bytes(Encoding.DER)) for each in found]
        pem = b"".join(map(pem_of, ders))
        return replace(contents, certificates={**contents.certificates, "one": pem})

    return made


def pem_of(der: bytes) -> bytes:
    lines = encodebytes(der).decode("ascii")
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n".encode()


def signature_of(label: str) -> Callable[[bytes], bytes]:
    """Flip a bit in the signature of a name, its time and key ID left alone."""

    def change(note: bytes) -> bytes:
        lines = note.split(b"\n")
        (at,) = [i for i, line in enumerate(lines) if f"— {label} ".encode() in line]
        lines[at] = lines[at][:-6] + (b"A" if lines[at][-6:-5] != b"A" else b"B") + lines[at][-5:]
        return b"\n".join(lines)

    return change


def ed25519_signature(note: bytes) -> bytes:
    lines = note.split(b"\n")
    at = lines[4]
    lines[4] = at[:-6] + (b"A" if at[-6:-5] != b"A" else b"B") + at[-5:]
    return b"\n".join(lines)


def later(note: bytes) -> bytes:
    """A cosignature with another time than the one that was signed."""
    read = parse_note(note)
    *others, last = read.signatures
    time = (COSIGNED_AT + 9).to_bytes(8, "big")
    moved = replace(last, signature=time + last.signature[8:])
    return replace(read, signatures=(*others, moved)).encode()


def another_root(note: bytes) -> bytes:
    lines = note.split(b"\n")
    lines[2] = (b"A" if lines[2][:1] != b"A" else b"B") + lines[2][1:]
    return b"\n".join(lines)


REMADE: dict[str, tuple[bytes, Remake, str]] = {
    "the log's signature": (
        GOOD.before,
        noted(ed25519_signature),
        "signature check failed: the signature of",
    ),
    "a cosignature": (
        GOOD.before,
        noted(signature_of(WITNESS.vkey.name)),
        f"signature of {WITNESS.vkey.label}",
    ),
    "the time of a cosignature": (GOOD.before, noted(later), f"signature of {WITNESS.vkey.label}"),
    "no cosignature": (
        GOOD.before,
        noted(lambda note: note[: note.rindex("—".encode())]),
        "quorum check failed: ",
    ),
    "another root hash": (GOOD.before, noted(another_root), "signature check failed: "),
    "an erasure that is left out": (
        GOOD.after,
        dropped(ERASURE),
        "erased at entry 7 under request R-1, and the package has no such",
    ),
    "an erasure under another request": (
        GOOD.after,
        item(RECEIVED, gone=[Gone(ERASURE, "R-2")] * 2),
        "erased at entry 7 under request R-2, which is a record of something else",
    ),
    "an erasure that is none": (
        GOOD.after,
        item(RECEIVED, gone=[Gone(FULFILLED, "R-1")] * 2),
        "erased at entry 6 under request R-1, which is a record of something else",
    ),
    "an erasure told as an expiry": (
        GOOD.after,
        item(RECEIVED, gone=[Gone(ERASURE, "")] * 2),
        "expired at entry 7, which is a record of something else",
    ),
    "an erasure that took nothing": (
        GOOD.after,
        item(RECEIVED, gone=[None] * 2),
        "records/000007: nothing is gone by it",
    ),
    "an erasure of what was never said": (
        GOOD.after,
        item(FULFILLED, gone=[Gone(ERASURE, "R-1")]),
        "erased at entry 7 under request R-1, and part 0 has no digests",
    ),
    "an erasure of nobody": (
        GOOD.others,
        item(NOBODY, disclosed=(), gone=[Gone(SECOND, "R-2")]),
        "records/000009: it is said to be erased at entry 10 under request R-2, and it is about "
        "nobody",
    ),
    "an erasure of before the record": (
        GOOD.others,
        item(TWO, disclosed=(), gone=[Gone(ERASURE, "R-1")] * 3),
        "records/000008: it is said to be erased at entry 7 under request R-1, which is before it",
    ),
    "an erasure of somebody else": (
        GOOD.others,
        item(RECEIVED, gone=[Gone(SECOND, "R-2")] * 2),
        "records/000004: it is said to be erased at entry 10 under request R-2, which is that of "
        "another subject",
    ),
    "an erasure of the other subject": (
        GOOD.others,
        item(TWO, disclosed=(), gone=[Gone(SECOND, "R-2")] * 3),
        "records/000008: it is said to be erased at entry 10 under request R-2, which is that of "
        "another subject",
    ),
    "an expiry of another class": (
        GOOD.expired,
        item(ASKED, disclosed=(), gone=[Gone(EXPIRY, "")] * 2),
        "expired at entry 15, which is of the class 'access', and not of 'requests'",
    ),
    "the expiry of another class": (
        GOOD.expired,
        item(READ, gone=[Gone(OWN_EXPIRY, "")] * 2),
        "expired at entry 16, which is of the class 'own', and not of 'access'",
    ),
    "an expiry of what was not old enough": (
        GOOD.expired,
        item(LATE, disclosed=(), gone=[Gone(EXPIRY, "")] * 2),
        "expired at entry 15, which is of entries 0 to 13, and of none after itself",
    ),
    "an expiry told as an erasure": (
        GOOD.expired,
        item(READ, gone=[Gone(EXPIRY, "R-1")] * 2),
        "erased at entry 15 under request R-1, which is a record of something else",
    ),
    "an expiry that is left out": (
        GOOD.expired,
        dropped(EXPIRY),
        "expired at entry 15, and the package has no such",
    ),
    "a certificate of nobody who can be read": (
        GOOD.before,
        certified(lambda der: der.replace(b"Root of one", b"Root \xff\xff one")),
        "timestamps/one/certificates.pem: ",
    ),
    "a certificate that says a thing twice": (
        GOOD.before,
        certified(lambda der: der.replace(b"\x55\x1d\x11", b"\x55\x1d\x13")),
        "timestamps/one/000004.tsr: one: the stamp does not verify: ",
    ),
    "nothing that is chosen": (
        GOOD.before,
        lambda contents: replace(
            contents, items=[each for each in contents.items if each.why is Why.KEY]
        ),
        "no record is chosen: it proves nothing",
    ),
    "an approver that nobody knows": (
        GOOD.after,
        dropped(3),
        "records/000007: signatures[1]: jws.header.kid: no producer has",
    ),
    "one order for two erasures": (
        GOOD.unordered["event_id"],
        lambda contents: contents,
        ": event_id: not as it was ordered",
    ),
    "an erasure that others are said to have ordered": (
        GOOD.unordered["approvers"],
        lambda contents: contents,
        ": approvers: not as it was ordered",
    ),
    "an erasure that was ordered for another reason": (
        GOOD.unordered["reason"],
        lambda contents: contents,
        ": reason: not as it was ordered",
    ),
    "one order that two erasures carry out": (
        GOOD.unordered["again"],
        lambda contents: contents,
        f": order: entry {ERASURE} carries it out, and it is for one erasure",
    ),
    "an order that expired long before it was carried out": (
        GOOD.unordered["late"],
        lambda contents: contents,
        ": expires_at: it had expired",
    ),
    "one erasure of two": (
        GOOD.unordered["several"],
        lambda contents: contents,
        ", which names 2 subjects, and destroys the key of one",
    ),
    "an erasure upon an order that is not there": (
        GOOD.unordered["order"],
        lambda contents: contents,
        ": order: approved by whom? The order is missing",
    ),
    "a head of before the records": (
        GOOD.before,
        lambda contents: replace(
            with_checkpoint(contents, contents.stamps[0].note), tree_size=4, policy=GOOD.policy
        ),
        "quorum check failed: ",
    ),
}

# Where the same damage is done in several ways, and nobody could tell which it was.
SAME: tuple[set[str], ...] = (
    {"the token of a leaf", "a hash of a proof"},  # one of the two is not what was proven
    {
        "a disclosure",
        "a disclosure added",
        "a disclosure exchanged",
        "leaves exchanged",
        "disclosures exchanged",
    },  # what is disclosed is not of the event
    {"the index of a proof", "records exchanged", "proofs exchanged"},  # the proof of another entry
    {"the stamp of another head", "the signature of a stamped head"},  # other bytes were stamped
    {"a name of no meaning", "parts of a key"},  # the manifest says more than it should
    {"another reason", "another index"},  # the record is not where it should be
    {"an erasure of somebody else", "an erasure of the other subject"},  # it took another key
    {"the report", "pages in words of before"},  # the page is not what is made of the rest
    {"the log's signature", "another root hash"},  # something else was signed
    {"a cosignature", "the time of a cosignature"},  # something else was cosigned
    {"no cosignature", "a head of before the records"},  # nobody cosigned it
)
