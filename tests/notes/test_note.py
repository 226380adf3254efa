import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notes.keyring import LOG_ED, LOG_PQ, SPACES, names
from tests.notes.vectors import (
    COSIGNED,
    FOO_NOTE,
    FOO_VKEY,
    QUASIMODO_NOTE,
    REQUEST_CHECKPOINT,
    WITNESS_ANSWER,
)
from tlog.notes import Note, NoteError, NoteSignature, VerifierKey, parse_note, parse_signatures
from tlog.notes.note import MAX_NOTE_SIZE, known_signatures, sign_text, verify_text

FOO = VerifierKey.parse(FOO_VKEY)
LINE = "— a AAAAAAA=\n"  # key ID 0 and one byte of signature

texts = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]) | st.just("\n")).map(
    lambda text: text + "\n"
)
signatures = st.builds(NoteSignature, names, st.integers(0, 2**32 - 1), st.binary(min_size=1))


def test_the_example_of_the_specification_verifies() -> None:
    note = parse_note(FOO_NOTE)
    assert note.text == "This is an example message.\n"
    [(vkey, signature)] = known_signatures(note, [FOO])
    verify_text(note.text, vkey, signature)
    with pytest.raises(NoteError, match="does not verify"):
        verify_text(note.text + "\n", vkey, signature)


@pytest.mark.parametrize("data", [FOO_NOTE, QUASIMODO_NOTE, COSIGNED, REQUEST_CHECKPOINT])
def test_examples_round_trip(data: bytes) -> None:
    assert parse_note(data).encode() == data


def test_the_text_ends_at_the_last_empty_line() -> None:
    note = parse_note(QUASIMODO_NOTE)
    assert note.text.endswith("di sole:\n\ned è subito sera.\n")
    assert [signature.name for signature in note.signatures] == ["quasimodo.example/salvatore"]


def test_a_signature_line_in_the_text_is_text() -> None:
    note = parse_note(f"text\n\n{LINE}\n{LINE}".encode())
    assert note.text == f"text\n\n{LINE}"
    assert len(note.signatures) == 1


def test_the_answer_of_a_witness() -> None:
    lines = parse_signatures(WITNESS_ANSWER)
    assert [line.name for line in lines] == ["witness.example/w1"] * 2 + ["witness.example/w2"]
    assert b"".join(line.encode() for line in lines) == WITNESS_ANSWER
    assert parse_note(b"text\n\n" + WITNESS_ANSWER).signatures == lines


@given(texts, st.lists(signatures, min_size=1, max_size=5).map(tuple))
def test_round_trip(text: str, lines: tuple[NoteSignature, ...]) -> None:
    note = Note(text, lines)
    assert parse_note(note.encode()) == note


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_exactly(data: bytes) -> None:
    for candidate in (data, data + b"\n\n" + LINE.encode(), b"text\n\n" + data):
        try:
            note = parse_note(candidate)
        except NoteError:
            continue
        assert note.encode() == candidate


@pytest.mark.parametrize("length", range(len(FOO_NOTE)))
def test_truncated_anywhere(length: int) -> None:
    with pytest.raises(NoteError):
        parse_note(FOO_NOTE[:length])


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_the_example(bit: int) -> None:
    for position in range(len(FOO_NOTE)):
        data = bytearray(FOO_NOTE)
        data[position] ^= 1 << bit
        try:
            note = parse_note(bytes(data))
        except NoteError:
            continue
        for vkey, signature in known_signatures(note, [FOO]):
            with pytest.raises(NoteError, match="does not verify"):
                verify_text(note.text, vkey, signature)


