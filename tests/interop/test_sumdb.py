"""The packages of Go's checksum database verify our tiles, our proofs and our signed notes."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode, b64encode
from typing import Any

from tests.interop.conftest import INDICES, SIZE, SIZES, Library, flipped
from tlog.notes import Signer, VerifierKey, parse_note
from tools.peers import program


def ask(library: Library, **question: Any) -> subprocess.CompletedProcess[bytes]:
    """Put one question to tests/interop/go/sumdb."""
    asked = {"URL": library.url, "Vkey": library.vkeys[0], **question}
    return subprocess.run(
        [program("sumdb")],
        input=json.dumps(asked).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )


def answered(library: Library, **question: Any) -> Any:
    done = ask(library, **question)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def encoded(hashes: list[bytes]) -> list[str]:
    return [b64encode(item).decode() for item in hashes]


def test_proofs_out_of_our_tiles_verify_and_are_ours(library: Library) -> None:
    said = answered(library, Records=INDICES, Trees=SIZES)
    assert (said["Size"], b64decode(said["Root"])) == (SIZE, library.root)
    for index, it in zip(INDICES, said["Records"], strict=True):
        assert it["Proof"] == encoded(library.inclusion(index))
    for size, it in zip(SIZES, said["Trees"], strict=True):
        assert (it["Proof"] or []) == encoded(library.consistency(size))


def record(library: Library, index: int) -> dict[str, Any]:
    return {
        "Index": index,
        "Size": SIZE,
        "Root": b64encode(library.root).decode(),
        "Entry": b64encode(library.entry(index)).decode(),
        "Proof": encoded(library.inclusion(index)),
    }


def test_it_judges_our_inclusion_proofs(library: Library) -> None:
    good = [record(library, index) for index in INDICES]
    bad = []
    for turn, it in enumerate(good):
        proof = it["Proof"]
        for place, item in enumerate(proof):
            damaged = b64encode(flipped(b64decode(item), 41 * turn + place)).decode()
            bad.append({**it, "Proof": [*proof[:place], damaged, *proof[place + 1 :]]})
        bad.append({**it, "Proof": proof[:-1]})
        bad.append({**it, "Proof": [*proof, proof[-1]]})
        bad.append({**it, "Entry": b64encode(b"never appended").decode()})
        bad.append({**it, "Index": (it["Index"] + 1) % SIZE})
    said = answered(library, Proofs=[*good, *bad])
    assert said["Proofs"][: len(good)] == [""] * len(good)
    assert len(bad) > 400
    assert all(said["Proofs"][len(good) :])


def test_it_judges_our_consistency_proofs(library: Library) -> None:
    roots = {it["Old"]: it["OldRoot"] for it in answered(library, Trees=SIZES)["Trees"]}
    good = [
        {
            "Old": old,
            "OldRoot": roots[old],
            "Size": SIZE,
            "Root": b64encode(library.root).decode(),
            "Proof": encoded(library.consistency(old)),
        }
        for old in SIZES
    ]
    bad = []
    for turn, it in enumerate(good):
        proof = it["Proof"]
        for place, item in enumerate(proof):
            damaged = b64encode(flipped(b64decode(item), 43 * turn + place)).decode()
            bad.append({**it, "Proof": [*proof[:place], damaged, *proof[place + 1 :]]})
        root = b64encode(flipped(b64decode(it["OldRoot"]), 47 * turn)).decode()
        bad.append({**it, "OldRoot": root})
    said = answered(library, Growth=[*good, *bad])
    assert said["Growth"][: len(good)] == [""] * len(good)
    assert all(said["Growth"][len(good) :])


def test_it_opens_our_notes_and_no_damaged_ones(library: Library) -> None:
    note = parse_note(library.note)
    label = VerifierKey.parse(library.vkeys[0]).label
    ours = library.note.index(next(s for s in note.signatures if s.label == label).encode())
    # Every byte of the text and of the Ed25519 signature's line; the other is not its business.
    end = library.note.index(b"\n", ours)
    places = [*range(library.note.index(b"\n\n")), *range(ours, end)]
    bad = [flipped(library.note, 8 * place + place % 7) for place in places]
    notes = [b64encode(text).decode() for text in (library.note, *bad)]
    said = answered(library, Notes=notes)
    assert said["Notes"][0] == ""
    assert all(said["Notes"][1:])


def test_a_foreign_key_opens_nothing(library: Library) -> None:
    ours = VerifierKey.parse(library.vkeys[0])
    foreign = Signer.generate(ours.name, ours.algorithm).vkey
    done = ask(library, Vkey=str(foreign))
    assert done.returncode == 1
    assert b"note has no verifiable signatures" in done.stderr
