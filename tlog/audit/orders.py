"""Orders: what two approvers sign before what must not be one person's to do.

A key is destroyed, a hold placed or released, an approver registered or given another key.

An order is an SD-JWT in the general JSON serialization (RFC 9901, section 8; RFC 7515, 7.2.1), with
a signature of each approver over the same payload, which is canonical JSON:

    {"payload": …, "signatures": [
      {"header": {"disclosures": [<the subject>]}, "protected": …, "signature": …},
      {"protected": …, "signature": …}]}

The payload of one about a subject holds a salted digest of it, which the disclosure opens. What
the record of an order keeps is the document without the disclosure (`kept`): so both signatures can
be verified for ever, and it names no subject. Whoever approves reads the same bytes that are
carried out; no trust in what carried them is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from tlog.audit import sdjwt
from tlog.audit.catalogue import Catalogue
from tlog.audit.claims import check_identifier
from tlog.audit.codec import decode_base64url, dump_json, encode_base64url, load_json
from tlog.audit.errors import EventRefused, OrderRefused
from tlog.audit.event import new_event_id
from tlog.audit.jws import parse_jws, sign_jws, verify_jws
from tlog.audit.personal import find_personal
from tlog.audit.producers import APPROVER, MAX_AHEAD, Registry
from tlog.audit.times import format_time, parse_time
from tlog.notes import Signer

TYPE: Final = "tlog-order+sd-jwt"
"""`typ` of the header: no signature over an event is one over an order."""
APPROVALS: Final = 2
MAX_DOCUMENT_SIZE: Final = 16 * 1024
MAX_LIFETIME: Final = timedelta(days=31)
"""An order that nobody carried out in this time is signed anew."""

_ALWAYS: Final = frozenset({"expires_at", "kind", "made_at", "order_id", "reason", "tenant"})


class Kind(StrEnum):
    """What an order orders."""

    ERASE = "erase"
    PLACE = "hold.place"
    RELEASE = "hold.release"
    REGISTER = "approver.register"
    ROTATE = "approver.rotate"


_APPROVERS: Final = (Kind.REGISTER, Kind.ROTATE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant's settings say of orders.

    Attributes:
        erasures_per_hour: more are refused, and raised: whoever destroys everything is slow.
        backup_days: after which no copy of the vault is kept; until then it may hold the key.
    """

    erasures_per_hour: int = 100
    backup_days: int = 30


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Order:
    """What an order says.

    Attributes:
        order_id: a UUID of version 7; the id of the event that records it.
        subject: whose key is destroyed, or who is held; empty if nobody, or not disclosed.
        request_id: why a key is destroyed, or which request is held.
        hold_id: which hold is placed or released.
        vkey: the key of an approver who is registered, or that an approver gets.
        old_vkey: the key that ends with that.
        made_at: not before this.
        expires_at: not from this on.
    """

    kind: Kind
    tenant: str
    order_id: str
    reason: str
    made_at: datetime
    expires_at: datetime
    subject: str = ""
    request_id: str = ""
    hold_id: str = ""
    vkey: str = ""
    old_vkey: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """An order as it travels, taken apart; nothing in it is verified.

    Attributes:
        payload: what is signed.
        disclosure: of the subject; empty if there is none.
        signatures: compact JWS, one for each approver.
    """

    payload: bytes
    disclosure: str
    signatures: Sequence[str] = ()

    @property
    def digest(self) -> bytes:
        """Two orders are the same if this is."""
        return sha256(self.payload).digest()

    def approved(self, signer: Signer) -> Document:
        """With the signature of one more approver.

        Raises:
            OrderRefused: it has two, or one of this name.
        """
        names = [_name(signed) for signed in self.signatures]
        if len(names) >= APPROVALS:
            raise OrderRefused(f"it is signed by {' and '.join(names)}: submit it")
        if signer.vkey.name in names:
            raise OrderRefused(f"{signer.vkey.name} has signed it: it needs somebody else")
        signed = sign_jws(signer, self.payload, typ=TYPE)
        return replace(self, signatures=(*self.signatures, signed))

    def encode(self) -> bytes:
        """As it travels, one line."""
        return dump_json(self._made(self.disclosure)) + b"\n"

    def kept(self) -> str:
        """As its record keeps it: without what names the subject."""
        return dump_json(self._made("")).decode("ascii")

    def _made(self, disclosure: str) -> dict[str, Any]:
        signatures: list[dict[str, Any]] = []
        for signed in self.signatures:
            protected, _, signature = signed.split(".")
            signatures.append({"protected": protected, "signature": signature})
        # RFC 9901, section 8.1: the disclosures "MUST be included in the first" of the headers.
        if disclosure:
            signatures[0]["header"] = {"disclosures": [disclosure]}
        return {"payload": encode_base64url(self.payload), "signatures": signatures}


