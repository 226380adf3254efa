"""What a package says is gone, held against the records that it says took it. Pure.

An entry of the log says that a key is destroyed, or that a class of records is past its time. It
names no record: which parts went by it is the package's word, and is borne out as far as the record
itself shows it: by tokens of its subjects, or by its type and its time. Where it shows neither,
that word is all there is, and is told as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tlog.audit.catalogue import TokenClass, default_catalogue
from tlog.audit.errors import EventRefused
from tlog.audit.evidence import ERASED, EXPIRED, EvidenceError, Gone, Record, Why, directory_of
from tlog.audit.evidence_page import told_gone
from tlog.audit.times import parse_time
from tlog.audit.tokens import Token

_ELSE = "which is a record of something else"


def check_gone(records: Sequence[Record]) -> dict[int, list[bool | None]]:
    """Refuse what cannot have gone so, and records of erasure and expiry that took nothing.

    Who may record such a thing is verified with its signature.

    Returns:
        For each record, of each part: None if it is not said to be gone; True if the record that
        took it is matched with this one, by a subject or a class; False if nothing shows that.

    Raises:
        EvidenceError: which part is not gone as the package says.
    """
    known = {record.index: record for record in records}
    matched = {
        record.index: [_is_matched(record, number, known) for number in range(len(record.parts))]
        for record in records
    }
    stated = {part.gone.index for record in records for part in record.parts if part.gone}
    for record in records:
        if record.item.why is Why.GONE and record.index not in stated:
            raise EvidenceError(f"{directory_of(record.item)}: nothing is gone by it")
    return matched


def _is_matched(record: Record, number: int, known: Mapping[int, Record]) -> bool | None:
    if (gone := record.parts[number].gone) is None:
        return None
    where = f"{directory_of(record.item)}: it is said to be {told_gone(gone)}"
    if (found := known.get(gone.index)) is None:
        raise EvidenceError(f"{where}, and the package has no such record")
    if wrong := _wrong(found, gone, record, number):
        raise EvidenceError(f"{where}, {wrong}")
    if gone.request_id:
        return _comparable(_own_tokens(record, number), _subject_tokens(found))
    return bool(_classes_of(record))


def _wrong(found: Record, gone: Gone, record: Record, number: int) -> str:
    """Why a record cannot have taken a part of another so; empty if it can."""
    if found.type != (ERASED if gone.request_id else EXPIRED):
        return _ELSE
    if not record.parts[number].hidden:
        return f"and part {number} has no digests: there was nothing to take"
    if gone.request_id:
        return _wrongly_erased(found, gone, record, number)
    return _wrongly_expired(found, record)


def _wrongly_erased(found: Record, gone: Gone, record: Record, number: int) -> str:
    """Why the destruction of a key cannot have taken a part; empty if it can."""
    if found.payload.get("request_id") != gone.request_id:
        return _ELSE
    if len(record.parts) == 1:
        return "and it is about nobody: there was no key to destroy"
    # Not its own: the record of an erasure says whom it erases under the key that goes.
    if found.index < record.index:
        return "which is before it: nothing is sealed with a key that is destroyed"
    own, erased = _own_tokens(record, number), _subject_tokens(found)
    if len(erased) > 1:
        return f"which names {len(erased)} subjects, and destroys the key of one"
    if _comparable(own, erased) and not set(own) & set(erased):
        return "which is that of another subject"
    return ""


def _wrongly_expired(found: Record, record: Record) -> str:
    """Why the expiry of a class cannot have taken a part; empty if it can."""
    claims = found.payload
    names = ("expired_class", "cutoff", "first_index", "until_index")
    expired, cutoff, first, until = map(claims.get, names)
    # That of an epoch took a key of tokens, and no part of any record.
    if not (type(expired) is type(cutoff) is str and type(first) is type(until) is int):
        return _ELSE
    try:
        before = parse_time(cutoff, field="cutoff")
    except EventRefused:
        return _ELSE
    # What it says of entries after it nobody could know.
    if not first <= record.index < min(until, found.index):
        return f"which is of entries {first} to {until - 1}, and of none after itself"
    if record.leaf.received_at >= before:
        return f"which is of what was received before {cutoff}"
    if (own := _classes_of(record)) and expired not in own:
        named = " or ".join([f"{each!r:.80}" for each in own])
        return f"which is of the class {expired!r:.80}, and not of {named}"
    return ""


def _classes_of(record: Record) -> Sequence[str]:
    """The retention classes of a record, of which its tenant's months say which keeps it longest.

    None if it shows none: its type is a tenant's own, say.
    """
    return default_catalogue().classes_of(record.payload)


def _own_tokens(record: Record, number: int) -> list[Token]:
    """Of whom a part is: what is said of all goes with any of them, of one with that one alone."""
    tokens = _subject_tokens(record)
    return tokens[number - 1 : number] if number else tokens


def _subject_tokens(record: Record) -> list[Token]:
    return [token for token in record.leaf.tokens if token.field == "subject"]


def _comparable(own: Sequence[Token], others: Sequence[Token]) -> bool:
    """Whether tokens are equal if their subjects are: all were made with one key of the tenant."""
    made = {(token.token_class, token.epoch) for token in (*own, *others)}
    return (
        bool(own and others)
        and len(made) == 1
        and all(token.token_class is TokenClass.EVIDENCE for token in own)
    )
