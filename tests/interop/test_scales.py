"""tlog-scales reads our log over HTTP: its tiles, its signatures of both kinds, and its proofs."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

from tests.interop.conftest import INDICES, SIZE, SIZES, Library, flipped
from tlog.notes import Signer, VerifierKey, parse_proof, verify_proof
from tools.peers import program

SCRIPT = Path(__file__).with_name("python") / "scales.py"


def ask(**question: Any) -> Any:
    done = subprocess.run(
        [program("python"), str(SCRIPT)],
        input=json.dumps(question).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def encoded(hashes: list[bytes]) -> list[str]:
    return [b64encode(item).decode() for item in hashes]


def test_entries_roots_and_proofs_out_of_our_tiles_are_ours(library: Library) -> None:
    said = ask(url=library.url, vkeys=library.vkeys, indices=INDICES, sizes=SIZES, judge=[])
    assert said["size"] == SIZE
    assert said["signed_by"] == sorted(library.vkeys)
    assert b64decode(said["root"]) == library.root
    assert list(map(b64decode, said["entries"])) == [library.entry(index) for index in INDICES]
    # It makes the proofs itself, out of tiles: they are those that our server gives.
    assert said["inclusion"] == [encoded(library.inclusion(index)) for index in INDICES]
    assert said["consistency"] == [encoded(library.consistency(size)) for size in SIZES]


def test_our_proofs_verify_and_damaged_ones_do_not(library: Library) -> None:
    judge: list[tuple[str, int, list[str]]] = []
    for number in INDICES:
        judge.append(("inclusion", number, encoded(library.inclusion(number))))
    for number in SIZES:
        judge.append(("consistency", number, encoded(library.consistency(number))))
    damaged = []
    for turn, (kind, number, hashes) in enumerate(judge):
        for place, item in enumerate(hashes):
            bad = b64encode(flipped(b64decode(item), 37 * turn + place)).decode()
            damaged.append((kind, number, [*hashes[:place], bad, *hashes[place + 1 :]]))
        if hashes:
            damaged.append((kind, number, hashes[:-1]))
    said = ask(url=library.url, vkeys=library.vkeys, indices=[], sizes=[], judge=[*judge, *damaged])
    assert said["judged"] == [True] * len(judge) + [False] * len(damaged)
    assert len(damaged) > 300


def test_a_foreign_key_of_the_same_name_signs_nothing(library: Library) -> None:
    ours = VerifierKey.parse(library.vkeys[0])
    foreign = Signer.generate(ours.name, ours.algorithm).vkey
    said = ask(url=library.url, vkeys=[str(foreign)], indices=[], sizes=[], judge=[])
    assert said["signed_by"] == []


def test_its_proof_file_is_one_of_ours(library: Library) -> None:
    """`tlog-tiles gen-proof` makes a c2sp.org/tlog-proof: ours to verify."""
    for index in (0, 255, 256, 65_536, SIZE - 1):
        made = tiles("gen-proof", library.url, str(index))
        vkeys = [VerifierKey.parse(vkey) for vkey in library.vkeys]
        verified = verify_proof(parse_proof(made), library.entry(index), vkeys)
        assert [vkey for vkey, _ in verified.signed_by] == vkeys


def test_it_checks_the_leaf_that_it_prints(library: Library) -> None:
    assert tiles("get-leaf", "--check", library.url, "-1") == library.entry(SIZE - 1)
    assert tiles("get-leaf", "--check", library.url, "65535") == library.entry(65_535)


def tiles(*arguments: str) -> bytes:
    done = subprocess.run(
        [program("tlog-tiles"), *arguments], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
