"""The bodies of the protocol: one encoding, everything else gets a line that says why."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.witness import (
    AddCheckpoint,
    BadRequest,
    SignSubtree,
    parse_add_checkpoint,
    parse_sign_subtree,
)

# The examples of tlog-witness.
NOTE = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa \
Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa \
opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
""".encode()
PROOF = [
    "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=",
    "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=",
    "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=",
    "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=",
]
SUBTREE = [
    "mbsQCg+dEIMGlpqeGgk94JutQwKKS2Lo5IuDhKmDjiU=",
    "CD82D2LDm0phY0+xKbHyZfq3Hw21lVkuV7Zis5EFg0k=",
    "h/ghL5nyaXTIBAklqDnisM+SFdbA3izoGZ5oRYMZzc0=",
]
ADD = "\n".join(["old 20852014", *PROOF]).encode() + b"\n\n" + NOTE
SIGN = "\n".join(["subtree 8 13", *SUBTREE]).encode() + b"\n\n" + NOTE
HASH = PROOF[0].encode()

hashes = st.binary(min_size=32, max_size=32)
sizes = st.integers(0, 2**63 - 1)
proofs = st.lists(hashes, max_size=63).map(tuple)


def test_the_examples_of_the_specification() -> None:
    add = parse_add_checkpoint(ADD)
    assert add == AddCheckpoint(20852014, tuple(map(base64.b64decode, PROOF)), NOTE)
    assert add.encode() == ADD
    root, *proof = map(base64.b64decode, SUBTREE)
    sign = parse_sign_subtree(SIGN)
    assert sign == SignSubtree(8, 13, root, tuple(proof), NOTE)
    assert sign.encode() == SIGN


@given(sizes, proofs, st.binary(max_size=300))
def test_add_checkpoint_round_trip(old: int, proof: tuple[bytes, ...], note: bytes) -> None:
    request = AddCheckpoint(old, proof, note)
    assert parse_add_checkpoint(request.encode()) == request


@given(sizes, sizes, hashes, proofs, st.binary(max_size=300))
def test_sign_subtree_round_trip(
    start: int, end: int, root: bytes, proof: tuple[bytes, ...], note: bytes
) -> None:
    request = SignSubtree(start, end, root, proof, note)
    assert parse_sign_subtree(request.encode()) == request


@pytest.mark.parametrize("old", [0, 1, 2**63 - 1])
def test_sizes_at_their_bounds(old: int) -> None:
    assert parse_add_checkpoint(b"old %d\n\n%s" % (old, NOTE)) == AddCheckpoint(old, (), NOTE)


def test_sixty_three_lines_are_the_limit() -> None:
    for number in (63, 64, 65, 5000):
        add = b"old 1\n" + (HASH + b"\n") * number + b"\n" + NOTE
        sign = b"subtree 0 9223372036854775807\n" + (HASH + b"\n") * (number + 1) + b"\n" + NOTE
        if number == 63:
            assert len(parse_add_checkpoint(add).proof) == 63
            assert len(parse_sign_subtree(sign).proof) == 63
            continue
        with pytest.raises(BadRequest, match="63"):
            parse_add_checkpoint(add)
        with pytest.raises(BadRequest):
            parse_sign_subtree(sign)


