import base64
import contextlib
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given

from tests.notes.keyring import HEAD, LOG, LOG_ED, LOG_PQ, TIME, W_ED, W_PQ, checkpoints, signer
from tests.notes.vectors import (
    BODY,
    CHECKPOINT,
    COSIGNED,
    ORIGIN,
    REQUEST_CHECKPOINT,
    ROOT,
    SIZE,
)
from tlog.notes import (
    Algorithm,
    Checkpoint,
    Note,
    NoteError,
    NoteSignature,
    Signer,
    VerifierKey,
    cosign,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
    parse_unverified,
    sign_checkpoint,
)
from tlog.notes.note import sign_text

BOTH = [LOG_ED, LOG_PQ]
VKEYS = [LOG_ED.vkey, LOG_PQ.vkey]


@pytest.mark.parametrize("data", [CHECKPOINT, COSIGNED, REQUEST_CHECKPOINT])
def test_the_examples_of_the_specifications(data: bytes) -> None:
    signed = parse_unverified(data)
    assert signed.checkpoint == Checkpoint(ORIGIN, SIZE, base64.b64decode(ROOT))
    assert signed.checkpoint.body() == BODY
    assert signed.note.encode() == data


@given(checkpoints)
def test_round_trip(checkpoint: Checkpoint) -> None:
    assert parse_checkpoint(checkpoint.body()) == checkpoint


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "newline"),
        ("\n", "three lines"),
        (f"{ORIGIN}\n", "three lines"),
        (f"{ORIGIN}\n1\n", "three lines"),
        (f"{ORIGIN}\n1\n{ROOT}", "newline"),
        (f"\n1\n{ROOT}\n", "none of them empty"),
        (f"{ORIGIN}\n\n{ROOT}\n", "none of them empty"),
        (f"{ORIGIN}\n1\n\n", "none of them empty"),
        (f"{ORIGIN}\n1\n{ROOT}\n\n", "none of them empty"),
        (f"{ORIGIN}\n1\n{ROOT}\nextension\n\nother\n", "none of them empty"),
        (f"{'o' * 256}\n1\n{ROOT}\n", "origin of 256 bytes"),
        (f"{'é' * 128}\n1\n{ROOT}\n", "origin of 256 bytes"),
        *(
            (f"{ORIGIN}\n{size}\n{ROOT}\n", "not a decimal below 2")
            for size in (
                "01", "00", "-1", "+1", " 1", "1 ", "1\r", "1_0", "1.0", "1e3", "0x1", "a",
                "١", "１", "²", str(2**63), str(2**64), "9" * 20, "9" * 10_000,
            )
        ),
        (f"{ORIGIN}\n1\n{ROOT}\r\n", "base64"),
        (f"{ORIGIN}\n1\n{ROOT[:-1]}\n", "base64"),
        (f"{ORIGIN}\n1\n{ROOT[:-2]}J=\n", "canonical"),
        (f"{ORIGIN}\n1\n{ROOT.replace('/', '_')}\n", "base64"),
        (f"{ORIGIN}\n1\n{ROOT}=\n", "base64"),
        (f"{ORIGIN}\n1\n{base64.b64encode(bytes(31)).decode()}\n", "holds 31 bytes"),
        (f"{ORIGIN}\n1\n{base64.b64encode(bytes(33)).decode()}\n", "holds 33 bytes"),
        (f"{ORIGIN}\n1\n{ROOT}\ncontrol\x07\n", r"U\+0007"),
        (f"{ORIGIN}\t\n1\n{ROOT}\n", r"U\+0009"),
        (f"\ud800\n1\n{ROOT}\n", "UTF-8"),
    ],
)  # fmt: skip
def test_bad_bodies(body: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        parse_checkpoint(body)


@pytest.mark.parametrize("origin", ["with space", "with+plus", "go.sum database tree", "\x7f", "—"])
@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_bodies_other_logs_may_write(origin: str, size: int) -> None:
    body = f"{origin}\n{size}\n{ROOT}\nfirst extension\n— second\n"
    checkpoint = parse_checkpoint(body)
    assert checkpoint.extensions == ("first extension", "— second")
    assert (checkpoint.origin, checkpoint.size, checkpoint.body()) == (origin, size, body)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": -1},
        {"size": 2**63},
        {"root_hash": bytes(31)},
        {"origin": ""},
        {"origin": "a\nb"},
        {"origin": "a\x00"},
        {"extensions": ("",)},
        {"extensions": ("a\nb",)},
    ],
)
def test_values_no_checkpoint_has(fields: dict[str, object]) -> None:
    with pytest.raises(NoteError):
        replace(HEAD, **fields)  # type: ignore[arg-type]


# Signing


