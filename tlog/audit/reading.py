"""Reads of what is personal: nobody reads without a purpose, and each read is itself a record.

The record comes first, durable; if it cannot be made, nothing is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tlog.audit.catalogue import default_catalogue
from tlog.audit.errors import EventRefused
from tlog.audit.event import MAX_SUBJECTS, Draft
from tlog.audit.personal import find_personal
from tlog.audit.records import Records
from tlog.audit.tokens import canonical
from tlog.audit.vault import Part


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the transport knows it.

    Attributes:
        id: a user's name, or where the call came from.
        kind: `local_user`, or `unknown`.
    """

    id: str
    kind: str


@dataclass(frozen=True, slots=True)
class Access:
    """Who asks, and what for.

    Attributes:
        purpose: it is recorded, and public.
        request_id: the request it is for, if it is for one.

    Raises:
        EventRefused: the purpose is missing, too long, or seems to name somebody; so for the
            request.
    """

    caller: Caller
    purpose: str
    request_id: str = ""

    def __post_init__(self) -> None:
        if not self.purpose.strip():
            raise EventRefused("what for? Every read of the records has a purpose", field="purpose")
        _check("purpose", self.purpose)
        if self.request_id:
            _check("request_id", self.request_id)


def check_recipient(recipient: str, *, disclosing: bool) -> None:
    """Personal data is given out to somebody, whose name is public.

    Raises:
        EventRefused: to nobody; or the name is too long, or seems to be a person's.
    """
    if recipient:
        _check("recipient", recipient)
    if disclosing and not recipient.strip():
        raise EventRefused(
            "who gets it? Personal data goes to nobody without a name: they are to be told of a "
            "later erasure",
            field="recipient",
        )


async def note_read(
    records: Records,
    access: Access,
    *,
    type: Literal["log.read", "log.exported"] = "log.read",  # noqa: A002  (as events call it)
    subjects: Sequence[str] = (),
    count: int = 0,
    query: Mapping[str, Any] | None = None,
    public: Mapping[str, Any] | None = None,
) -> int:
    """Record a read, before anything of it is shown.

    Inside `Records.alone`, and with what it shows opened there: no erasure comes in between.

    Args:
        records: which were read.
        access: by whom and what for.
        type: whether it was shown, or given out.
        subjects: whose data was opened: they find it among their records.
        count: how many records.
        query: what was asked for; personal.
        public: more public claims of the type.

    Returns:
        The index of its entry; of the first one, where there are more subjects than fit into one.

    Raises:
        EventRefused, LogError: it is not known to be recorded: show nothing.
    """
    claims: dict[str, Any] = {"purpose": access.purpose, "count": count, **(public or {})}
    if access.request_id:
        claims["request_id"] = access.request_id
    personal: dict[str, Any] = {"actor": {"id": access.caller.id, "kind": access.caller.kind}}
    if query:
        personal["details"] = dict(query)
    first = -1
    for start in range(0, max(len(subjects), 1), MAX_SUBJECTS):
        part = subjects[start : start + MAX_SUBJECTS]
        # What is said of several goes with the first key; who read must stay with each of them.
        own = {"actor": personal["actor"]} if len(part) > 1 else {}
        about = [{"id": subject, **own} for subject in part]
        draft = Draft(type, claims, personal, about)
        index = await records.record_alone(draft)
        first = index if first < 0 else first
    return first


def subjects_of(parts: Iterable[Part]) -> list[str]:
    """The identifiers of the subjects whose parts can be opened, in canonical form."""
    return [
        canonical(disclosure.value)
        for part in parts
        for disclosure in part.disclosures
        if disclosure.name == "id" and isinstance(disclosure.value, str)
    ]


def _check(field: str, value: str) -> None:
    check = default_catalogue().claims[field].check
    assert check is not None  # noqa: S101 -- strings, both
    if found := find_personal(check(field, value)):
        raise EventRefused(f"it seems to hold {found}, and it is public for ever", field=field)
