"""What an evidence package proves, to somebody who brings his own keys: offline, and pure.

Nothing in the package is trusted. The checkpoint is opened with the verifier's own policy or keys;
each record is proven to be in its tree; each signature is verified with a key that the records in
the package register, rotate and revoke, from the service's first key on, which the verifier may
know; a stamp counts as an authority's when it leads to a root of the verifier's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tlog.audit.approvers import check as check_alone
from tlog.audit.approvers import check_ordered
from tlog.audit.catalogue import Catalogue, default_catalogue
from tlog.audit.errors import AuditError, EventRefused, OrderRefused
from tlog.audit.evidence import (
    ERASED,
    KEY_EVENTS,
    Contents,
    EvidenceError,
    Record,
    StampItem,
    Why,
    directory_of,
)
from tlog.audit.evidence_file import read_package
from tlog.audit.evidence_gone import check_gone
from tlog.audit.jws import verify_jws
from tlog.audit.orders import (
    Kind,
    check_as_ordered,
    check_order,
    parse_document,
    read_order,
    signing_keys,
)
from tlog.audit.producers import Registry
from tlog.audit.stamps import UNREADABLE, Authority, StampError, StampTime, verify_stamp
from tlog.audit.times import parse_time
from tlog.merkle import ProofError, leaf_hash, verify_consistency
from tlog.notes import (
    Checkpoint,
    NoteError,
    Policy,
    VerifierKey,
    check_inclusion,
    parse_policy,
    parse_unverified,
)

MAX_PEM: Final = 256 << 10
_MEANWHILE: Final = timedelta(hours=1)
"""From the look at an order to the record of what it ordered, at most; seconds, as a rule."""
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


class OpenedHead(Protocol):
    """A checkpoint whose signatures verified, with the time that each says, if it says one."""

    @property
    def checkpoint(self) -> Checkpoint:
        """What was signed."""

    @property
    def signed_by(self) -> tuple[tuple[VerifierKey, int | None], ...]:
        """Who vouches for it."""


class Trust(Protocol):
    """Whom the verifier believes: `tlog.client.Verifier` is one."""

    def checkpoint(self, note: bytes) -> OpenedHead:
        """Verify a checkpoint with all that is asked for; raises whatever says why not."""

    def weigh(self, note: bytes) -> tuple[OpenedHead, str | None]:
        """Verify the log's own signatures alone."""


@dataclass(frozen=True, slots=True)
class TimeBound:
    """When an entry was there, by one authority.

    Attributes:
        authority: what the package calls it.
        signer: to whom the certificate is issued that the stamp is signed with; it says so itself,
            unless it is trusted.
        trusted: whether the stamp leads to a root that the verifier gave.
        not_after: the entry was there by then: the authority's word.
        including: size of the stamped head that has it.
        not_before: the entry was not there yet: the log's word, None if no stamped head says so.
        excluding: size of the head of that.
    """

    authority: str
    signer: str
    trusted: bool
    not_after: datetime
    including: int
    not_before: datetime | None
    excluding: int | None


