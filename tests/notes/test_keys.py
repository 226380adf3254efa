import base64
import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notes.keyring import LOG_ED, LOG_PQ, SPACES, W_ED, W_PQ, names, signer
from tests.notes.vectors import FOO_VKEY
from tlog.notes import Algorithm, NoteError, Signer, VerifierKey, check_name

ALL = [LOG_ED, LOG_PQ, W_ED, W_PQ]


def vkey_text(name: str, material: bytes, key_id: str | None = None) -> str:
    computed = hashlib.sha256(name.encode() + b"\n" + material).hexdigest()[:8]
    return f"{name}+{key_id or computed}+{base64.b64encode(material).decode()}"


def test_the_example_of_the_specification() -> None:
    vkey = VerifierKey.parse(FOO_VKEY)
    assert (vkey.name, vkey.algorithm, vkey.key_id) == (
        "example.com/foo",
        Algorithm.ED25519,
        0x530D903A,
    )
    assert str(vkey) == FOO_VKEY
    assert VerifierKey.parse(FOO_VKEY.encode()) == vkey


def test_rfc_8032_first_test_vector() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = Signer.from_seed("a", Algorithm.ED25519, seed)
    assert key.vkey.public_key.hex().startswith("d75a980182b10ab7d54bfed3c964073a")
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a")
    assert key.seed == seed


@pytest.mark.parametrize("key", ALL)
def test_round_trip(key: Signer) -> None:
    assert VerifierKey.parse(str(key.vkey)) == key.vkey
    assert pickle.loads(pickle.dumps(key.vkey)) == key.vkey
    again = Signer.from_seed(key.vkey.name, key.vkey.algorithm, key.seed)
    assert again.vkey == key.vkey
    assert again.vkey.verifies(key.sign(b"m"), b"m")
    assert not again.vkey.verifies(key.sign(b"m"), b"n")
    assert key.seed.hex() not in repr(key)
    assert repr(key.seed) not in repr(key)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_generate(algorithm: Algorithm) -> None:
    one, two = Signer.generate("a", algorithm), Signer.generate("a", algorithm)
    assert one.seed != two.seed
    assert one.vkey.verifies(one.sign(b"m"), b"m")
    assert not two.vkey.verifies(one.sign(b"m"), b"m")


def test_one_seed_under_two_algorithms_or_names_has_different_key_ids() -> None:
    seed = bytes(32)
    ids = {
        Signer.from_seed(name, algorithm, seed).vkey.key_id
        for name in ("a", "b")
        for algorithm in Algorithm
    }
    assert len(ids) == 6


@pytest.mark.parametrize("key", ALL)
@pytest.mark.parametrize("size", [0, 1, 63, 65, 2419, 2421, 10_000])
def test_a_signature_of_another_size_does_not_verify(key: Signer, size: int) -> None:
    assert not key.vkey.verifies(bytes(size), b"m")


@pytest.mark.parametrize("key", [LOG_ED, LOG_PQ])
def test_every_flipped_bit_of_a_vkey_is_refused_or_is_another_key(key: Signer) -> None:
    text = str(key.vkey).encode()
    step = 1 if len(text) < 100 else 7
    for position in range(0, len(text), step):
        for bit in range(8):
            flipped = bytearray(text)
            flipped[position] ^= 1 << bit
            with pytest.raises(NoteError):
                VerifierKey.parse(bytes(flipped))


@pytest.mark.parametrize("length", range(len(FOO_VKEY)))
def test_a_truncated_vkey_is_refused(length: int) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(FOO_VKEY[:length])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a vkey"),
        ("a", "not a vkey"),
        ("a+b", "not a vkey"),
        ("a+b+c", "not a vkey"),
        (FOO_VKEY.replace("530d903a", "530D903A"), "not a vkey"),
        (FOO_VKEY.replace("530d903a", "530d903"), "not a vkey"),
        (FOO_VKEY.replace("530d903a", "530d903b"), "names the key ID 530d903b"),
        (FOO_VKEY.replace("foo", "bar"), "names the key ID"),
        (FOO_VKEY + "\n", "base64"),
        (FOO_VKEY + "=", "base64"),
        (FOO_VKEY[:-1] + "l", "names the key ID"),
        (" " + FOO_VKEY, "space"),
        (FOO_VKEY.encode() + b"\xff", "UTF-8"),
        ("a+00000000+", "supported: 0x01 ED25519, 0x04 ED25519_COSIGNATURE, 0x06 MLDSA44"),
        (vkey_text("a", b"\x02" + bytes(32)), "type 0x02; supported: 0x01"),
        (vkey_text("a", b"\xff" + bytes(32)), "type 0xff; supported"),
        (vkey_text("a", b"\x01" + bytes(31)), "has 31 bytes"),
        (vkey_text("a", b"\x01" + bytes(33)), "has 33 bytes"),
        (vkey_text("a", b"\x04" + bytes(1312)), "has 1312 bytes"),
        (vkey_text("a", b"\x06" + bytes(32)), "MLDSA44 keys have 1312"),
        (vkey_text("", b"\x01" + bytes(32)), "empty"),
        (vkey_text("a" * 256, b"\x01" + bytes(32)), "limit is 255"),
        (vkey_text("é" * 128, b"\x01" + bytes(32)), "limit is 255"),
        ("a" * 3000, "limit is 2048"),
    ],
)
def test_bad_vkeys(text: str | bytes, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        VerifierKey.parse(text)


def test_the_longest_vkey() -> None:
    key = signer("n" * 255, Algorithm.MLDSA44)
    assert VerifierKey.parse(str(key.vkey)) == key.vkey


@pytest.mark.parametrize("character", [*SPACES, "+", "\x00", "\t", "\n", "\r", "\x1f", "\ud800"])
def test_characters_a_name_must_not_have(character: str) -> None:
    with pytest.raises(NoteError):
        check_name(f"a{character}b")
    with pytest.raises(NoteError):
        VerifierKey(f"a{character}b", Algorithm.ED25519, bytes(32))


@pytest.mark.parametrize("name", ["a", "é", "a/b:c@d", "\u200b", "\x7f", "—", "n" * 255, "é" * 127])
def test_names_the_specification_allows(name: str) -> None:
    check_name(name)


def test_seed_of_another_size() -> None:
    for size in (0, 31, 33, 64):
        with pytest.raises(NoteError, match="not 32"):
            Signer.from_seed("a", Algorithm.ED25519, bytes(size))


@given(names, st.sampled_from([Algorithm.ED25519, Algorithm.ED25519_COSIGNATURE]), st.binary())
def test_round_trip_of_any_name(name: str, algorithm: Algorithm, noise: bytes) -> None:
    key = VerifierKey(name, algorithm, hashlib.sha256(noise).digest())
    assert VerifierKey.parse(str(key)) == key


@given(st.one_of(st.binary(max_size=100), st.text(max_size=100)))
def test_garbage_is_refused_with_the_typed_error(garbage: str | bytes) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(garbage)
