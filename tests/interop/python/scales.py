"""Reads a log with tlog-scales and judges its proofs. Runs under the Python of the peers.

One question as JSON on standard input, one answer on standard output.
"""

import json
import sys
from base64 import b64decode, b64encode

from tlog_scales.backend import make_backend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey, VkeySet
from tlog_scales.tiles import leaf_hash
from tlog_scales.tlog import (
    ConsistencyProof,
    ConsistencyProofInvalid,
    InclusionProof,
    InclusionProofInvalid,
)


def encoded(hashes):
    return [b64encode(item).decode() for item in hashes]


def decoded(items):
    return [b64decode(item) for item in items]


def main():
    asked = json.load(sys.stdin)
    reader = TilesReader(make_backend(asked["url"]))
    head = reader.get_checkpoint()
    signed = VkeySet(*map(Vkey.from_string, asked["vkeys"])).verify(head.signatures, head)
    found = {
        "size": head.size,
        "signed_by": sorted(vkey.serialize() for vkey, _ in signed),
        "root": b64encode(reader.calculate_root_hash()).decode(),
        "entries": [],
        "inclusion": [],
        "consistency": [],
        "judged": [],
    }
    for index in asked["indices"]:
        entry = reader.get_entry(index)
        proof = reader.get_inclusion_proof(index, head.size)
        proof.check(leaf_hash(entry), head.root_hash)
        found["entries"].append(b64encode(entry).decode())
        found["inclusion"].append(encoded(proof.node_hashes))
    for size in asked["sizes"]:
        proof = reader.get_consistency_proof(size, head.size)
        proof.check(reader.mth(0, size), head.root_hash)
        found["consistency"].append(encoded(proof.node_hashes))
    for kind, number, hashes in asked["judge"]:
        try:
            if kind == "inclusion":
                leaf = leaf_hash(reader.get_entry(number))
                proof = InclusionProof(number, head.size, decoded(hashes))
                proof.check(leaf, head.root_hash)
            else:
                proof = ConsistencyProof(number, head.size, decoded(hashes))
                proof.check(reader.mth(0, number), head.root_hash)
            found["judged"].append(True)
        except (InclusionProofInvalid, ConsistencyProofInvalid):
            found["judged"].append(False)
    json.dump(found, sys.stdout)


main()
