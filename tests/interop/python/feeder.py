"""Feeds a log of aics-tlog to a witness, with the client of aics-witness.

Runs under the Python of the peers.

One question as JSON on standard input, one answer on standard output.
"""

import json
import sys
from base64 import b64decode, b64encode

from aics_tlog import Checkpoint, MerkleTree, parse_vkey, sign_checkpoint
from aics_witness.feeder import WitnessClient, WitnessRejected, merge_cosignatures
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def main():
    asked = json.load(sys.stdin)
    key = Ed25519PrivateKey.from_private_bytes(b64decode(asked["seed"]))
    tree = MerkleTree([entry.encode() for entry in asked["entries"]])
    answers = []
    with WitnessClient(asked["url"], parse_vkey(asked["witness"])) as client:
        for size in asked["sizes"]:
            head = Checkpoint(asked["origin"], size, tree.root(size))
            note = sign_checkpoint(head, key, asked["origin"]).to_bytes()
            try:
                lines = client.submit(note, tree.consistency_proof)
            except WitnessRejected as error:
                answers.append(error.status)
            else:
                answers.append(b64encode(merge_cosignatures(note, lines)).decode())
            if asked["forget"]:  # the witness must tell where it is
                client.known_sizes.clear()
    json.dump(answers, sys.stdout)


main()
