"""The body of add-entries (SPEC tlog-mirror), read piece by piece and written; and its answer.

    log_origin_size u16, log_origin
    upload_start u64, upload_end u64
    ticket_size u16, ticket
    entry packages: for each 256 entries, those that are uploaded, each with a u16 length;
        num_hashes u8, and so many hashes of the subtree consistency proof

Integers are big-endian. No I/O here: what has arrived is fed to a parser, and what is whole comes
out. It never holds more than one package and what was fed last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from tlog.merkle import HASH_SIZE, TILE_WIDTH
from tlog.notes.codec import encode_base64
from tlog.witness import BadRequest, Unprocessable

MAX_PROOF_HASHES: Final = 63
"""SPEC tlog-mirror: "`num_hashes`, which MUST be at most 63"."""
INFO_TYPE: Final = "text/x.tlog.mirror-info"

_U16: Final = Struct(">H")
_RANGE: Final = Struct(">QQ")
_MAX_SIZE: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Upload:
    """What an upload says of itself, before its packages. `log_origin` is not decoded yet."""

    log_origin: bytes
    start: int
    end: int
    ticket: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """The head of the body."""
        return b"".join(
            (
                _U16.pack(len(self.log_origin)),
                self.log_origin,
                _RANGE.pack(self.start, self.end),
                _U16.pack(len(self.ticket)),
                self.ticket,
            )
        )


@dataclass(frozen=True, slots=True)
class PackageRange:
    """Which entries a package has: [start, end), and its subtree is [base, end)."""

    base: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Package:
    """Entries, and the subtree consistency proof from their subtree to the tree at upload_end."""

    entries: tuple[bytes, ...] = field(repr=False)
    proof: tuple[bytes, ...] = field(repr=False)

    def encode(self) -> bytes:
        """As it stands in the body."""
        parts = []
        for entry in self.entries:
            parts += [_U16.pack(len(entry)), entry]
        return b"".join((*parts, bytes([len(self.proof)]), *self.proof))


@dataclass(frozen=True, slots=True)
class MirrorInfo:
    """Where an upload can go on: the body of a 409 and of a 202."""

    tree_size: int
    next_entry: int
    ticket: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """SPEC tlog-mirror: "three lines, each followed by a newline"."""
        return f"{self.tree_size}\n{self.next_entry}\n{encode_base64(self.ticket)}\n".encode()


def canonical_sequence(start: int, end: int) -> Iterator[PackageRange]:
    """The packages of an upload of [start, end).

    SPEC tlog-mirror: "start = max(upload_start, rounded_start + i * 256)", "end = min(upload_end,
    rounded_start + (i + 1) * 256)".
    """
    for base in range(start - start % TILE_WIDTH, end if start < end else 0, TILE_WIDTH):
        yield PackageRange(base, max(start, base), min(end, base + TILE_WIDTH))


class UploadParser:
    """Takes a body apart as it arrives."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._read = 0
        self._entries: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        """Add what has arrived. The caller takes out what is whole before it feeds more."""
        self._data += piece

    def head(self) -> Upload | None:
        """The head, once it is whole.

        Raises:
            BadRequest: its range is none.
        """
        view = _Cursor(self._data)
        origin = view.prefixed()
        bounds = view.take(_RANGE.size)
        ticket = view.prefixed()
        if origin is None or bounds is None or ticket is None:
            return None
        start, end = _RANGE.unpack(bounds)
        # SPEC tlog-mirror: "`upload_start` MUST be less or equal to `upload_end`."
        if not start <= end <= _MAX_SIZE:
            raise BadRequest(f"an upload from {start} to {end}: expected start <= end < 2^63")
        del self._data[: view.position]
        return Upload(origin, start, end, ticket)

    def package(self, count: int) -> Package | None:
        """The next package, of `count` entries, once it is whole.

        Raises:
            Unprocessable: its proof is too long to be one.
        """
        view = _Cursor(self._data, self._read)
        while len(self._entries) < count:
            if (entry := view.prefixed()) is None:
                return None
            self._entries.append(entry)
            self._read = view.position
        if (size := view.take(1)) is None:
            return None
        if size[0] > MAX_PROOF_HASHES:
            raise Unprocessable(f"a proof of {size[0]} hashes, the limit is {MAX_PROOF_HASHES}")
        if (hashes := view.take(size[0] * HASH_SIZE)) is None:
            return None
        package = Package(tuple(self._entries), split_hashes(hashes))
        del self._data[: view.position]
        self._read = 0
        self._entries = []
        return package


def split_hashes(hashes: bytes) -> tuple[bytes, ...]:
    """Concatenated hashes, apart."""
    return tuple(hashes[i : i + HASH_SIZE] for i in range(0, len(hashes), HASH_SIZE))


def encode_upload(upload: Upload, packages: Sequence[Package]) -> bytes:
    """A whole body, of a prefix of the canonical sequence."""
    return upload.encode() + b"".join(package.encode() for package in packages)


class _Cursor:
    """Reads on in a buffer; None when it does not hold as much."""

    def __init__(self, data: bytearray, position: int = 0) -> None:
        self._data = data
        self.position = position

    def take(self, size: int) -> bytes | None:
        end = self.position + size
        if end > len(self._data):
            return None
        taken = bytes(self._data[self.position : end])
        self.position = end
        return taken

    def prefixed(self) -> bytes | None:
        """What a u16 length stands before; nothing is read unless it is all there."""
        before = self.position
        if (size := self.take(_U16.size)) is None:
            return None
        if (taken := self.take(_U16.unpack(size)[0])) is None:
            self.position = before
        return taken
