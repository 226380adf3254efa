"""Signed notes. SPEC signed-note: "A note is text signed by one or more keys."."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tlog.notes.codec import (
    check_text,
    decode_base64,
    decode_utf8,
    encode_base64,
    encode_utf8,
    shown,
)
from tlog.notes.errors import NoteError
from tlog.notes.keys import Algorithm, Signer, VerifierKey, check_name_characters

# SPEC signed-note: "MUST accept at least up to 16 signatures. Remember that post-quantum
# signatures can be up to nearly 5kB in size."  Both bounds admit 64 signatures of ML-DSA-44:
# enough for a log, its key rotation, and the 32 witnesses that tlog-policy asks for.
MAX_SIGNATURES = 64
MAX_NOTE_SIZE = 256 * 1024

_KEY_ID_SIZE = 4


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: claimed, not verified.

    `signature` is what follows the key ID; its form depends on the algorithm of the key.
    """

    name: str
    key_id: int
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_name_characters(self.name)
        if not 0 <= self.key_id < 1 << 32:
            raise NoteError(f"key ID {self.key_id} is not a uint32")
        if not self.signature:
            raise NoteError(f"the signature of {shown(self.name)} is empty")

    @classmethod
    def parse(cls, line: str) -> "NoteSignature":
        """Read `— <key name> base64(key ID || signature)`, without the newline."""
        dash, _, rest = line.partition(" ")
        name, space, encoded = rest.partition(" ")
        if dash != "—" or not space:
            raise NoteError(f"{shown(line)} is not a signature line: — <name> <base64>")
        data = decode_base64(encoded)
        if len(data) <= _KEY_ID_SIZE:
            raise NoteError(
                f"the signature of {shown(name)} has {len(data)} bytes, "
                "it needs 4 of key ID and at least one more"
            )
        return cls(name, int.from_bytes(data[:_KEY_ID_SIZE], "big"), data[_KEY_ID_SIZE:])

    def encode(self) -> bytes:
        """The signature line, with its newline."""
        data = self.key_id.to_bytes(_KEY_ID_SIZE, "big") + self.signature
        return f"— {self.name} {encode_base64(data)}\n".encode()

    @property
    def label(self) -> str:
        """`<name>+<key ID>`, as `VerifierKey.label`."""
        return f"{self.name}+{self.key_id:08x}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text (its final newline included) and its signature lines in order, none of them verified.

    SPEC signed-note: "The text MUST be ignored unless the note is signed by a trusted key and the
    signature has been verified."
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n"):
            raise NoteError("the text of a note must end in a newline")
        check_text(self.text, "note")
        encode_utf8(self.text, "note")
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise NoteError(
                f"a note with {len(self.signatures)} signatures, it needs 1 to {MAX_SIGNATURES}"
            )

    def encode(self) -> bytes:
        """The note's bytes; `parse_note` gives this note again."""
        lines = b"".join(signature.encode() for signature in self.signatures)
        return self.text.encode() + b"\n" + lines


def parse_note(data: bytes, *, max_size: int = MAX_NOTE_SIZE) -> Note:
    """Read a signed note of at most `max_size` bytes, without verifying any signature.

    Raises:
        NoteError: not a signed note in its one canonical encoding, or too large.
    """
    if len(data) > max_size:
        raise NoteError(f"a note of {len(data)} bytes, the limit is {max_size}")
    # SPEC signed-note: "the text is separated from the signatures by the last empty line".
    split = data.rfind(b"\n\n")
    if split < 0:
        raise NoteError("a note without an empty line between its text and its signatures")
    text = decode_utf8(data[: split + 1], "note")
    return Note(text, parse_signatures(data[split + 2 :], first_line=text.count("\n") + 2))


def parse_signatures(data: bytes, *, first_line: int = 1) -> tuple[NoteSignature, ...]:
    """Read 1 to 64 signature lines, as they end a note or as a witness answers them.

    The caller bounds `data`; `first_line` numbers the lines in error messages.
    """
    if not data.endswith(b"\n"):
        raise NoteError("signature lines must end in a newline: absent or cut short")
    if (count := data.count(b"\n")) > MAX_SIGNATURES:
        raise NoteError(f"{count} signature lines, the limit is {MAX_SIGNATURES}")
    signatures = []
    for number, line in enumerate(data[:-1].split(b"\n"), first_line):
        try:
            signatures.append(NoteSignature.parse(decode_utf8(line, "signature line")))
        except NoteError as error:
            raise NoteError(f"line {number}: {error}") from None
    return tuple(signatures)


def known_signatures(
    note: Note, vkeys: Iterable[VerifierKey]
) -> Iterator[tuple[VerifierKey, NoteSignature]]:
    """The signatures that claim to be of one of `vkeys`, each with that key. All MUST be verified.

    SPEC signed-note: "Verifiers MUST ignore signatures from unknown keys, even if they share a
    name or ID (but not both) with a known key."

    Raises:
        NoteError: two different keys have one name and key ID, so nobody can tell whose
            signature a line is.
    """
    known: dict[tuple[str, int], VerifierKey] = {}
    for vkey in vkeys:
        if known.setdefault((vkey.name, vkey.key_id), vkey) != vkey:
            raise NoteError(f"two different keys are called {vkey.label}: remove one")
    for signature in note.signatures:
        if key := known.get((signature.name, signature.key_id)):
            yield key, signature


def sign_text(text: str, signer: Signer) -> NoteSignature:
    """A plain Ed25519 (0x01) signature over the text of a note."""
    _check_plain(signer.vkey)
    signature = signer.sign(encode_utf8(text, "note"))
    return NoteSignature(signer.vkey.name, signer.vkey.key_id, signature)


def verify_text(text: str, vkey: VerifierKey, signature: NoteSignature) -> None:
    """Verify what `sign_text` made; NoteError when it does not verify."""
    _check_plain(vkey)
    if not vkey.verifies(signature.signature, encode_utf8(text, "note")):
        raise NoteError(f"the signature of {vkey.label} does not verify")


def _check_plain(vkey: VerifierKey) -> None:
    if vkey.algorithm is not Algorithm.ED25519:
        raise NoteError(f"{vkey.label} is a {vkey.algorithm.name} key: it signs checkpoints only")
