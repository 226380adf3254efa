"""A log that others wrote is cosigned by our witness, through a client that others wrote."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Terminal
from tests.interop.witnesses import our_witness
from tlog.notes import Algorithm, Signer, VerifierKey, open_checkpoint
from tools.peers import program

SCRIPT = Path(__file__).with_name("python") / "feeder.py"
LOG = "other.example/log"
ENTRIES = [f"entry {number}" for number in range(700)]
FORKED = [*ENTRIES[:299], "another", *ENTRIES[300:]]
SEED = bytes(range(32))
SIGNER = Signer.from_seed(LOG, Algorithm.ED25519, SEED)


def feed(witness: VerifierKey, url: str, sizes: Sequence[int], **changed: Any) -> list[Any]:
    """The note with its cosignature, or the status of the refusal, for each size."""
    asked = {
        **{"origin": LOG, "seed": b64encode(SEED).decode(), "entries": ENTRIES},
        **{"url": url, "witness": str(witness), "sizes": sizes, "forget": False, **changed},
    }
    done = subprocess.run(
        [program("python"), str(SCRIPT)],
        input=json.dumps(asked).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answers: list[Any] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("forget", [False, True])
def test_every_head_is_cosigned(terminal: Terminal, forget: bool) -> None:
    sizes = (1, 2, 3, 255, 256, 257, 512, 699, 700, 700)
    with our_witness(terminal, "w", [SIGNER.vkey]) as ((ed25519, _), url):
        answers = feed(ed25519, url, sizes, forget=forget)
    for size, note in zip(sizes, answers, strict=True):
        verified = open_checkpoint(b64decode(note), [SIGNER.vkey], origin=LOG)
        assert verified.checkpoint.size == size
        assert ed25519.label in {signature.label for signature in verified.note.signatures}


def test_what_does_not_follow_is_refused(terminal: Terminal) -> None:
    with our_witness(terminal, "w", [SIGNER.vkey]) as ((ed25519, _), url):
        assert isinstance(feed(ed25519, url, [300])[0], str)
        # A larger head of another history comes with a proof that does not lead to what was
        # cosigned. It is no proof of a split view, and the log goes on.
        assert feed(ed25519, url, [500], entries=FORKED) == [422]
        assert isinstance(feed(ed25519, url, [600])[0], str)
        stranger = b64encode(bytes(32)).decode()
        assert feed(ed25519, url, [700], seed=stranger) == [403]
        assert feed(ed25519, url, [700], origin="unknown.example/log") == [404]


def test_a_split_view_freezes_the_log(terminal: Terminal) -> None:
    with our_witness(terminal, "w", [SIGNER.vkey]) as ((ed25519, _), url):
        assert isinstance(feed(ed25519, url, [300])[0], str)
        # Two roots of one size, both signed: proof of a split view. This client begins with old
        # size 0, is told 300, and by the time it asks again the log is frozen.
        assert feed(ed25519, url, [300], entries=FORKED) == [403]
        assert feed(ed25519, url, [400]) == [403]
        said = terminal.run("witness", "conflicts", "w")
        assert said.returncode == 0, said.stderr
        assert LOG.encode() in said.stdout