def new_order(
    kind: Kind,
    *,
    tenant: str,
    reason: str,
    now: datetime,
    lifetime: timedelta,
    subject: str = "",
    **scope: str,
) -> Document:
    """An order that nobody has signed.

    Args:
        kind: what it orders.
        tenant: in whose log.
        reason: why; it is public.
        now: not before this.
        lifetime: how long it may be carried out from then on.
        subject: whom it is about, if it is about somebody.
        scope: what else it is about, named as in `Order`; what is empty is left out.

    Raises:
        OrderRefused, EventRefused: the field that is wrong.
    """
    made: dict[str, Any] = {
        "kind": kind.value,
        "tenant": tenant,
        "order_id": new_event_id(now.timestamp()),
        "reason": reason,
        "made_at": format_time(now),
        "expires_at": format_time(now + lifetime),
    }
    made |= {name: value for name, value in scope.items() if value}
    disclosure = ""
    if subject:
        disclosed = sdjwt.disclose("subject", subject)
        disclosure = disclosed.encoded
        made |= {"_sd": [disclosed.digest], "_sd_alg": sdjwt.SD_ALG}
    try:
        return Document(dump_json(made), disclosure)
    except ValueError as error:
        raise OrderRefused(f"it cannot be written as JSON: {error}") from None


def parse_document(data: bytes) -> Document:
    """Take an order apart.

    Raises:
        OrderRefused, EventRefused: it is none; the field that is wrong.
    """
    if len(data) > MAX_DOCUMENT_SIZE:
        raise OrderRefused(f"over {MAX_DOCUMENT_SIZE} bytes", field="order")
    made = load_json(data, field="order")
    if type(made) is not dict or made.keys() != {"payload", "signatures"}:
        raise OrderRefused("no order: payload and signatures", field="order")
    payload, signatures = made["payload"], made["signatures"]
    if type(payload) is not str or not payload:
        raise OrderRefused("base64url", field="payload")
    if type(signatures) is not list or not 1 <= len(signatures) <= APPROVALS:
        raise OrderRefused(f"a list of 1 or {APPROVALS} signatures", field="signatures")
    decoded = decode_base64url(payload, field="payload")
    if encode_base64url(decoded) != payload:
        raise OrderRefused("not canonical base64url: spare bits are set", field="payload")
    disclosure, compact = "", []
    for i, each in enumerate(signatures):
        where = f"signatures[{i}]"
        rest = dict(each) if type(each) is dict else {}
        header = rest.pop("header", None)
        if rest.keys() != {"protected", "signature"} or not all(
            type(value) is str for value in rest.values()
        ):
            raise OrderRefused("protected and signature, two strings", field=where)
        if header is not None:
            if i:
                raise OrderRefused("only the first has disclosures", field=f"{where}.header")
            disclosure = _disclosure(header, f"{where}.header")
        signed = f"{rest['protected']}.{payload}.{rest['signature']}"
        parse_jws(signed, typ=TYPE)
        compact.append(signed)
    return Document(decoded, disclosure, tuple(compact))


def _disclosure(header: Any, field: str) -> str:
    listed = header.get("disclosures") if type(header) is dict and len(header) == 1 else None
    if type(listed) is not list or len(listed) != 1 or type(listed[0]) is not str:
        raise OrderRefused("holds one disclosure, of the subject", field=field)
    return str(listed[0])


def read_order(document: Document, catalogue: Catalogue) -> Order:
    """What an order says; its signatures are not verified.

    Raises:
        OrderRefused, EventRefused: the field that is wrong.
    """
    made = load_json(document.payload, field="payload")
    if type(made) is not dict or not _is_canonical(made, document.payload):
        raise OrderRefused("an object in canonical form: names sorted, no space", field="payload")
    try:
        kind = Kind(made.get("kind", ""))
    except ValueError:
        raise OrderRefused(f"one of {', '.join(Kind)}", field="kind") from None
    names = set(made) - {"_sd", "_sd_alg"}
    if wrong := (_ALWAYS | _scope(kind, made)) ^ names:
        what = "an order of this kind has no such thing" if min(wrong) in names else "it is missing"
        raise OrderRefused(what, field=f"{min(wrong):.80}")
    for name in sorted(names - {"kind", "made_at", "expires_at"}):
        claim = catalogue.claims["event_id" if name == "order_id" else name]
        # All of it will stand in the clear, for ever.
        if (text := claim.check(name, made[name]) if claim.check else "") and (
            found := find_personal(text)
        ):
            raise OrderRefused(
                f"it seems to hold {found}, and the record of an order is public for ever: keep "
                "it out",
                field=name,
            )
    made_at, expires_at = _time(made, "made_at"), _time(made, "expires_at")
    if not timedelta() < expires_at - made_at <= MAX_LIFETIME:
        raise OrderRefused(f"within {MAX_LIFETIME.days} days after made_at", field="expires_at")
    return Order(
        kind,
        made["tenant"],
        made["order_id"],
        made["reason"],
        made_at,
        expires_at,
        subject=_subject(document, made),
        request_id=made.get("request_id", ""),
        hold_id=made.get("hold_id", ""),
        vkey=made.get("vkey", ""),
        old_vkey=made.get("old_vkey", ""),
    )


