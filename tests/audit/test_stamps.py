"""Time-stamps by a real authority, and by those that must not be believed."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    decode_timestamp_response,
)

from tests.audit.authority import NOW, Station, make_leaf, make_root
from tlog.audit import Authority, StampError, StampTime, stamps, verify_stamp
from tlog.audit.stamps import (
    MAX_ANSWER_SIZE,
    EntryTime,
    Stamp,
    StampRequest,
    entry_time,
    make_request,
    verify_checkpoint_stamp,
)
from tlog.notes import Algorithm, Checkpoint, Signer, sign_checkpoint

NOTE = b"example.com/log\n1\n...\n\n- a signature\n"


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Station:
    return Station(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def asked() -> StampRequest:
    return make_request(NOTE)


@pytest.fixture(scope="module")
def answer(station: Station, asked: StampRequest) -> bytes:
    return station.reply(asked.der)


def bare_request(note: bytes = NOTE) -> bytes:
    """The answer to it has no certificate in it."""
    return (
        TimestampRequestBuilder(note, HashAlgorithm.SHA256, nonce=True, cert_req=False)
        .build()
        .as_bytes()
    )


def test_a_stamp_and_what_it_says(station: Station, asked: StampRequest, answer: bytes) -> None:
    said = verify_stamp(answer, NOTE, station.authority, nonce=asked.nonce)
    assert abs(said.time - datetime.now(UTC)) < timedelta(minutes=1)
    assert said.time.tzinfo is UTC
    assert said.accuracy == timedelta(seconds=1.5)
    assert said.not_after == said.time + timedelta(seconds=1.5)
    assert verify_stamp(answer, NOTE, station.authority) == said
    assert (
        verify_stamp(station.reply(bare_request()), NOTE, station.authority).serial != said.serial
    )


def test_openssl_verifies_the_same(station: Station, answer: bytes, tmp_path: Path) -> None:
    (tmp_path / "note").write_bytes(NOTE)
    (tmp_path / "stamp.tsr").write_bytes(answer)
    command = ["openssl", "ts", "-verify", "-data", "note", "-in", "stamp.tsr"]
    command += ["-CAfile", str(station.directory / "root.pem")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert b"Verification: OK" in done.stdout + done.stderr


def test_an_authority_that_does_not_say_how_exact_it_is(tmp_path: Path) -> None:
    station = Station(tmp_path, accuracy="")
    said = verify_stamp(station.reply(bare_request()), NOTE, station.authority)
    assert said.accuracy is None
    assert said.not_after == said.time


def test_each_request_has_a_nonce_of_its_own() -> None:
    assert len({make_request(NOTE).nonce for _ in range(20)}) == 20


def test_the_answer_to_another_request(station: Station, asked: StampRequest) -> None:
    other = station.reply(make_request(NOTE).der)
    verify_stamp(other, NOTE, station.authority)
    with pytest.raises(StampError, match="Nonce mismatch"):
        verify_stamp(other, NOTE, station.authority, nonce=asked.nonce)


def test_another_message(station: Station, asked: StampRequest, answer: bytes) -> None:
    with pytest.raises(StampError, match="Mismatch between messages"):
        verify_stamp(answer, NOTE + b"\n", station.authority, nonce=asked.nonce)


def test_a_certificate_that_had_expired(tmp_path: Path) -> None:
    station = Station(tmp_path, until=NOW - timedelta(hours=1))
    with pytest.raises(StampError, match="certificate has expired"):
        verify_stamp(station.reply(make_request(NOTE).der), NOTE, station.authority)


def test_a_certificate_that_has_expired_since(tmp_path: Path) -> None:
    """It was valid when it signed: the stamp is good for ever."""
    station = Station(tmp_path, until=datetime.now(UTC) + timedelta(seconds=1.5))
    answer = station.reply(make_request(NOTE).der)
    said = verify_stamp(answer, NOTE, station.authority)
    past = station.leaf.not_valid_after_utc + timedelta(seconds=0.1) - datetime.now(UTC)
    time.sleep(max(0.0, past.total_seconds()))
    assert datetime.now(UTC) > station.leaf.not_valid_after_utc
    assert verify_stamp(answer, NOTE, station.authority) == said


@pytest.mark.parametrize("name", ["Root of one", "Evil"])
def test_a_stranger_who_brings_his_own_root(station: Station, tmp_path: Path, name: str) -> None:
    """Name and serial number of the certificate are those of the pinned one."""
    root = make_root(name)
    evil = Station(tmp_path, root=root, embedded=root.certificate)
    answer = evil.reply(make_request(NOTE).der)
    assert len(decode_timestamp_response(answer).signed_data.certificates) == 2
    says = "does not verify" if name == "Root of one" else "which is not pinned"
    with pytest.raises(StampError, match=says):
        verify_stamp(answer, NOTE, station.authority)
    # Trusting the right root does not help a signer who is not pinned.
    same = replace(station.authority, issuers=(station.root.certificate, root.certificate))
    with pytest.raises(StampError, match=says):
        verify_stamp(answer, NOTE, same)
    # A root that comes with the answer is not trusted, though its signer is pinned.
    with pytest.raises(StampError, match="certificate|signature"):
        verify_stamp(answer, NOTE, Authority("x", "", (evil.leaf,), (station.root.certificate,)))
    # Nor does the pinned signer help where the root is another.
    signer = Authority("x", "", (station.leaf,), (root.certificate,))
    with pytest.raises(StampError, match="certificate"):
        verify_stamp(station.reply(make_request(NOTE).der), NOTE, signer)


def test_another_signer_of_the_same_authority(station: Station, tmp_path: Path) -> None:
    """Same root, same name and serial number, another key: not the one that was pinned."""
    other = Station(tmp_path, root=station.root)
    for request in (make_request(NOTE).der, bare_request()):
        with pytest.raises(StampError, match="does not verify"):
            verify_stamp(other.reply(request), NOTE, station.authority)


def test_an_authority_that_changed_its_certificate(station: Station, tmp_path: Path) -> None:
    new = Station(tmp_path, root=make_root("Another"))
    both = Authority(
        "both",
        "",
        (station.leaf, new.leaf),
        (station.root.certificate, new.root.certificate),
    )
    for signed_by in (station, new):
        verify_stamp(signed_by.reply(make_request(NOTE).der), NOTE, both)


@pytest.mark.parametrize(("stamping", "critical"), [(False, True), (True, False), (False, False)])
def test_a_certificate_that_is_not_for_stamps(
    station: Station, stamping: bool, critical: bool
) -> None:
    leaf = make_leaf(station.root, station.key, stamping=stamping, critical=critical)
    with pytest.raises(StampError, match="not one for time stamping"):
        Authority("x", "", (leaf,), (station.root.certificate,))
    with pytest.raises(StampError, match="not one for time stamping"):
        Authority("x", "", (station.root.certificate,), (station.root.certificate,))


def test_an_authority_needs_a_name_a_signer_and_a_root(station: Station) -> None:
    root = station.root.certificate
    for name in ("", "a b", "../x", "x" * 64, "é"):
        with pytest.raises(StampError, match="is no name"):
            Authority(name, "", (station.leaf,), (root,))
    with pytest.raises(StampError, match="no certificate of a signer"):
        Authority("x", "", (), (root,))
    for issuers in ((), (station.leaf,)):
        with pytest.raises(StampError, match="need a root"):
            Authority("x", "", (station.leaf,), issuers)


def test_a_rejection(tmp_path: Path, asked: StampRequest) -> None:
    station = Station(tmp_path)
    (tmp_path / "serial").write_text("no number\n")
    with pytest.raises(StampError, match="not granted: status 2, 'Error during serial"):
        verify_stamp(station.reply(asked.der), NOTE, station.authority, nonce=asked.nonce)


def test_granted_with_modifications(station: Station, answer: bytes) -> None:
    status = answer.index(b"\x30\x03\x02\x01\x00")
    for value in (1, 2, 5, 9, 0xFF):
        changed = answer[: status + 4] + bytes([value]) + answer[status + 5 :]
        with pytest.raises(StampError, match="not granted|does not verify"):
            verify_stamp(changed, NOTE, station.authority)


def test_garbage(station: Station, answer: bytes) -> None:
    for garbage in (
        b"",
        b"\x30\x00",
        b"<html>404</html>",
        bytes(100),
        answer[:-1],
        answer + b"\0",
        b"\x30\x84\xff\xff\xff\xff" + answer,
        b"\x30\x80" * 30_000,
    ):
        with pytest.raises(StampError, match="one: the stamp does not verify"):
            verify_stamp(garbage, NOTE, station.authority)
    with pytest.raises(StampError, match="more than"):
        verify_stamp(bytes(MAX_ANSWER_SIZE + 1), NOTE, station.authority)


def test_a_library_that_panics(
    station: Station, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        """As that of pyo3, which nobody can import."""

    def panics(_: bytes) -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr(stamps, "decode_timestamp_response", panics)
    with pytest.raises(StampError, match="does not verify: PanicException: called"):
        verify_stamp(answer, NOTE, station.authority)


def damaged(answer: bytes) -> Iterator[bytes]:
    for place in range(len(answer)):
        for bits in (0x01, 0x80):
            yield answer[:place] + bytes([answer[place] ^ bits]) + answer[place + 1 :]
    dice = random.Random(3161)
    for _ in range(600):
        piece = bytearray(answer)
        begin, end = sorted(dice.choices(range(len(answer)), k=2))
        piece[begin:end] = dice.choice((b"", dice.randbytes(end - begin), piece[:40]))
        yield bytes(piece)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_damage_is_refused_or_changes_nothing(
    station: Station, asked: StampRequest, answer: bytes
) -> None:
    """Not everything is signed: version numbers, the name of the algorithm."""
    authority = station.authority
    said = verify_stamp(answer, NOTE, authority)
    unsigned, refusals = 0, list[str]()
    for changed in damaged(answer):
        try:
            again = verify_stamp(changed, NOTE, authority, nonce=asked.nonce)
        except StampError as error:
            refusals.append(str(error))
        else:
            assert again == said
            unsigned += 1
    assert unsigned < 60
    assert all(map(str.isprintable, refusals))


# ---- over checkpoints, and of entries ----

SIGNERS = [
    Signer.generate("example.com/log", algorithm)
    for algorithm in (Algorithm.ED25519, Algorithm.MLDSA44)
]
VKEYS = [signer.vkey for signer in SIGNERS]


def note_of(size: int, at: int, signers: list[Signer] = SIGNERS) -> bytes:
    return sign_checkpoint(
        Checkpoint("example.com/log", size, hashlib.sha256(b"%d" % size).digest()),
        signers,
        timestamp=at,
    )


def stamped(station: Station, size: int, at: int = 1_700_000_000) -> Stamp:
    note = note_of(size, at)
    return Stamp("one", size, note, station.reply(make_request(note).der))


def test_the_time_of_an_entry(station: Station) -> None:
    before, after = stamped(station, 5), stamped(station, 9, 1_700_000_060)
    authority = station.authority
    said = verify_stamp(after.answer, after.note, authority)
    signed = datetime.fromtimestamp(1_700_000_000, UTC)
    assert entry_time(5, after, before, authority, VKEYS) == EntryTime(said.not_after, signed, 9, 5)
    assert entry_time(8, after, before, authority, VKEYS).not_before == signed
    assert entry_time(0, after, None, authority, VKEYS) == EntryTime(said.not_after, None, 9, None)
    for index, including, excluding in ((4, after, before), (9, after, before), (5, before, None)):
        with pytest.raises(StampError, match="two sides of entry"):
            entry_time(index, including, excluding, authority, VKEYS)
    # A log whose clock is ahead of the authority's has nothing to say of the time.
    ahead = stamped(station, 5, int(said.not_after.timestamp()) + 1)
    assert entry_time(5, after, ahead, authority, VKEYS) == EntryTime(said.not_after, None, 9, 5)
    # Of a log that has no key with a time there is no bound from below.
    plain = replace(before, note=note_of(5, 1, SIGNERS[:1]))
    plain = replace(plain, answer=station.reply(make_request(plain.note).der))
    assert entry_time(5, after, plain, authority, VKEYS[:1]).not_before is None


def test_a_stamp_over_something_else(station: Station) -> None:
    stamp = stamped(station, 5)
    authority = station.authority
    verify_checkpoint_stamp(stamp, authority, VKEYS)
    with pytest.raises(StampError, match="is of size 5, not 6"):
        verify_checkpoint_stamp(replace(stamp, size=6), authority, VKEYS)
    with pytest.raises(StampError, match="Mismatch between messages"):
        verify_checkpoint_stamp(replace(stamp, note=note_of(5, 7)), authority, VKEYS)
    with pytest.raises(StampError, match="not signed by a known key"):
        stranger = Signer.generate("example.com/log", Algorithm.ED25519).vkey
        verify_checkpoint_stamp(stamp, authority, [stranger])
    with pytest.raises(StampError, match="wanted one of"):
        stranger = Signer.generate("example.com/other", Algorithm.ED25519).vkey
        verify_checkpoint_stamp(stamp, authority, [stranger])
    nonsense = Stamp("one", 5, b"nonsense", station.reply(make_request(b"nonsense").der))
    with pytest.raises(StampError, match="stamped checkpoint of size 5"):
        verify_checkpoint_stamp(nonsense, authority, VKEYS)


def test_times_that_no_calendar_has(
    station: Station, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a trusted authority signs by mistake is no traceback."""
    from tlog.audit import stamps

    def late(*_: object) -> StampTime:
        raise OverflowError("date value out of range")

    monkeypatch.setattr(stamps, "_time", late)
    with pytest.raises(StampError, match="out of range"):
        verify_stamp(answer, NOTE, station.authority)
