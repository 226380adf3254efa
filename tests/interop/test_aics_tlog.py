"""aics-tlog verifies our checkpoints, our proofs, and the quorum of our witnesses."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Terminal
from tests.interop.aics import aics
from tests.interop.conftest import INDICES, SIZE, SIZES, Library, flipped
from tests.interop.witnesses import ORIGIN, init, our_witness, require
from tlog.merkle import leaf_hash, node_hash
from tlog.notes import Algorithm, Signer


def proof_file(path: Path, hashes: list[bytes]) -> Path:
    path.write_bytes(b"".join(b64encode(item) + b"\n" for item in hashes))
    return path


def base64(data: bytes) -> str:
    return b64encode(data).decode()


# ---- a log over HTTP ----


def test_it_verifies_our_checkpoint(library: Library, tmp_path: Path) -> None:
    code, said = aics("verify-checkpoint", "--tiles", library.url, "--log-key", library.vkeys[0])
    assert (code, said["ok"]) == (0, True), said
    assert (said["origin"], said["size"], said["root"]) == (
        library.origin,
        SIZE,
        base64(library.root),
    )
    # It ignores the signature of the ML-DSA-44 key, which it does not know.
    for bit in range(0, library.note.index(b"\n\n") * 8, 97):
        (tmp_path / "bad").write_bytes(flipped(library.note, bit))
        code, said = aics(
            *("verify-checkpoint", "--note", tmp_path / "bad", "--log-key", library.vkeys[0])
        )
        assert (code, said["ok"]) == (1, False)


@pytest.mark.parametrize("index", [0, 256, 65_535, 65_536, SIZE - 1])
def test_it_proves_our_entries_out_of_our_tiles(
    library: Library, tmp_path: Path, index: int
) -> None:
    (tmp_path / "leaf").write_bytes(library.entry(index))
    ask = ("verify-inclusion", "--tiles", library.url, "--log-key", library.vkeys[0])
    code, said = aics(*ask, "--index", index, "--leaf", tmp_path / "leaf")
    assert (code, said["ok"]) == (0, True), said
    (tmp_path / "leaf").write_bytes(library.entry(index + 1))
    code, said = aics(*ask, "--index", index, "--leaf", tmp_path / "leaf")
    assert (code, said["ok"]) == (1, False)


def test_a_bundle_out_of_our_tiles_verifies_offline(library: Library, tmp_path: Path) -> None:
    bundle, key = tmp_path / "bundle", ("--log-key", library.vkeys[0])
    code, said = aics(
        *("verify-inclusion", "--tiles", library.url, *key, "--index", 4096),
        *("--bundle-out", bundle),
    )
    assert (code, said["ok"]) == (0, True), said
    code, said = aics("verify-bundle", "--bundle", bundle, "--offline", *key)
    assert (code, said["ok"]) == (0, True), said


def test_it_accepts_our_inclusion_proofs(library: Library, tmp_path: Path) -> None:
    for index in INDICES[::5]:
        hashes = library.inclusion(index)
        ask = (
            *("verify-inclusion", "--leaf-hash", leaf_hash(library.entry(index)).hex()),
            *("--index", index, "--size", SIZE, "--root", base64(library.root), "--proof"),
        )
        code, said = aics(*ask, proof_file(tmp_path / "proof", hashes))
        assert (code, said["ok"]) == (0, True), said
        hashes[index % len(hashes)] = flipped(hashes[index % len(hashes)], index)
        code, said = aics(*ask, proof_file(tmp_path / "proof", hashes))
        assert (code, said["ok"]) == (1, False)


def test_it_accepts_our_consistency_proofs(library: Library, tmp_path: Path) -> None:
    for old in SIZES[1::3]:
        old_root = root_of(library, old)
        hashes = library.consistency(old)
        ask = (
            *("verify-consistency", "--old-size", old, "--new-size", SIZE),
            *("--old-root", base64(old_root), "--new-root", base64(library.root), "--proof"),
        )
        code, said = aics(*ask, proof_file(tmp_path / "proof", hashes))
        assert (code, said["ok"]) == (0, True), said
        if hashes:
            hashes[old % len(hashes)] = flipped(hashes[old % len(hashes)], old)
            code, said = aics(*ask, proof_file(tmp_path / "proof", hashes))
            assert (code, said["ok"]) == (1, False)


def root_of(library: Library, size: int) -> bytes:
    """The root hash of the first entries, by a loop over all of them."""
    level = [leaf_hash(library.entry(index)) for index in range(size)]
    while len(level) > 1:
        pairs = [node_hash(*level[at : at + 2]) for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


# ---- a quorum of our witnesses ----


def test_it_counts_the_quorum_of_our_witnesses(terminal: Terminal) -> None:
    vkeys, directory = init(terminal), terminal.directory
    with contextlib.ExitStack() as stack:
        witnesses = [
            stack.enter_context(our_witness(terminal, f"w{number}", vkeys)) for number in range(3)
        ]
        log = require(terminal, vkeys, *((keys[0], url) for keys, url in witnesses))
        server, client = stack.enter_context(log.serving())

        def ask(verb: str, quorum: int, *arguments: str | Path | int) -> tuple[int, Any]:
            return aics(
                *(verb, "--tiles", f"{server.http}/mylog", "--log-key", str(vkeys[0])),
                *("--origin", ORIGIN, "--max-age", 60, "--quorum", quorum, *arguments),
            )

        ours = [part for keys, _ in witnesses for part in ("--witness-key", str(keys[0]))]
        log.append(client, [b"one", b"two", b"three"])
        old = directory / "old"
        code, said = ask("verify-checkpoint", 3, *ours, "--save-checkpoint", old)
        assert (code, said["ok"]) == (0, True), said
        assert (said["size"], said["cosignatures"]) == (3, 3)
        code, said = ask("verify-inclusion", 3, *ours, "--index", 1)
        assert (code, said["ok"]) == (0, True), said
        log.append(client, [b"%d" % number for number in range(600)])
        code, said = ask("verify-consistency", 3, *ours, "--old-checkpoint", old)
        assert (code, said["ok"]) == (0, True), said
        # A witness that never cosigned is missing from a quorum of all.
        stranger = Signer.generate("stranger.example/w", Algorithm.ED25519_COSIGNATURE).vkey
        others = (*ours, "--witness-key", str(stranger))
        assert ask("verify-checkpoint", 3, *others)[0] == 0
        code, said = ask("verify-checkpoint", 4, *others)
        assert (code, said["ok"]) == (1, False)
