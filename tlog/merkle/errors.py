"""The errors of the room. Everything it refuses, it refuses with one of these two."""


class MerkleError(Exception):
    """A value outside the bounds of the Merkle tree: a size, a tile path, a bundle, an entry."""


class ProofError(MerkleError, ValueError):
    """A proof, or a stored tile behind one, that does not hold. Never retry: it is evidence."""
