"""A terminal for each test, and one log of several tile levels for all tests that only read."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.e2e.processes import Terminal
from tlog.v1 import log_pb2 as pb
from tlog.v1 import log_pb2_grpc

# Level 0 ends in a partial tile, level 1 has a full tile and a partial one, level 2 has one hash.
SIZE = 65_536 + 3 * 256 + 77
# Edges of tiles and of levels, powers of two and their neighbours, and places that are neither.
SIZES = (1, 2, 3, 255, 256, 257, 511, 4096, 40_001, 65_535, 65_536, 65_537, 66_304, SIZE - 1, SIZE)
INDICES = tuple(sorted({0, *(size - 1 for size in SIZES), *(size for size in SIZES[:-1])}))


@dataclass(frozen=True)
class Library:
    """A log that is served.

    Attributes:
        url: of its HTTP resources, without a slash at the end.
        target: of its gRPC interface.
        vkeys: Ed25519 first.
        note: its published checkpoint, of all entries.
        root: of that checkpoint.
    """

    terminal: Terminal
    url: str
    target: str
    origin: str
    vkeys: tuple[str, ...]
    note: bytes
    root: bytes

    def entry(self, index: int) -> bytes:
        return b"entry %d" % index

    def inclusion(self, index: int, size: int = SIZE) -> list[bytes]:
        """The proof that the server gives, unverified."""
        request = pb.GetInclusionProofRequest(index=index, tree_size=size)
        with grpc.insecure_channel(self.target) as channel:
            answer = log_pb2_grpc.LogServiceStub(channel).GetInclusionProof(request)
        return list(answer.proof.hashes)

    def consistency(self, old: int, new: int = SIZE) -> list[bytes]:
        """The proof that the server gives, unverified."""
        request = pb.GetConsistencyProofRequest(old_size=old, new_size=new)
        with grpc.insecure_channel(self.target) as channel:
            answer = log_pb2_grpc.LogServiceStub(channel).GetConsistencyProof(request)
        return list(answer.hashes)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """An empty directory to run commands in."""
    return Terminal(tmp_path)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    terminal = Terminal(tmp_path_factory.mktemp("library"))
    origin = "example.com/library"
    terminal.run("init", "library", "--origin", origin, "--interval", "0.1")
    lines = b"".join(b"entry %d\n" % index for index in range(SIZE))
    with terminal.serving("library") as server:
        done = terminal.run("append", "--lines", "-", "--wait", "published", stdin=lines)
        assert done.returncode == 0, done.stderr
        with grpc.insecure_channel(server.grpc) as channel:
            stub = log_pb2_grpc.LogServiceStub(channel)
            note = stub.GetCheckpoint(pb.GetCheckpointRequest()).checkpoint.note
        lines_of_note = note.split(b"\n")
        assert int(lines_of_note[1]) == SIZE
        (ready,) = server.ready["logs"]
        yield Library(
            terminal=terminal,
            url=f"{server.http}/{ready['name']}",
            target=server.grpc,
            origin=origin,
            vkeys=tuple(ready["vkeys"]),
            note=note,
            root=base64.b64decode(lines_of_note[2]),
        )


def flipped(data: bytes, bit: int) -> bytes:
    """The same with one bit changed."""
    place = bit // 8 % len(data)
    return data[:place] + bytes([data[place] ^ 1 << bit % 8]) + data[place + 1 :]
