"""The table of tlog-mirror: each request that is refused, with its status, over real sockets.

The mirror holds 600 entries of LOG, cosigned; 900 are pending, and 700 were before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.mirror.support import FORK, LOG, OTHER, STRANGER, check_cosigned, sha256
from tests.serve.mirror.faces import Face, Info, served
from tests.witness.support import flip
from tlog.mirror import Package, Upload, canonical_sequence, encode_upload
from tlog.notes import parse_signatures

HEAD = Upload(LOG.origin.encode(), 600, 900)
PACKAGES = LOG.packages(600, 900)
BAD_HASH = bytes(32)


@pytest.fixture
async def face(tmp_path: Path) -> AsyncIterator[Face]:
    async with served(tmp_path / "m") as face:
        await face.add_checkpoint(*LOG.request(0, 600))
        assert (await face.add_entries(LOG.upload(0, 600))).status_code == 200
        await face.add_checkpoint(*LOG.request(600, 700))
        await face.add_checkpoint(*LOG.request(700, 900))
        yield face


@dataclass(frozen=True)
class Exchange:
    """A body of add-entries, and the answer to it: `says` is in the line that says why."""

    name: str
    body: bytes
    status: int
    says: str = ""


def _of(package: Package, *, head: Upload = HEAD) -> bytes:
    return encode_upload(head, [package, *PACKAGES[1:]])


_first = PACKAGES[0]
_swapped = (_first.entries[1], _first.entries[0], *_first.entries[2:])
_changed = (b"x", *_first.entries[1:])

TABLE = [
    # "If `log_origin` is not a known log, the mirror MUST respond with a "404 Not Found""
    Exchange("unknown log", STRANGER.upload(0, 300), 404, "log.example/unknown"),
    Exchange("not UTF-8", encode_upload(replace(HEAD, log_origin=b"\xff"), PACKAGES), 404),
    Exchange("no origin", encode_upload(replace(HEAD, log_origin=b""), PACKAGES), 404),
    # "If the mirror has never received a pending checkpoint signed by the log, [...] 422"
    Exchange("never pending", OTHER.upload(0, 300), 422, "pending"),
    # "MUST authenticate the entries [...] If this verification process fails, [...] 422"
    Exchange("changed entry", _of(replace(_first, entries=_changed)), 422, "entries 600 to 767"),
    Exchange("unordered", _of(replace(_first, entries=_swapped)), 422, "entries 600 to 767"),
    Exchange("no proof", _of(replace(_first, proof=())), 422, "proof"),
    Exchange("wrong proof", _of(replace(_first, proof=(BAD_HASH, *_first.proof[1:]))), 422),
    Exchange("long proof", _of(replace(_first, proof=(*_first.proof, BAD_HASH))), 422, "too long"),
    Exchange("64 hashes", _of(replace(_first, proof=(BAD_HASH,) * 64)), 422, "63"),
    Exchange(
        "of another tree",
        encode_upload(HEAD, [LOG.package(w, 1000) for w in canonical_sequence(600, 768)]),
        422,
    ),
    Exchange("of a fork", FORK.upload(600, 900), 422, "600 to 767"),
    # "no entry package was authenticated and saved before the body ended [...] 400"
    Exchange("empty", b"", 400, "ends"),
    Exchange("half a head", HEAD.encode()[:20], 400, "ends"),
    Exchange("no package", HEAD.encode(), 400, "ends"),
    Exchange("half a package", (HEAD.encode() + _first.encode())[:-1], 400, "ends"),
    # "`upload_start` MUST be less or equal to `upload_end`."
    Exchange("reversed", encode_upload(replace(HEAD, start=901), []), 400, "901"),
    Exchange("beyond 2^63", encode_upload(replace(HEAD, end=1 << 63), []), 400),
]

CONFLICTS = [
    # "neither a known pending checkpoint value nor the mirror checkpoint's tree size": the line
    # is the pending size.
    ("unknown end", replace(HEAD, end=899), 900),
    ("unknown end above", replace(HEAD, end=901), 900),
    ("an old end without a ticket", replace(HEAD, end=700), 900),
    # "If `upload_end` is less than the mirror checkpoint's tree size"
    ("end below", replace(HEAD, start=0, end=300), 900),
    # "If `upload_start` is greater than the mirror's next entry"
    ("start above", replace(HEAD, start=601), 900),
    ("nothing, from above", replace(HEAD, start=900), 900),
]


async def test_refusals_change_nothing(face: Face) -> None:
    copy = face.mirror.copy(sha256(LOG.origin))
    for exchange in TABLE:
        response = await face.add_entries(exchange.body)
        where = f"{exchange.name}: {response.status_code} {response.text}"
        assert response.status_code == exchange.status, where
        assert exchange.says in response.text, where
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert (copy.size, copy.next_entry) == (600, 600), where


async def test_conflicts_say_where_to_go_on(face: Face) -> None:
    for name, head, size in CONFLICTS:
        response = await face.add_entries(encode_upload(head, PACKAGES))
        assert response.status_code == 409, name
        info = Info.of(response)
        assert (info.size, info.next_entry) == (size, 600), name
        body = LOG.upload(info.next_entry, info.size, ticket=info.ticket, count=0)
        assert (await face.add_entries(body)).status_code == 400, name


async def test_too_much_again_is_a_conflict(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    # "If `excess_entries` is too large, the mirror MUST respond with a "409 Conflict""
    monkeypatch.setattr("tlog.mirror.mirror.MAX_EXCESS", 256)
    assert (await face.add_entries(LOG.upload(343, 900, count=1))).status_code == 409
    # Counted to `upload_end` at most, and what is there already is skipped.
    assert (await face.add_entries(LOG.upload(344, 900, count=1))).status_code == 202
    assert (await face.add_entries(LOG.upload(344, 900))).status_code == 200


async def test_prefixes_are_accepted_until_all_is_there(face: Face) -> None:
    first = await face.add_entries(LOG.upload(600, 900, count=1))
    assert first.status_code == 202
    info = Info.of(first)
    assert (info.size, info.next_entry) == (900, 768)
    checkpoint = f"/{sha256(LOG.origin).hex()}/checkpoint"
    check_cosigned(face.mirror, (await face.client.get(checkpoint)).content, 600)
    # "The mirror discards any partial bytes after the last successfully authenticated package."
    second = await face.add_entries(LOG.upload(600, 900)[:-1])
    assert (second.status_code, Info.of(second).next_entry) == (202, 768)
    last = await face.add_entries(LOG.upload(768, 900, ticket=info.ticket) + b"more")
    assert last.status_code == 200
    assert last.headers["content-type"] == "text/plain; charset=utf-8"
    # "a sequence of one or more note signature lines": they fit the log's own note.
    assert len(parse_signatures(last.content)) == 2
    check_cosigned(face.mirror, LOG.note(900) + last.content, 900)
    check_cosigned(face.mirror, (await face.client.get(checkpoint)).content, 900)


async def test_a_package_that_fails_ends_the_upload_and_those_before_stay(face: Face) -> None:
    wrong = replace(PACKAGES[1], proof=())
    response = await face.add_entries(encode_upload(HEAD, [PACKAGES[0], wrong]))
    assert response.status_code == 422
    assert "768 to 899" in response.text
    copy = face.mirror.copy(sha256(LOG.origin))
    assert (copy.size, copy.next_entry) == (600, 768)


async def test_an_old_pending_checkpoint_is_known_by_its_ticket(face: Face) -> None:
    # Issued while 900 was pending; meanwhile 1000 is.
    ticket = Info.of(await face.add_entries(LOG.upload(600, 900, count=1))).ticket
    await face.add_checkpoint(*LOG.request(900, 1000))
    assert (await face.add_entries(LOG.upload(768, 900))).status_code == 409
    done = await face.add_entries(LOG.upload(768, 900, ticket=ticket))
    assert done.status_code == 200
    check_cosigned(face.mirror, LOG.note(900) + done.content, 900)
    # Used again it says nothing new; and when the mirror is ahead, it is a conflict.
    assert (await face.add_entries(LOG.upload(900, 900, ticket=ticket))).status_code == 200
    assert (await face.add_entries(LOG.upload(900, 1000))).status_code == 200
    late = await face.add_entries(LOG.upload(900, 900, ticket=ticket))
    assert (late.status_code, Info.of(late).size) == (409, 1000)


async def test_an_empty_upload_gets_the_cosignatures_again(face: Face) -> None:
    # "If `upload_start` is equal to `upload_end`, the canonical sequence is empty."
    for start in (600, 0, 599):
        response = await face.add_entries(LOG.upload(start, 600))
        assert response.status_code == 200
        check_cosigned(face.mirror, LOG.note(600) + response.content, 600)


async def test_pending_checkpoints_are_taken_as_by_a_witness(face: Face) -> None:
    # "The request is handled identically to that of a witness [...] an empty response body".
    added = await face.add_checkpoint(*LOG.request(900, 950))
    assert (added.status_code, added.content) == (200, b"")
    checks = [
        (STRANGER.request(0, 100), 404),
        ((950, (), flip(LOG.note(960))), 403),
        ((961, (), LOG.note(960)), 400),
        ((900, LOG.proof(900, 960), LOG.note(960)), 409),
        ((950, (), LOG.note(960)), 422),
        ((950, FORK.proof(950, 960), FORK.note(960)), 422),
        ((950, (), FORK.note(950)), 422),
    ]
    for request, status in checks:
        response = await face.add_checkpoint(*request)
        assert response.status_code == status, response.text
        if status == 409:
            assert response.content == b"950\n"
            assert response.headers["content-type"] == "text/x.tlog.size"
    # The mirror checkpoint is what it was: "but not the mirror checkpoint".
    assert face.mirror.copy(sha256(LOG.origin)).size == 600
