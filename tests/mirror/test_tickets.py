"""Tickets: who did not issue one cannot make one, and none lasts for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.mirror.support import LOG
from tests.witness.support import Clock, signer
from tlog.mirror import Tickets
from tlog.mirror.tickets import LIFETIME_SECONDS, MAX_TICKET_SIZE
from tlog.notes import Algorithm

SIGNER = signer("mirror.example/m1", Algorithm.ED25519_COSIGNATURE)
OTHER = signer("mirror.example/m2", Algorithm.ED25519_COSIGNATURE)
NOTE = LOG.note(900)


def tickets(*, of: object = SIGNER, now: float = 1_700_000_000) -> Tickets:
    return Tickets.of([SIGNER if of is SIGNER else OTHER], clock=Clock(now))


@given(st.binary(max_size=200), st.integers(0, LIFETIME_SECONDS))
def test_a_ticket_gives_its_note_for_a_day(note: bytes, age: int) -> None:
    issued = tickets().issue(note)
    # Also after a restart: another object, the same keys.
    assert tickets(now=1_700_000_000 + age).read(issued) == note


@given(st.integers(1, 10**9))
def test_it_expires_and_is_not_from_the_future(seconds: int) -> None:
    issued = tickets().issue(NOTE)
    assert tickets(now=1_700_000_000 + LIFETIME_SECONDS + seconds).read(issued) is None
    assert tickets(now=1_700_000_000 - seconds).read(issued) is None


def test_another_mirror_has_not_issued_it() -> None:
    assert tickets(of=OTHER).read(tickets().issue(NOTE)) is None


def test_every_flipped_bit_is_a_forgery() -> None:
    issued = tickets().issue(b"a note")
    for position in range(len(issued) * 8):
        forged = bytearray(issued)
        forged[position // 8] ^= 1 << position % 8
        assert tickets().read(bytes(forged)) is None


@given(st.binary(max_size=200))
def test_nothing_else_is_a_ticket(data: bytes) -> None:
    assert tickets().read(data) is None


def test_no_part_of_a_ticket_is_one() -> None:
    issued = tickets().issue(b"a note")
    assert [end for end in range(len(issued)) if tickets().read(issued[:end]) is not None] == []
    assert tickets().read(issued + b"\0") is None


def test_a_note_that_is_too_long_has_no_ticket() -> None:
    assert len(tickets().issue(b"n" * (MAX_TICKET_SIZE - 40))) == MAX_TICKET_SIZE
    assert tickets().issue(b"n" * (MAX_TICKET_SIZE - 39)) == b""
    assert tickets().read(b"") is None