def test_every_flipped_byte_of_a_cosigned_checkpoint_is_refused_or_seen() -> None:
    # No key is known here: what is not refused must read as something else.
    for position in range(len(COSIGNED)):
        data = bytearray(COSIGNED)
        data[position] ^= 0x01
        try:
            note = parse_note(bytes(data))
        except NoteError:
            continue
        assert note != parse_note(COSIGNED)
        assert note.encode() == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "without an empty line"),
        (b"\n", "without an empty line"),
        (b"text\n", "without an empty line"),
        (f"text\n{LINE}".encode(), "without an empty line"),
        (f"\n{LINE}".encode(), "without an empty line"),
        (b"\n\n", "signature lines must end"),
        (b"text\n\n", "signature lines must end"),
        (f"text\n\n{LINE}\n".encode(), "signature lines must end"),
        (f"text\n\n{LINE}"[:-1].encode(), "signature lines must end"),
        (f"text\r\n\r\n{LINE}".encode(), "without an empty line"),
        (f"text\r\n\n{LINE}".encode(), r"U\+000D on line 1"),
        (f"text\n\n{LINE}".replace("=\n", "=\r\n").encode(), "line 3: .*base64"),
        (f"a\nb\tc\n\n{LINE}".encode(), r"U\+0009 on line 2"),
        (f"a\x00\n\n{LINE}".encode(), r"U\+0000 on line 1"),
        (f"a\x1f\n\n{LINE}".encode(), r"U\+001F on line 1"),
        (b"one\ntwo \xff\n\n" + LINE.encode(), "UTF-8.* on line 2"),
        (b"\xed\xa0\x80\n\n" + LINE.encode(), "UTF-8"),
        (b"\xc0\x8a\n\n" + LINE.encode(), "UTF-8"),
        (b"text\n\n" + LINE.encode()[1:], "line 3"),
        (b"text\n\n" + LINE.encode() + b"\xff\n", "line 4: .*UTF-8"),
    ],
)
def test_bad_notes(data: bytes, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        parse_note(data)


@pytest.mark.parametrize(
    "line",
    [
        "- a AAAAAAA=",
        "– a AAAAAAA=",
        "—a AAAAAAA=",
        "— a",
        "— a ",
        "— ",
        "—",
        "—  AAAAAAA=",
        "—  a AAAAAAA=",
        "— a  AAAAAAA=",
        " — a AAAAAAA=",
        "— a AAAAAAA= ",
        "— a AAAAAAA= b",
        "— a+b AAAAAAA=",
        "— a AAAAAAA",
        "— a AAAAAAB=",
        "— a AAAAAAA==",
        "— a AAAA",
        "— a AAA_AAA=",
        "— a AAA*AAAA",
        "— a AAAA=AAA",
        "— a ＡＡＡＡＡＡＡ=",
        *(f"— a{space}b AAAAAAA=" for space in SPACES),
    ],
)
def test_bad_signature_lines(line: str) -> None:
    with pytest.raises(NoteError, match="line 5: "):
        parse_note(f"text\n\n{LINE}".encode() + LINE.encode() + f"{line}\n".encode())


def test_a_key_id_without_a_signature() -> None:
    with pytest.raises(NoteError, match=r"line 3: .*has 4 bytes, it needs 4 of key ID"):
        parse_note("text\n\n— a AAAAAA==\n".encode())


def test_names_of_strangers_have_no_bound_of_their_own() -> None:
    name = "n" * 1000
    data = f"text\n\n— {name} AAAAAAA=\n".encode()
    assert parse_note(data).signatures[0].name == name


def test_messages_stay_short() -> None:
    with pytest.raises(NoteError) as caught:
        parse_note(b"text\n\n" + b"x" * 200_000 + b"\n")
    assert len(str(caught.value)) < 500


def test_bounds() -> None:
    large = b"text\n\n" + LINE.encode() * 64
    assert len(parse_note(large).signatures) == 64
    with pytest.raises(NoteError, match="65 signature lines, the limit is 64"):
        parse_note(large + LINE.encode())
    with pytest.raises(NoteError, match="limit is 262144"):
        parse_note(b"t" * MAX_NOTE_SIZE + b"\n")
    with pytest.raises(NoteError, match="limit is 10"):
        parse_note(large, max_size=10)


def test_sixteen_signatures_of_five_kilobytes_of_keys_we_do_not_know() -> None:
    line = f"— {'n' * 255} {base64.b64encode(bytes(4 + 5000)).decode()}\n"
    own = sign_text("text\n", LOG_ED)
    note = parse_note(b"text\n\n" + line.encode() * 15 + own.encode())
    assert [key for key, _ in known_signatures(note, [LOG_ED.vkey])] == [LOG_ED.vkey]


@pytest.mark.parametrize("text", ["", "no newline", "a\x01\n", "\ud800\n"])
def test_texts_no_note_has(text: str) -> None:
    with pytest.raises(NoteError):
        Note(text, (NoteSignature("a", 0, b"s"),))


def test_signatures_no_note_has() -> None:
    for name, key_id, signature in [("", 0, b"s"), ("a", -1, b"s"), ("a", 1 << 32, b"s")]:
        with pytest.raises(NoteError):
            NoteSignature(name, key_id, signature)
    with pytest.raises(NoteError, match="empty"):
        NoteSignature("a", 0, b"")
    with pytest.raises(NoteError, match="0 signatures"):
        Note("a\n", ())


def test_only_ed25519_signs_any_text() -> None:
    with pytest.raises(NoteError, match="checkpoints only"):
        sign_text("text\n", LOG_PQ)
    with pytest.raises(NoteError, match="checkpoints only"):
        verify_text("text\n", LOG_PQ.vkey, NoteSignature("a", 0, b"s"))
