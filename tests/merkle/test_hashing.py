"""Hashing: the reference tree of Certificate Transparency, and backends that must agree."""

import hashlib
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.merkle.trees import leaf, leaves, mth, node
from tlog.merkle import (
    BACKEND,
    EMPTY_ROOT,
    MerkleError,
    RightEdge,
    hashing,
    leaf_hash,
    leaf_hashes,
    node_hash,
    node_hashes,
)

STRINGZILLA = hashing._load_stringzilla()
BATCHES = {"hashlib": hashing._hashlib_batch} | (
    {"stringzilla": STRINGZILLA} if STRINGZILLA else {}
)
LENGTHS = [0, 1, 54, 55, 56, 57, 62, 63, 64, 65, 118, 119, 120, 127, 128, 256, 4096, 65534, 65535]


@pytest.fixture(params=BATCHES)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_batch", BATCHES[request.param])
        yield request.param


def test_empty_root() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert RightEdge().root() == EMPTY_ROOT


def test_leaf_and_node_are_apart() -> None:
    left, right = leaf(b"l"), leaf(b"r")
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"l") == left
    assert node_hash(left, right) == node(left, right)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 15, 16, 17, 33])
def test_leaf_batches_agree_with_hashlib(backend: str, length: int, count: int) -> None:
    entries = [bytes([number]) * length for number in range(count)]
    assert leaf_hashes(entries) == b"".join(map(leaf, entries))


def test_leaf_batch_of_all_lengths(backend: str) -> None:
    entries = [bytes([length % 256]) * length for length in LENGTHS * 3]
    assert leaf_hashes(entries) == b"".join(map(leaf, entries))
    assert leaf_hashes(tuple(entries)) == leaf_hashes(entries)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 128, 129, 2048])
def test_node_batches_agree_with_hashlib(backend: str, count: int) -> None:
    children = b"".join(leaves(2 * count))
    expected = [
        node(children[at : at + 32], children[at + 32 : at + 64])
        for at in range(0, len(children), 64)
    ]
    assert node_hashes(children) == b"".join(expected)


@given(entries=st.lists(st.binary(max_size=300), max_size=40))
def test_backends_agree(entries: list[bytes]) -> None:
    for batch in BATCHES.values():
        assert batch(entries) == b"".join(hashlib.sha256(e).digest() for e in entries)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 65, 96])
def test_node_hashes_want_pairs(length: int) -> None:
    with pytest.raises(MerkleError, match="multiple of 64"):
        node_hashes(bytes(length))


@pytest.mark.parametrize("count", range(1, 130))
def test_fold_is_mth(count: int, backend: str) -> None:
    assert hashing.fold(b"".join(leaves(count))) == mth(leaves(count))


class TestChoice:
    """A batch function that is not SHA-256 on every batch of the self-check is not used."""

    def test_a_true_one_passes(self) -> None:
        assert hashing._agrees_with_hashlib(hashing._hashlib_batch)

    def test_the_one_in_use_says_its_name(self) -> None:
        assert hashing._choose()[0] == BACKEND
        assert ("stringzilla" in BATCHES) == (BACKEND == "stringzilla")

    def test_wrong_in_one_lane(self) -> None:
        def batch(messages: list[bytes]) -> bytes:
            good = hashing._hashlib_batch(messages)
            return good[:-32] + bytes(32) if len(messages) > 16 else good

        assert not hashing._agrees_with_hashlib(batch)

    @pytest.mark.parametrize("length", [0, 55, 56, 63, 64, 65, 119, 120, 65535, 65536])
    def test_wrong_at_one_length(self, length: int) -> None:
        def batch(messages: list[bytes]) -> bytes:
            return b"".join(
                bytes(32) if len(message) == length else hashlib.sha256(message).digest()
                for message in messages
            )

        assert not hashing._agrees_with_hashlib(batch)

    def test_lanes_swapped(self) -> None:
        assert not hashing._agrees_with_hashlib(lambda ms: hashing._hashlib_batch(ms[::-1]))

    def test_raising(self) -> None:
        def batch(messages: list[bytes]) -> bytes:
            raise RuntimeError

        assert not hashing._agrees_with_hashlib(batch)

    def test_hashlib_without_stringzilla(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "stringzilla", None)
        assert hashing._choose() == ("hashlib", hashing._hashlib_batch)

    def test_hashlib_when_the_self_check_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hashing, "_load_stringzilla", lambda: lambda messages: b"")
        assert hashing._choose() == ("hashlib", hashing._hashlib_batch)