@dataclass(frozen=True, slots=True)
class Proven:
    """A record that is in the tree, as it was signed.

    Attributes:
        registered: the entry that registered the key it is signed with; None for the first key of
            the log's own records.
        approvers: of an erasure, or of the key of an approver, the keys that signed the order for
            it, and which entry registered each; of other records, none.
        matched: of each part whether the record that took it is matched with this one; None if it
            is not said to be gone. See `check_gone`.
        times: at most one for each authority.
    """

    record: Record
    registered: int | None
    approvers: Mapping[str, int | None]
    matched: Sequence[bool | None]
    times: Sequence[TimeBound]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a package proves.

    Attributes:
        service_known: whether the verifier gave the key that all keys of producers lead back to.
        same_policy: whether the policy in the package is the verifier's; None if he has none.
        alone: entries about approvers that are nobody's to record without an order of the two who
            stood; a log of long ago may have some.
        records: all of them, by index; those that were chosen, of erasures, of keys.
    """

    contents: Contents
    head: OpenedHead
    service_known: bool
    same_policy: bool | None
    alone: Sequence[int]
    records: Sequence[Proven]

    def chosen(self) -> list[Proven]:
        """The records that the package is about."""
        return [each for each in self.records if each.record.item.why is Why.CHOSEN]


@dataclass(frozen=True, slots=True)
class _Stamped:
    """A stamp that verified."""

    item: StampItem
    time: StampTime
    signed: datetime | None
    trusted: bool


def check_package(
    data: bytes,
    trust: Trust,
    *,
    policy: Policy | None = None,
    service: VerifierKey | None = None,
    roots: Sequence[x509.Certificate] = (),
) -> Verdict:
    """Verify a package.

    Args:
        data: the file.
        trust: opens checkpoints.
        policy: the verifier's, to be compared with the one in the package.
        service: the first key of the log's own records, if the verifier knows it.
        roots: certificates of time-stamp authorities that the verifier trusts.

    Raises:
        EvidenceError, ZipError: it proves less than it says; the message says what is wrong.
        Whatever `trust` raises.
    """
    package = read_package(data)
    contents, records = package.contents, package.records
    packed_policy = _policy(contents)
    head = trust.checkpoint(contents.checkpoint)
    origin, size = head.checkpoint.origin, head.checkpoint.size
    if origin != contents.origin:
        raise EvidenceError(f"the checkpoint is of {origin!r:.80}, not of {contents.origin!r:.80}")
    if size != contents.tree_size:
        raise EvidenceError(f"the checkpoint is of size {size}, not {contents.tree_size}")
    if service is not None and service != contents.service:
        raise EvidenceError(
            f"the key of the log's own records is {contents.service}, and not the one that you "
            f"gave: {service}"
        )
    signed, alone = _check_signatures(contents, records)
    for record in records:
        _check_inclusion(record, head.checkpoint)
    matched = check_gone(records)
    stamped = []
    for name, stamps in groupby(contents.stamps, key=lambda stamp: stamp.authority):
        certificates = _certificates(contents.certificates[name], name)
        stamped += [
            _check_stamp(stamp, certificates, head.checkpoint, trust, roots) for stamp in stamps
        ]
    package.check_pages()
    return Verdict(
        contents,
        head,
        service is not None,
        None if policy is None else packed_policy == policy.with_max_age(None),
        alone,
        [
            Proven(
                record,
                *signed[record.index],
                matched[record.index],
                _bounds(record.index, stamped),
            )
            for record in records
        ],
    )


def _policy(contents: Contents) -> Policy:
    try:
        return parse_policy(contents.policy)
    except NoteError as error:
        raise EvidenceError(f"policy: {error}") from None


def _check_inclusion(record: Record, checkpoint: Checkpoint) -> None:
    try:
        check_inclusion(record.proof, leaf_hash(record.item.leaf), checkpoint)
    except NoteError as error:
        raise EvidenceError(f"{directory_of(record.item)}: {error}") from None


def _check_signatures(
    contents: Contents, records: Sequence[Record]
) -> tuple[dict[int, tuple[int | None, Mapping[str, int | None]]], list[int]]:
    """Verify each record with a key that was valid when it came in.

    Returns:
        For each record the entry that registered its key, and with which keys it was approved; and
        which records say alone who approves, though two approvers stood.
    """
    catalogue = default_catalogue()
    registry = Registry.of_service(contents.service, since=_BEGINNING)
    registered: dict[str, int | None] = {contents.service.label: None}
    signed: dict[int, tuple[int | None, Mapping[str, int | None]]] = {}
    alone: list[int] = []
    carried_out: dict[str, int] = {}
    for record in records:
        payload, received_at = record.payload, record.leaf.received_at
        approved_with: Sequence[str] = ()
        try:
            key = registry.key(record.jws.kid, now=received_at)
            verify_jws(record.jws, key)
            if payload["producer_id"] != key.name:
                raise EventRefused(f"signed by a key of {key.name}", field="producer_id")
            registry.producers[key.name].check(record.type)
            if record.type.startswith(KEY_EVENTS):
                catalogue.check_public(catalogue.type_of(payload), payload, recorded=True)
                here: dict[str, Any] = {
                    "tenant": contents.tenant,
                    "catalogue": catalogue,
                    "now": received_at,
                }
                if "order" in payload:
                    check_ordered(payload, registry, **here)
                    approved_with = signing_keys(parse_document(payload["order"].encode("ascii")))
                elif not _may_be_said(payload, registry, **here):
                    alone.append(record.index)
                occurred_at = parse_time(payload["occurred_at"], field="occurred_at")
                registry.apply(payload, occurred_at=occurred_at, received_at=received_at)
                if "vkey" in payload:
                    registered[VerifierKey.parse(payload["vkey"]).label] = record.index
            elif record.type == ERASED and ("order" in payload or "approvers" in payload):
                approved_with = _check_order(
                    record, contents.tenant, registry, catalogue, carried_out
                )
        except (AuditError, NoteError) as error:
            raise EvidenceError(f"{directory_of(record.item)}: {error}") from None
        approvers = {kid: registered[kid] for kid in sorted(approved_with)}
        signed[record.index] = (registered[record.jws.kid], approvers)
    return signed, alone


def _may_be_said(payload: Mapping[str, Any], registry: Registry, **here: Any) -> bool:
    """Whether what comes in about an approver would be taken without an order, today."""
    try:
        check_alone(payload, registry, **here)
    except EventRefused:
        return False
    return True


def _check_order(
    record: Record,
    tenant: str,
    registry: Registry,
    catalogue: Catalogue,
    carried_out: dict[str, int],
) -> list[str]:
    """Verify the order that an erasure keeps, and note that it is carried out.

    Returns:
        The keys that signed it.
    """
    text = record.payload.get("order")
    if text is None:
        raise OrderRefused("approved by whom? The order is missing", field="order")
    if type(text) is not str or not text.isascii():
        raise OrderRefused("no order", field="order")
    document = parse_document(text.encode("ascii"))
    order = read_order(document, catalogue)
    if order.kind is not Kind.ERASE:
        raise OrderRefused("it orders something else", field="order")
    # It was looked at a while before its record came in, and may have expired in between.
    now = min(record.leaf.received_at, order.expires_at - timedelta(microseconds=1))
    approvers = check_order(document, order, registry, tenant=tenant, now=now)
    ordered = {"event_id": order.order_id, "approvers": approvers, "reason": order.reason}
    check_as_ordered(record.payload, {**ordered, "request_id": order.request_id})
    # Its id is the order's: a second record with it is of what nobody signed.
    if (first := carried_out.setdefault(order.order_id, record.index)) != record.index:
        raise OrderRefused(
            f"entry {first} carries it out, and it is for one erasure", field="order"
        )
    if record.leaf.received_at >= order.expires_at + _MEANWHILE:
        raise OrderRefused("it had expired when its record came in", field="expires_at")
    return signing_keys(document)


def _check_stamp(
    stamp: StampItem,
    certificates: Sequence[x509.Certificate],
    checkpoint: Checkpoint,
    trust: Trust,
    roots: Sequence[x509.Certificate],
) -> _Stamped:
    where = f"timestamps/{stamp.authority}/{stamp.size:06}"
    try:
        old = parse_unverified(stamp.note).checkpoint
    except NoteError as error:
        raise EvidenceError(f"{where}.note: {error}") from None
    if (old.origin, old.size) != (checkpoint.origin, stamp.size):
        raise EvidenceError(f"{where}.note is of {old.origin!r:.80} and size {old.size}")
    try:
        verify_consistency(
            old_size=old.size,
            new_size=checkpoint.size,
            old_root=old.root_hash,
            new_root=checkpoint.root_hash,
            proof=stamp.path,
        )
    except ProofError as error:
        raise EvidenceError(f"{where}.path: the stamped head is not proven: {error}") from None
    try:
        time = verify_stamp(stamp.answer, stamp.note, _authority(stamp.authority, certificates))
    except StampError as error:
        raise EvidenceError(f"{where}.tsr: {error}") from None
    head, _ = trust.weigh(stamp.note)
    # The time of a witness is no word of the log's.
    own = [each for key, each in head.signed_by if key.name == checkpoint.origin]
    seconds = next((each for each in own if each is not None), None)
    return _Stamped(stamp, time, _signed_at(seconds), _leads_to(roots, stamp, certificates))


def _leads_to(
    roots: Sequence[x509.Certificate], stamp: StampItem, certificates: Sequence[x509.Certificate]
) -> bool:
    """Whether a stamp leads to a root of the verifier's; what lies between is the package's."""
    between = [each for each in certificates if each.issuer != each.subject]
    try:
        verify_stamp(stamp.answer, stamp.note, _authority(stamp.authority, [*between, *roots]))
    except StampError:
        return False
    return True


def _authority(name: str, certificates: Sequence[x509.Certificate]) -> Authority:
    """An authority of which these certificates are known."""
    signers = tuple(each for each in certificates if _stamps(each))
    issuers = tuple(each for each in certificates if each not in signers)
    return Authority(name, "", signers, issuers)


def _stamps(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (*UNREADABLE, x509.ExtensionNotFound):
        return False
    return list(usage.value) == [ExtendedKeyUsageOID.TIME_STAMPING]


def _certificates(pem: bytes, authority: str) -> list[x509.Certificate]:
    where = f"timestamps/{authority}/certificates.pem"
    if len(pem) > MAX_PEM:
        raise EvidenceError(f"{where} has over {MAX_PEM} bytes")
    try:
        found = x509.load_pem_x509_certificates(pem)
        for each in found:
            _ = each.issuer, each.subject  # which are not read before they are asked for
    except (*UNREADABLE, x509.InvalidVersion) as error:
        raise EvidenceError(f"{where}: {error}") from None
    return found


def _signed_at(seconds: int | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _bounds(index: int, stamped: Sequence[_Stamped]) -> list[TimeBound]:
    """When an entry was there, by stamps of which those of one authority stand together."""
    bounds = []
    for name, group in groupby(stamped, key=lambda each: each.item.authority):
        own = list(group)
        after = [each for each in own if each.item.size > index]
        if not after:
            continue
        # Whoever made the package may have put a stranger's stamp under an authority's name.
        first = min(after, key=lambda each: (not each.trusted, each.time.not_after, each.item.size))
        before = max(
            (each for each in own if each.item.size <= index),
            key=lambda each: each.item.size,
            default=None,
        )
        signed = None if before is None else before.signed
        if signed is not None and signed > first.time.not_after:
            signed = None
        bounds.append(
            TimeBound(
                name,
                first.time.signer,
                first.trusted,
                first.time.not_after,
                first.item.size,
                signed,
                None if before is None else before.item.size,
            )
        )
    return bounds
