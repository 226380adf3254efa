"""Evidence packages with a little of everything, for the fuzzer: keys whose seeds are public."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.audit.producer import EVENT_ID, SHOP, TENANT, received, signed, signer_of
from tests.fuzz.keys import LOG, POLICY
from tests.merkle import trees
from tlog.audit import Draft
from tlog.audit.evidence import Contents, Gone, Item, StampItem, Why
from tlog.audit.evidence_file import encode_package
from tlog.audit.leaf import Leaf, encode_leaf
from tlog.audit.sdjwt import split
from tlog.merkle import leaf_hash
from tlog.notes import Checkpoint, Signer, TlogProof, sign_checkpoint

NOW = datetime(2026, 1, 31, 17, 30, tzinfo=UTC)
SERVICE = signer_of("log", 9)


def _events() -> list[tuple[Why, Draft, Signer, int]]:
    about = {"about_producer": "shop", "vkey": str(SHOP.vkey), "roles": ["recorder"]}
    erased = {"key_id": "00", "key_sha256": "00" * 32, "request_id": "R-1"}
    values: dict[str, Any] = {"occurred_at": NOW, "event_id": EVENT_ID}
    return [
        (Why.KEY, Draft("producer.registered", about, {}, **values), SERVICE, 1),
        (Why.CHOSEN, received(**values), SHOP, 1),
        (Why.GONE, Draft("subject.key_destroyed", erased, {}, **values), SERVICE, 2),
    ]


def _contents() -> Contents:
    events = [(why, *split(signed(draft, seq, key))) for why, draft, key, seq in _events()]
    leaves = [encode_leaf(Leaf(jws, NOW, ())) for _, jws, _ in events]
    hashes = [leaf_hash(leaf) for leaf in leaves]
    head = Checkpoint(LOG.origin, len(leaves), trees.mth(hashes))
    note = sign_checkpoint(head, LOG.signers, timestamp=1)
    items = []
    for index, (why, _, encoded) in enumerate(events):
        proof = TlogProof(index, tuple(trees.path(index, hashes)), note).encode()
        item = Item(index, why, leaves[index], proof)
        if why is Why.CHOSEN:
            item = replace(item, disclosed=encoded[:1], gone=[None, Gone(2, "R-1")])
        items.append(item)
    return Contents(
        origin=LOG.origin,
        tenant=TENANT,
        tree_size=len(leaves),
        service=SERVICE.vkey,
        request_id="R-1",
        checkpoint=note,
        policy=POLICY,
        items=items,
        stamps=(),
        certificates={},
    )


PACKAGE = encode_package(_contents())
"""It verifies."""
_STAMP = StampItem("one", 3, LOG.note(3), b"0\x00", tuple(LOG.proof(3, 7)))
STAMPED = encode_package(replace(_contents(), stamps=[_STAMP], certificates={"one": b"none"}))
"""It is well-formed."""
