"""A request by the Data Rights Protocol, as an agent sends it: base64 of its signature and JSON."""

from __future__ import annotations

import base64
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_AGENT = Ed25519PrivateKey.from_private_bytes(b"the key of an agent, in tests!!!")


def drp_request() -> bytes:
    """What is posted; the spaces, and the order of names, are the agent's own."""
    body = {
        "agent-id": "helper",
        "business-id": "acme",
        "issued-at": "2026-01-31T17:30:00.000Z",
        "exercise": "deletion",
        "regime": "ccpa",
        "name": "Alice \u00c9mile",
        "agent-request-id": "H-7",
    }
    said = json.dumps(body, ensure_ascii=False, indent=3).encode()
    return base64.b64encode(_AGENT.sign(said) + said)


def verify_drp(document: bytes) -> str:
    """Who is named in it. Raises InvalidSignature."""
    signed = base64.b64decode(document, validate=True)
    _AGENT.public_key().verify(signed[:64], signed[64:])
    return str(json.loads(signed[64:])["name"])
