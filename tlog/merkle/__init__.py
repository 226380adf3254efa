"""The Merkle tree of RFC 6962 and RFC 9162 as pure functions: no I/O, no clock.

hashing: leaf and node hashes, singly and in batches. tree: compact ranges, and the right edge
that appends extend. tiles: the geometry, paths and entry bundles of tlog-tiles. proofs: the
ranges and hashes of inclusion, consistency and subtree consistency proofs, from any NodeReader;
reader: the one over tiles. source: the port to a log kept elsewhere. verify: what believes none
of the above. Whoever appends needs RightEdge; whoever proves needs TileNodeReader; whoever checks
needs verify alone.
"""

from tlog.merkle.errors import MerkleError, ProofError
from tlog.merkle.hashing import (
    BACKEND,
    EMPTY_ROOT,
    HASH_SIZE,
    join_peaks,
    leaf_hash,
    leaf_hashes,
    node_hash,
    node_hashes,
)
from tlog.merkle.proofs import (
    NodeReader,
    consistency_proof,
    consistency_ranges,
    inclusion_proof,
    inclusion_ranges,
    is_subtree,
    subtree_consistency_proof,
    subtree_consistency_ranges,
)
from tlog.merkle.reader import (
    TileCache,
    TileNodeReader,
    consistency_tiles,
    subtree_consistency_tiles,
)
from tlog.merkle.source import SourceDamaged, SourceError, SourceMissing, TileSource
from tlog.merkle.tiles import (
    MAX_ENTRY_SIZE,
    MAX_TREE_SIZE,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    bundle_entry,
    encode_bundle,
    entries_path,
    expand,
    parse_entries_path,
    parse_tile_path,
    partial_width,
    split_bundle,
    tile_path,
    tiles_of,
)
from tlog.merkle.tree import CompactRange, Node, RightEdge, decompose
from tlog.merkle.verify import (
    root_from_inclusion,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
)

__all__ = [
    "BACKEND",
    "EMPTY_ROOT",
    "HASH_SIZE",
    "MAX_ENTRY_SIZE",
    "MAX_TREE_SIZE",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "CompactRange",
    "MerkleError",
    "Node",
    "NodeReader",
    "ProofError",
    "RightEdge",
    "SourceDamaged",
    "SourceError",
    "SourceMissing",
    "Tile",
    "TileCache",
    "TileNodeReader",
    "TileSource",
    "bundle_entry",
    "consistency_proof",
    "consistency_ranges",
    "consistency_tiles",
    "decompose",
    "encode_bundle",
    "entries_path",
    "expand",
    "inclusion_proof",
    "inclusion_ranges",
    "is_subtree",
    "join_peaks",
    "leaf_hash",
    "leaf_hashes",
    "node_hash",
    "node_hashes",
    "parse_entries_path",
    "parse_tile_path",
    "partial_width",
    "root_from_inclusion",
    "split_bundle",
    "subtree_consistency_proof",
    "subtree_consistency_ranges",
    "subtree_consistency_tiles",
    "tile_path",
    "tiles_of",
    "verify_consistency",
    "verify_inclusion",
    "verify_subtree_consistency",
]