def _is_canonical(made: Mapping[str, Any], data: bytes) -> bool:
    try:
        return dump_json(made) == data
    except ValueError:  # half of a surrogate pair
        return False


def _scope(kind: Kind, made: Mapping[str, Any]) -> set[str]:
    """Which claims say what it is about."""
    if (about := "_sd" in made) is not ("_sd_alg" in made):
        raise OrderRefused("stands beside `_sd`, and only there", field="_sd_alg")
    if kind is Kind.ERASE:
        if not about:
            raise OrderRefused("whose key? Its salted digest is missing", field="subject")
        return {"request_id"}
    if kind is Kind.RELEASE:
        if about:
            raise OrderRefused("the hold says whom it holds", field="subject")
        return {"hold_id"}
    if kind in _APPROVERS:
        if about:
            raise OrderRefused("an approver is named by the key", field="subject")
        return {"vkey"} if kind is Kind.REGISTER else {"vkey", "old_vkey"}
    if about is ("request_id" in made):
        raise OrderRefused("holds either a subject or a request", field="subject")
    return {"hold_id"} if about else {"hold_id", "request_id"}


def _time(made: Mapping[str, Any], name: str) -> datetime:
    if type(made[name]) is not str:
        raise OrderRefused("a string with a time of RFC 3339", field=name)
    return parse_time(made[name], field=name)


def _subject(document: Document, made: Mapping[str, Any]) -> str:
    if "_sd" not in made:
        if document.disclosure:
            raise OrderRefused("it matches no digest", field="subject")
        return ""
    if made["_sd_alg"] != sdjwt.SD_ALG:
        raise OrderRefused(f"only {sdjwt.SD_ALG}", field="_sd_alg")
    listed = sdjwt.check_digests(made["_sd"], field="_sd")
    if len(listed) != 1:
        raise OrderRefused("one digest, of the subject", field="_sd")
    if not document.disclosure:
        return ""
    try:
        ((disclosed,),) = sdjwt.match([document.disclosure], [({}, listed)])
    except EventRefused as refusal:
        raise OrderRefused(f"not the one that was signed: {refusal}", field="subject") from None
    if disclosed.name != "subject":
        raise OrderRefused("the digest is that of something else", field="subject")
    check_identifier("subject", disclosed.value)
    return str(disclosed.value)


def check_order(
    document: Document, order: Order, registry: Registry, *, tenant: str, now: datetime
) -> list[str]:
    """Check that an order may be carried out now, here: by its signatures, tenant and times.

    Returns:
        The names of those who approved it.

    Raises:
        OrderRefused, EventRefused: the field that is wrong.
    """
    if order.tenant != tenant:
        raise OrderRefused(f"this is the log of {tenant}", field="tenant")
    if order.made_at > now + MAX_AHEAD:
        raise OrderRefused(f"it is {format_time(now)} here", field="made_at")
    if now >= order.expires_at:
        raise OrderRefused("it has expired: make and sign it anew", field="expires_at")
    if len(document.signatures) != APPROVALS:
        raise OrderRefused(
            f"{APPROVALS} approvers sign an order, this has one: tlog approve", field="signatures"
        )
    approvers: dict[str, bytes] = {}
    for i, text in enumerate(document.signatures):
        signed = parse_jws(text, typ=TYPE)
        try:
            key = registry.key(signed.kid, now=now)
            if APPROVER not in registry.producers[key.name].roles:
                raise EventRefused(f"{key.name} is no approver")
            verify_jws(signed, key)
        except EventRefused as refusal:
            raise OrderRefused(str(refusal), field=f"signatures[{i}]") from None
        if key.name in approvers or key.public_key in approvers.values():
            raise OrderRefused(
                "the same approver signed twice: it needs two", field=f"signatures[{i}]"
            )
        approvers[key.name] = key.public_key
    return sorted(approvers)


def check_as_ordered(claims: Mapping[str, Any], ordered: Mapping[str, Any]) -> None:
    """Check that a record says what its order gives word for word.

    Its `event_id` is the order's id: of two records with one order, only one is that order's.

    Args:
        claims: of the record.
        ordered: what it has to say; None for what it must not say.

    Raises:
        OrderRefused: the claim that is wrong.
    """
    for name, value in ordered.items():
        if claims.get(name) != value:
            raise OrderRefused("not as it was ordered", field=name)


def signers(document: Document) -> list[str]:
    """The names of those that are said to have signed; nothing is verified."""
    return [_name(signed) for signed in document.signatures]


def signing_keys(document: Document) -> list[str]:
    """The keys that are said to have signed, as `<approver>+<key ID>`; nothing is verified."""
    return [parse_jws(signed, typ=TYPE).kid for signed in document.signatures]


def _name(signed: str) -> str:
    return parse_jws(signed, typ=TYPE).kid.partition("+")[0]


def kept_payload(kept: str) -> bytes:
    """The payload of an order as its record keeps it."""
    return decode_base64url(json.loads(kept)["payload"], field="payload")
