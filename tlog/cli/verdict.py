"""What an evidence package proves, said to a person or a program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlog.cli.errors import CommandError, Exit, one_line, printable
from tlog.cli.options import read_bounded
from tlog.cli.output import Output

if TYPE_CHECKING:
    from cryptography import x509

    from tlog.audit.evidence import Gone, Part
    from tlog.audit.evidence_check import Proven, TimeBound, Verdict
    from tlog.client import Verifier
    from tlog.notes import VerifierKey

MAX_PEM = 1 << 20


def verify_package(
    file: Path,
    verifier: Verifier,
    *,
    service_keys: Sequence[VerifierKey],
    roots: Sequence[Path],
    out: Output,
) -> None:
    """Verify a package, and say what is proven.

    Raises:
        CommandError: it proves less than it says, or is none.
    """
    from tlog.audit.zipped import MAX_ZIP_SIZE
    from tlog.client import VerificationError

    if len(service_keys) > 1:
        raise click.UsageError("one --service-key: the first that the log has had")
    data = read_bounded(file, MAX_ZIP_SIZE)
    if not data.startswith(b"PK"):
        raise click.UsageError(
            "this is no evidence package; to verify a proof, give its ENTRYFILE too"
        )
    try:
        verdict = verifier.evidence(
            data,
            service=service_keys[0] if service_keys else None,
            tsa_roots=[each for root in roots for each in _certificates(root)],
        )
    except VerificationError as error:
        raise CommandError(f"NOT VERIFIED: {one_line(error)}", Exit.UNVERIFIED) from None
    say(verdict, out)


def say(verdict: Verdict, out: Output) -> None:
    """Say what is proven of each record that was chosen, then of the package, then what is not."""
    from tlog.audit.evidence_page import NOT_PROVEN

    approvers = {each.record.index: each.approvers for each in verdict.records}
    for each in verdict.chosen():
        text, fields = _record(each, approvers)
        out.result(text, **fields)
    chosen, contents = len(verdict.chosen()), verdict.contents
    signed_by = [_signer(key, time) for key, time in verdict.head.signed_by]
    lines = [
        f"verified: {chosen} {'record' if chosen == 1 else 'records'} of {contents.origin}, in the "
        f"tree of {contents.tree_size} signed by {', '.join(signed_by)}"
    ]
    lines += [f"  note: {note}" for note in _notes(verdict)]
    lines += [f"  NOT proven: {text}" for text in NOT_PROVEN]
    out.result(
        _printable(lines),
        verified=True,
        origin=contents.origin,
        tenant=contents.tenant,
        request_id=contents.request_id,
        tree_size=contents.tree_size,
        root_hash=verdict.head.checkpoint.root_hash.hex(),
        signed_by=signed_by,
        records=chosen,
        service_key=str(contents.service),
        service_key_is_yours=verdict.service_known,
        policy_is_yours=verdict.same_policy,
        approvers_made_alone=list(verdict.alone),
        not_proven=list(NOT_PROVEN),
    )


def _printable(lines: Sequence[str]) -> str:
    """Lines that a stranger may have worded, harmless to a terminal."""
    return "\n".join(map(printable, lines))


def _record(
    proven: Proven, approvers: Mapping[int, Mapping[str, int | None]]
) -> tuple[str, dict[str, Any]]:
    from tlog.audit.evidence_page import public_claims, shown_value
    from tlog.audit.times import format_time

    record, leaf = proven.record, proven.record.leaf
    since = "of the log itself" if proven.registered is None else f"of entry {proven.registered}"
    claims = public_claims(record)
    lines = [
        f"entry {record.index}  {record.type}",
        f"  proven: in the tree; signed with the key {record.jws.kid} {since}, valid then as far "
        "as keys/ tells",
        f"  received {format_time(leaf.received_at)}, says the log",
        *(f"  says: {name}: {shown_value(value)}" for name, value in claims.items()),
    ]
    parts = []
    for number, part in enumerate(record.parts):
        said, fields = _part(number, part, proven.matched[number], approvers)
        lines += said
        parts.append(fields)
    lines += map(_time, proven.times) if proven.times else ["  time: bounded by no authority"]
    fields = {
        "entry": record.index,
        "type": record.type,
        "in_tree": True,
        "signed_with": record.jws.kid,
        "registered_at": proven.registered,
        "received_at": format_time(leaf.received_at),
        "claims": claims,
        "parts": parts,
        "times": [_time_fields(each) for each in proven.times],
    }
    return _printable(lines), _sendable(fields)


def _part(
    number: int, part: Part, matched: bool | None, approvers: Mapping[int, Mapping[str, int | None]]
) -> tuple[list[str], dict[str, Any]]:
    from tlog.audit.evidence_page import part_name, shown_value, told_gone

    of, gone = part_name(number), part.gone
    ordered_with = approvers[gone.index] if gone else {}
    lines = [
        f"  disclosed {of}: {disclosure.name}: {shown_value(disclosure.value)}"
        for disclosure in part.shown
    ]
    if gone is not None:
        ordered = ", upon NO order of two approvers: it keeps none" if gone.request_id else ""
        if ordered_with:
            # Whoever they are is told by their keys: anybody may be registered under any name.
            keys = [f"{label} of entry {entry}" for label, entry in ordered_with.items()]
            ordered = f", upon an order signed by {' and '.join(keys)}"
        lines.append(f"  gone {of}: {told_gone(gone)}{ordered}; {_matched(gone, matched)}")
    elif part.hidden:
        lines.append(f"  hidden {of}: at most {part.hidden} claims")
    return lines, {
        "of": of,
        "disclosed": {disclosure.name: disclosure.value for disclosure in part.shown},
        "hidden": part.hidden,
        "erased_at": gone.index if gone and gone.request_id else None,
        "erased_under": (gone.request_id or None) if gone else None,
        "ordered_by": [label.partition("+")[0] for label in ordered_with],
        "ordered_with": dict(ordered_with),
        "expired_at": gone.index if gone and not gone.request_id else None,
        "gone_matched": matched,
    }


def _matched(gone: Gone, matched: bool | None) -> str:
    """How far the record that took a part bears that out."""
    by, shown = (
        ("its subject", "its tokens cannot be compared with those of that entry")
        if gone.request_id
        else ("its class and time", "the type does not tell its class")
    )
    if matched:
        return f"that entry is proven, and matched by {by}"
    return f"that entry is proven; that it is about this record is the package's word: {shown}"


def _time(bound: TimeBound) -> str:
    from tlog.audit.times import format_time

    where = f"in timestamps/{bound.authority} over size {bound.including}"
    # The package may call an authority anything; below a root, its certificate says who it is.
    said = f"  time: there by {format_time(bound.not_after)}, says "
    if bound.trusted:
        said += f"{bound.signer} below a root of yours, {where}"
    else:
        said += f"a stamp NOT VERIFIED against a root of yours, {where}"
    if bound.not_before is not None:
        said += f"; not yet at {format_time(bound.not_before)}, says the log of {bound.excluding}"
    return said


def _time_fields(bound: TimeBound) -> dict[str, Any]:
    from tlog.audit.times import format_time

    return {
        "authority": bound.authority,
        "signer": bound.signer if bound.trusted else None,
        "root_is_yours": bound.trusted,
        "not_after": format_time(bound.not_after),
        "including": bound.including,
        "not_before": bound.not_before and format_time(bound.not_before),
        "excluding": bound.excluding,
    }


def _sendable(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields as they can be written: JSON can spell out what UTF-8 cannot."""
    text = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
    made: dict[str, Any] = json.loads(text)
    return made


def _notes(verdict: Verdict) -> list[str]:
    notes = []
    if not verdict.service_known:
        notes.append(
            f"the producers' keys lead back to {verdict.contents.service}, which is the package's "
            "word: give yours with --service-key"
        )
    notes += [
        f"entry {index} changes who approves, and has no order of the two approvers who stood: "
        "whoever has the keys of the log can have done it alone"
        for index in verdict.alone
    ]
    if verdict.same_policy is False:
        notes.append("the policy in the package is another than yours; only yours counts")
    return notes


def _signer(key: VerifierKey, seconds: int | None) -> str:
    if seconds is None:
        return key.label
    try:
        return f"{key.label} at {datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return key.label


def _certificates(file: Path) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(read_bounded(file, MAX_PEM))
    except (ValueError, x509.InvalidVersion) as error:
        raise CommandError(f"{file} holds no certificates in PEM: {error}") from None
