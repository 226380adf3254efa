"""Bodies of add-entries: written, cut into pieces, damaged, and read."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mirror.support import LOG
from tlog.mirror import (
    MirrorInfo,
    Package,
    PackageRange,
    Upload,
    UploadParser,
    canonical_sequence,
    encode_upload,
)
from tlog.witness import BadRequest, Unprocessable

SIZES = st.integers(0, 5000) | st.integers(0, (1 << 63) - 1)
HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple)
ENTRIES = st.lists(st.binary(max_size=300) | st.just(b"x" * 65535), max_size=6).map(tuple)
PACKAGES = st.lists(st.builds(Package, ENTRIES, HASHES), max_size=4)
UPLOADS = st.builds(
    lambda origin, bounds, ticket: Upload(origin, min(bounds), max(bounds), ticket),
    st.binary(max_size=300),
    st.tuples(SIZES, SIZES),
    st.binary(max_size=300) | st.just(b"t" * 65535),
)


def read(pieces: list[bytes], counts: list[int]) -> tuple[Upload | None, list[Package]]:
    """All that is whole in a body that arrives in these pieces."""
    parser = UploadParser()
    upload: Upload | None = None
    packages: list[Package] = []
    for piece in pieces:
        parser.feed(piece)
        upload = upload or parser.head()
        while upload and len(packages) < len(counts):
            if (package := parser.package(counts[len(packages)])) is None:
                break
            packages.append(package)
    return upload, packages


def cut(body: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(body) + 1) for place in places} | {len(body)})
    return [body[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@given(UPLOADS, PACKAGES, st.lists(st.integers(0, 1 << 20), max_size=12))
def test_what_was_written_is_read_however_it_arrives(
    upload: Upload, packages: list[Package], places: list[int]
) -> None:
    pieces = cut(encode_upload(upload, packages), places)
    counts = [len(package.entries) for package in packages]
    assert read(pieces, counts) == (upload, packages)


@given(st.integers(0, 1 << 20), st.integers(1, 700))
def test_what_is_cut_off_is_not_read(end: int, step: int) -> None:
    packages = LOG.packages(600, 900)
    head = Upload(b"origin", 600, 900, b"ticket")
    body = encode_upload(head, packages)
    end %= len(body)
    pieces = [body[i : min(i + step, end)] for i in range(0, end, step)]
    upload, whole = read(pieces, [168, 132])
    first = len(head.encode()) + len(packages[0].encode())
    assert upload == (head if end >= len(head.encode()) else None)
    assert whole == packages[: 1 if end >= first else 0]


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_the_canonical_sequence_is_that_of_the_specification(first: int, second: int) -> None:
    start, end = min(first, second), max(first, second)
    # Its sentences, one by one.
    rounded_start, rounded_end = start // 256 * 256, -(-end // 256) * 256
    count = (rounded_end - rounded_start) // 256 if start < end else 0
    expected = [
        PackageRange(
            rounded_start + i * 256,
            max(start, rounded_start + i * 256),
            min(end, rounded_start + (i + 1) * 256),
        )
        for i in range(count)
    ]
    assert list(canonical_sequence(start, end)) == expected


def test_the_largest_range_costs_nothing() -> None:
    sequence = canonical_sequence(0, (1 << 63) - 1)
    assert next(sequence) == PackageRange(0, 0, 256)
    last = (1 << 63) - 1
    assert list(canonical_sequence(last - 1, last)) == [PackageRange(last - 255, last - 1, last)]


@pytest.mark.parametrize(
    ("start", "end"), [(1, 0), (0, 1 << 63), ((1 << 64) - 1, (1 << 64) - 1), (1 << 63, 1)]
)
def test_ranges_that_are_none(start: int, end: int) -> None:
    parser = UploadParser()
    parser.feed(pack(">H", 1) + b"o" + pack(">QQ", start, end) + pack(">H", 0))
    with pytest.raises(BadRequest, match="start <= end"):
        parser.head()


@given(st.integers(64, 255))
def test_a_proof_that_is_too_long_is_refused_before_it_arrives(count: int) -> None:
    parser = UploadParser()
    parser.feed(pack(">H", 1) + b"e" + bytes([count]))
    with pytest.raises(Unprocessable, match="63"):
        parser.package(1)


def test_many_pieces_cost_their_length() -> None:
    # Byte by byte: what was read of a package is not read again.
    package = LOG.packages(0, 900)[0]
    parser = UploadParser()
    for byte in package.encode():
        assert (found := parser.package(256)) is None
        parser.feed(bytes([byte]))
    found = parser.package(256)
    assert found == package


@given(SIZES, SIZES, st.binary(max_size=100))
def test_the_answer_has_three_lines(size: int, next_entry: int, ticket: bytes) -> None:
    lines = MirrorInfo(size, next_entry, ticket).encode().split(b"\n")
    assert lines[:2] == [b"%d" % size, b"%d" % next_entry]
    assert len(lines) == 4
    assert lines[3] == b""