def test_dual_signed_under_one_name() -> None:
    data = sign_checkpoint(HEAD, BOTH, timestamp=TIME)
    verified = open_checkpoint(data, VKEYS)
    assert verified.checkpoint == HEAD
    assert verified.signed_by == ((LOG_ED.vkey, None), (LOG_PQ.vkey, TIME))
    for vkey, timestamp in verified.signed_by:
        assert open_checkpoint(data, [vkey]).signed_by == ((vkey, timestamp),)
    assert data.startswith(HEAD.body().encode() + b"\n\xe2\x80\x94 log.example/one ")


def test_an_empty_log_signs_its_empty_root() -> None:
    empty = Checkpoint(LOG, 0, hashlib.sha256(b"").digest())
    assert open_checkpoint(sign_checkpoint(empty, BOTH, timestamp=1), VKEYS).checkpoint == empty
    with pytest.raises(NoteError, match="empty tree"):
        sign_checkpoint(replace(HEAD, size=0), BOTH, timestamp=1)


@pytest.mark.parametrize("timestamp", [0, -1, 2**63])
def test_bad_timestamps(timestamp: int) -> None:
    with pytest.raises(NoteError, match="timestamp"):
        sign_checkpoint(HEAD, BOTH, timestamp=timestamp)


def test_what_a_log_does_not_sign() -> None:
    with pytest.raises(NoteError, match="extension"):
        sign_checkpoint(replace(HEAD, extensions=("x",)), BOTH, timestamp=TIME)
    with pytest.raises(NoteError, match="space or a plus"):
        sign_checkpoint(replace(HEAD, origin="a b"), BOTH, timestamp=TIME)
    with pytest.raises(NoteError, match="does not sign for the origin"):
        sign_checkpoint(HEAD, [signer("log.example/two", Algorithm.ED25519)], timestamp=TIME)
    with pytest.raises(NoteError, match="checkpoints only"):
        sign_checkpoint(HEAD, [signer(LOG, Algorithm.ED25519_COSIGNATURE)], timestamp=TIME)
    with pytest.raises(NoteError, match="0 signatures"):
        sign_checkpoint(HEAD, [], timestamp=TIME)
    with pytest.raises(NoteError, match="twice"):
        sign_checkpoint(HEAD, [LOG_ED, LOG_ED], timestamp=TIME)


# Opening

SIGNED = sign_checkpoint(HEAD, BOTH, timestamp=TIME)


@pytest.mark.parametrize("signers", [[LOG_ED], [LOG_PQ], [LOG_ED, LOG_PQ]])
def test_a_flipped_bit_in_any_byte_is_refused(signers: list[Signer]) -> None:
    data = sign_checkpoint(HEAD, signers, timestamp=TIME)
    vkeys = [key.vkey for key in signers]
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        # A damaged name or key ID makes one signature unknown. The other may still vouch, but
        # then for the same checkpoint.
        if len(signers) > 1:
            with contextlib.suppress(NoteError):
                assert open_checkpoint(bytes(flipped), vkeys).checkpoint == HEAD
            continue
        with pytest.raises(NoteError):
            open_checkpoint(bytes(flipped), vkeys)


def test_every_bit_of_an_ed25519_signed_checkpoint() -> None:
    data = sign_checkpoint(HEAD, [LOG_ED], timestamp=TIME)
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises(NoteError):
                open_checkpoint(bytes(flipped), [LOG_ED.vkey])


def test_truncated_anywhere() -> None:
    first = len(sign_checkpoint(HEAD, [LOG_ED], timestamp=TIME))
    for length in range(len(SIGNED)):
        if length == first:  # exactly the note without its last line
            assert open_checkpoint(SIGNED[:length], VKEYS).signed_by == ((LOG_ED.vkey, None),)
            continue
        with pytest.raises(NoteError):
            open_checkpoint(SIGNED[:length], VKEYS)


def test_unknown_keys_are_ignored_and_bad_signatures_of_known_ones_are_not() -> None:
    stranger = NoteSignature(LOG, 1, b"same name, other key ID")
    namesake = NoteSignature("log.example/two", LOG_ED.vkey.key_id, b"other name, same key ID")
    note = parse_note(SIGNED)
    noisy = Note(note.text, (stranger, *note.signatures, namesake))
    assert open_checkpoint(noisy.encode(), VKEYS).checkpoint == HEAD

    forged = NoteSignature(LOG, LOG_ED.vkey.key_id, bytes(64))
    for signatures in ((forged, *note.signatures), (*note.signatures, forged)):
        with pytest.raises(NoteError, match="does not verify"):
            open_checkpoint(Note(note.text, signatures).encode(), VKEYS)
    # ... but a verifier that does not know that key is not disturbed.
    data = Note(note.text, (forged, *note.signatures)).encode()
    assert open_checkpoint(data, [LOG_PQ.vkey]).signed_by == ((LOG_PQ.vkey, TIME),)


def test_nothing_known() -> None:
    with pytest.raises(NoteError, match="not signed by a known key"):
        open_checkpoint(SIGNED, [])
    with pytest.raises(NoteError, match="not signed by a known key"):
        open_checkpoint(SIGNED, [signer(LOG, Algorithm.ED25519, 1).vkey])


