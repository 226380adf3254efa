"""The Merkle tree of RFC 6962 and RFC 9162 as pure functions: no I/O, no clock."""