@pytest.mark.parametrize(
    "first",
    [
        "", "old", "old ", "old  1", " old 1", "old 1 ", "Old 1", "new 1", "old 1 2", "old\t1",
        "old -1", "old +1", "old 01", "old 00", "old 1.0", "old 1e3", "old 0x1", "old 1_0",
        "old ١", "old １", "old 9223372036854775808", "old 18446744073709551616",
        "old " + "9" * 4000, "old 1\r", "old 1\x00", "\ufeffold 1", "old\u00a01", "old one",
        "subtree 0 1",
    ],
)  # fmt: skip
def test_bad_old_size_lines(first: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_add_checkpoint(first.encode() + b"\n" + HASH + b"\n\n" + NOTE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "first",
    [
        "subtree", "subtree 8", "subtree  8 13", "subtree 8  13", "subtree 8 13 ", "subtree 8 13 2",
        "subtree 08 13", "subtree 8 013", "subtree -8 13", "subtree 8 9223372036854775808",
        "subtree 8,13", "Subtree 8 13", "old 8",
    ],
)  # fmt: skip
def test_bad_range_lines(first: str) -> None:
    with pytest.raises(BadRequest):
        parse_sign_subtree(first.encode() + b"\n" + HASH + b"\n\n" + NOTE)
    with pytest.raises(BadRequest, match="hash line is missing|line 1"):
        parse_sign_subtree(b"subtree 8 13\n\n" + NOTE)


@pytest.mark.parametrize(
    "line",
    [
        HASH[:-1],  # no padding
        HASH[:-4],
        HASH + b"=",
        HASH + b" ",
        b" " + HASH,
        HASH + b"\r",
        HASH.replace(b"w=", b"x="),  # spare bits
        base64.urlsafe_b64encode(bytes([255] * 32)),
        base64.b64encode(bytes(31)),
        base64.b64encode(bytes(33)),
        b"",  # base64 of nothing would be an empty line: it ends the proof
        "é".encode() * 22,
        b"\xff" * 44,
        b"\x00" * 44,
        hashlib.sha256(b"").hexdigest().encode(),
        b"A" * 100_000,
    ],
)
def test_bad_hash_lines(line: bytes) -> None:
    if not line:
        assert parse_add_checkpoint(b"old 1\n\n" + HASH).note == HASH
        return
    for parse, first in (
        (parse_add_checkpoint, b"old 1\n"),
        (parse_sign_subtree, b"subtree 0 1\n"),
        (parse_sign_subtree, b"subtree 0 1\n" + HASH + b"\n"),
    ):
        with pytest.raises(BadRequest) as caught:
            parse(first + line + b"\n\n" + NOTE)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"\n\n",
        b"\n\n" + NOTE,
        b"old 1",
        b"old 1\n",
        b"old 1\n" + HASH + b"\n",
        b"old 1\r\n" + HASH + b"\r\n\r\n" + NOTE.replace(b"\n", b"\r\n"),
        b"old 1\n" + HASH + b"\n \n" + NOTE,
        ADD.replace(b"\n", b"\r"),
        ADD.decode().encode("utf-16"),
        bytes(200_000),
        b"\n" * 1000,
    ],
)
def test_bad_bodies(body: bytes) -> None:
    for parse in (parse_add_checkpoint, parse_sign_subtree):
        with pytest.raises(BadRequest):
            parse(body)


def test_the_size_of_a_body_is_bounded() -> None:
    body = b"old 0\n\n" + bytes(256 * 1024 - 7)
    assert parse_add_checkpoint(body).note == bytes(256 * 1024 - 7)
    with pytest.raises(BadRequest, match="262145 bytes, the limit is 262144"):
        parse_add_checkpoint(body + b"x")
    with pytest.raises(BadRequest, match="limit is 20"):
        parse_sign_subtree(SIGN, max_size=20)


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_anything_is_refused_or_round_trips(body: bytes) -> None:
    for data in (body, b"old 5\n" + body, b"subtree 0 4\n" + HASH + b"\n" + body):
        for parse in (parse_add_checkpoint, parse_sign_subtree):
            try:
                assert parse(data).encode() == data
            except BadRequest as error:
                assert "\n" not in str(error)  # noqa: PT017


@given(st.data())
def test_every_changed_byte_is_noticed(data: st.DataObject) -> None:
    """One encoding: a changed body is refused, or is another value."""
    body = bytearray(data.draw(st.sampled_from([ADD, SIGN])))
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for parse in (parse_add_checkpoint, parse_sign_subtree):
        with contextlib.suppress(BadRequest):
            assert parse(bytes(body)).encode() == body


def test_encoders_refuse_what_the_parsers_would() -> None:
    for request in (
        AddCheckpoint(-1, (), NOTE),
        AddCheckpoint(1 << 63, (), NOTE),
        AddCheckpoint(1, (bytes(32),) * 64, NOTE),
        AddCheckpoint(1, (bytes(31),), NOTE),
        SignSubtree(1, -1, bytes(32), (), NOTE),
        SignSubtree(0, 1, bytes(33), (), NOTE),
        SignSubtree(0, 1, bytes(32), (b"",), NOTE),
    ):
        with pytest.raises(BadRequest):
            request.encode()