def test_origin() -> None:
    assert open_checkpoint(SIGNED, VKEYS, origin=LOG).checkpoint == HEAD
    with pytest.raises(NoteError, match=r"wanted one of 'log\.example/two'"):
        open_checkpoint(SIGNED, VKEYS, origin="log.example/two")


def test_one_log_cannot_speak_for_another() -> None:
    other = signer("log.example/two", Algorithm.ED25519)
    data = Note(HEAD.body(), (sign_text(HEAD.body(), other),)).encode()
    with pytest.raises(NoteError, match="not signed by a known key of that log"):
        open_checkpoint(data, [*VKEYS, other.vkey])
    # A log whose key has another name than its origin is named by the caller.
    assert open_checkpoint(data, [other.vkey], origin=LOG).signed_by == ((other.vkey, None),)


def test_a_witness_alone_does_not_make_a_checkpoint() -> None:
    line = cosign(HEAD, W_ED, timestamp=TIME)
    with pytest.raises(NoteError, match="not signed by a known key of that log"):
        open_checkpoint(Note(HEAD.body(), (line,)).encode(), [*VKEYS, W_ED.vkey])
    full = SIGNED + line.encode() + cosign(HEAD, W_PQ, timestamp=TIME + 1).encode()
    assert open_checkpoint(full, [W_PQ.vkey, W_ED.vkey, *VKEYS]).signed_by == (
        (LOG_ED.vkey, None),
        (LOG_PQ.vkey, TIME),
        (W_ED.vkey, TIME),
        (W_PQ.vkey, TIME + 1),
    )


def test_a_key_counts_once_with_its_newest_time() -> None:
    lines = b"".join(
        cosign(HEAD, W_ED, timestamp=time).encode() for time in (TIME, TIME + 5, TIME + 2)
    )
    verified = open_checkpoint(SIGNED + lines, [*VKEYS, W_ED.vkey])
    assert verified.signed_by[2:] == ((W_ED.vkey, TIME + 5),)


def test_extension_lines_are_not_verified_by_ml_dsa() -> None:
    extended = replace(HEAD, extensions=("extra",))
    text = extended.body()
    quantum, plain = cosign(extended, LOG_PQ, timestamp=TIME), sign_text(text, LOG_ED)
    alone = Note(text, (quantum,)).encode()
    assert open_checkpoint(alone, VKEYS).checkpoint == HEAD
    assert open_checkpoint(alone.replace(b"extra", b"other"), VKEYS).checkpoint == HEAD
    together = Note(text, (quantum, plain)).encode()
    assert open_checkpoint(together, VKEYS).checkpoint == extended
    with pytest.raises(NoteError):
        open_checkpoint(together.replace(b"extra", b"other"), VKEYS)


def test_two_keys_of_one_name_and_id() -> None:
    collision = replace(LOG_ED.vkey)
    object.__setattr__(collision, "public_key", bytes(32))  # a real one takes 2^32 tries
    assert (collision.name, collision.key_id) == (LOG_ED.vkey.name, LOG_ED.vkey.key_id)
    with pytest.raises(NoteError, match="two different keys are called"):
        open_checkpoint(SIGNED, [LOG_ED.vkey, collision])
    assert open_checkpoint(SIGNED, [LOG_ED.vkey, LOG_ED.vkey]).checkpoint == HEAD


def test_one_key_as_plain_signer_and_as_cosigner() -> None:
    cosigner = Signer.from_seed(LOG, Algorithm.ED25519_COSIGNATURE, LOG_ED.seed)
    line = cosign(HEAD, cosigner, timestamp=TIME)
    verified = open_checkpoint(SIGNED + line.encode(), [*VKEYS, cosigner.vkey])
    assert verified.signed_by[2] == (cosigner.vkey, TIME)
    swapped = NoteSignature(LOG, LOG_ED.vkey.key_id, line.signature)
    with pytest.raises(NoteError, match="does not verify"):
        open_checkpoint(SIGNED + swapped.encode(), VKEYS)


def test_sixteen_post_quantum_witnesses_and_the_bound() -> None:
    witnesses = [signer(f"witness.example/{i}", Algorithm.MLDSA44) for i in range(62)]
    lines = [cosign(HEAD, key, timestamp=TIME).encode() for key in witnesses]
    vkeys: list[VerifierKey] = [*VKEYS, *(key.vkey for key in witnesses)]
    assert len(open_checkpoint(SIGNED + b"".join(lines), vkeys).signed_by) == 64
    with pytest.raises(NoteError, match="65 signature lines, the limit is 64"):
        open_checkpoint(SIGNED + b"".join([*lines, lines[0]]), vkeys)
    with pytest.raises(NoteError, match="limit is 16384"):
        parse_unverified(SIGNED + b"".join(lines), max_size=16384)
