"""pymerkle, an implementation that shares no line with ours, as the second opinion."""

import random
from functools import cache

import pytest
from pymerkle import ConsistencyProof, InmemoryTree
from pymerkle.core import _inclusion_path_layout

from tests.merkle.trees import entry, leaves, row
from tlog.merkle import (
    CompactRange,
    RightEdge,
    TileCache,
    TileNodeReader,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
)

LARGE = 100_000


@cache
def oracle(size: int) -> InmemoryTree:
    return InmemoryTree.init_from_entries([entry(index) for index in range(size)])


@cache
def reader(size: int) -> TileNodeReader:
    tiles = dict(RightEdge().extend(row(size))[1])
    return TileNodeReader(TileCache(tiles.__getitem__), size)


def in_pymerkle(old: int, new: int, proof: list[bytes], old_root: bytes) -> ConsistencyProof:
    """An RFC 9162 consistency proof as a path of pymerkle's.

    Its rule is that of the old tree's last leaf, less the levels below the first hash. The old
    root is made of that hash and those joined from the left.
    """
    path = [old_root, *proof] if old == new or not old & (old - 1) else proof
    rule = _inclusion_path_layout(old, new)[0][-len(path) :]
    subset = [1, *rule[: len(path) - 1]]
    return ConsistencyProof("sha256", True, new, old, rule, subset, path)


def check_inclusion(index: int, size: int, tree: InmemoryTree, ours: TileNodeReader) -> None:
    theirs = tree.prove_inclusion(index + 1, size).path
    assert [leaves(size)[index], *inclusion_proof(index, size, ours)] == theirs


def check_consistency(old: int, new: int, tree: InmemoryTree, ours: TileNodeReader) -> None:
    proof = consistency_proof(old, new, ours)
    old_root, new_root = tree.get_root(old), tree.get_root(new)
    verify_consistency(
        old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=proof
    )
    theirs = in_pymerkle(old, new, proof, old_root)
    assert theirs.compute_root() == new_root
    assert theirs.retrieve_prior_state() == old_root


@pytest.mark.parametrize("block", range(0, 300, 25))
def test_every_size_up_to_300(block: int) -> None:
    tree, ours = oracle(300), reader(300)
    choose = random.Random(block)
    for size in range(block + 1, block + 26):
        assert RightEdge().extend(row(300)[: size * 32])[0].root() == tree.get_root(size)
        some = range(size) if size <= 70 else {0, size - 1, *choose.sample(range(size), 25)}
        for index in some:
            check_inclusion(index, size, tree, ours)
            check_consistency(index + 1, size, tree, ours)


def test_compact_range_at_every_size() -> None:
    compact = CompactRange()
    for size, leaf_hash in enumerate(leaves(300), 1):
        compact.append(leaf_hash)
        assert compact.root() == oracle(300).get_root(size)


@pytest.mark.parametrize("seed", range(6))
def test_random_sizes_up_to_100000(seed: int) -> None:
    tree, ours = oracle(LARGE), reader(LARGE)
    choose = random.Random(seed)
    size = choose.randint(301, LARGE)
    assert RightEdge().extend(row(LARGE)[: size * 32])[0].root() == tree.get_root(size)
    for _ in range(20):
        check_inclusion(choose.randrange(size), size, tree, ours)
        check_consistency(choose.randint(1, size), size, tree, ours)
