"""An evidence package with a little of everything, for the fuzzer: well-formed, and no more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.audit.producer import EVENT_ID, SHOP, TENANT, received, signed, signer_of
from tests.fuzz.keys import LOG, POLICY
from tlog.audit import Draft
from tlog.audit.evidence import Contents, Gone, Item, StampItem, Why
from tlog.audit.evidence_file import encode_package
from tlog.audit.leaf import Leaf, encode_leaf
from tlog.audit.sdjwt import split
from tlog.notes import Signer, TlogProof

_NOW = datetime(2026, 1, 31, 17, 30, tzinfo=UTC)
_SERVICE = signer_of("log", 9)


def _item(index: int, why: Why, draft: Draft, signer: Signer) -> Item:
    jws, encoded = split(signed(draft, signer=signer))
    leaf = encode_leaf(Leaf(jws, _NOW, ()))
    proof = TlogProof(index, tuple(LOG.proof(3, 7)), LOG.note(7)).encode()
    if why is not Why.CHOSEN:
        return Item(index, why, leaf, proof)
    gone = [None, Gone(2, "R-1"), None][: 1 + len(draft.subjects)]
    return Item(index, why, leaf, proof, encoded[:1], gone)


def _package() -> bytes:
    about = {"about_producer": "shop", "vkey": str(SHOP.vkey), "roles": ["recorder"]}
    erased = {"key_id": "00", "key_sha256": "00" * 32, "request_id": "R-1"}
    values: dict[str, Any] = {"occurred_at": _NOW, "event_id": EVENT_ID}
    return encode_package(
        Contents(
            origin=LOG.origin,
            tenant=TENANT,
            tree_size=7,
            service=_SERVICE.vkey,
            request_id="R-1",
            checkpoint=LOG.note(7),
            policy=POLICY,
            items=[
                _item(0, Why.KEY, Draft("producer.registered", about, {}, **values), _SERVICE),
                _item(1, Why.CHOSEN, received(**values), SHOP),
                _item(2, Why.GONE, Draft("subject.key_destroyed", erased, {}, **values), _SERVICE),
            ],
            stamps=[StampItem("one", 3, LOG.note(3), b"0\x00", tuple(LOG.proof(3, 7)))],
            certificates={"one": b"none"},
        )
    )


PACKAGE = _package()
