import base64
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.notes.keyring import LOG_ED, LOG_PQ, W_ED, W_PQ, signer
from tlog.notes import (
    Algorithm,
    NoteError,
    Signer,
    keyfile,
    load_signer,
    passphrase_from_environment,
    save_signer,
)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id with the least cost a file may have: these tests open many files."""
    monkeypatch.setattr(keyfile, "_ITERATIONS", 1)
    monkeypatch.setattr(keyfile, "_MEMORY_KIB", 32)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TLOG_PASSPHRASE", raising=False)
    monkeypatch.delenv("TLOG_PASSPHRASE_FILE", raising=False)


def edit(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.parametrize("key", [LOG_ED, LOG_PQ, W_ED, W_PQ])
@pytest.mark.parametrize("passphrase", [None, b"correct horse", b"\xff\n\x00"])
@pytest.mark.usefixtures("cheap")
def test_round_trip(tmp_path: Path, key: Signer, passphrase: bytes | None) -> None:
    save_signer(tmp_path / "key", key, passphrase=passphrase)
    again = load_signer(str(tmp_path / "key"), passphrase=passphrase)
    assert (again.vkey, again.seed) == (key.vkey, key.seed)
    text = (tmp_path / "key").read_text()
    assert text.startswith(f"tlog-key/v1\nvkey {key.vkey}\n")
    assert (base64.b64encode(key.seed).decode() in text) == (passphrase is None)


def test_the_cost_of_a_sealed_key_is_the_one_of_rfc_9106(tmp_path: Path) -> None:
    save_signer(tmp_path / "key", LOG_ED, passphrase=b"p")
    assert "\nargon2id 3 65536 4\n" in (tmp_path / "key").read_text()
    assert load_signer(tmp_path / "key", passphrase=b"p").seed == LOG_ED.seed


@pytest.mark.usefixtures("cheap")
def test_salt_and_nonce_are_fresh(tmp_path: Path) -> None:
    for name in "ab":
        save_signer(tmp_path / name, LOG_ED, passphrase=b"p")
    one, two = ((tmp_path / name).read_text().splitlines() for name in "ab")
    assert one[:3] == two[:3]
    assert all(a != b for a, b in zip(one[3:], two[3:], strict=True))


def test_a_passphrase_for_a_key_that_is_not_sealed(tmp_path: Path) -> None:
    save_signer(tmp_path / "key", LOG_ED, passphrase=None)
    assert load_signer(tmp_path / "key", passphrase=b"p").seed == LOG_ED.seed


@pytest.mark.usefixtures("cheap")
def test_wrong_missing_and_empty_passphrases(tmp_path: Path) -> None:
    save_signer(tmp_path / "key", LOG_ED, passphrase=b"p")
    for wrong in (b"q", b"p\n", b"P", b""):
        with pytest.raises(NoteError, match="wrong passphrase"):
            load_signer(tmp_path / "key", passphrase=wrong)
    with pytest.raises(NoteError, match="set TLOG_PASSPHRASE or TLOG_PASSPHRASE_FILE"):
        load_signer(tmp_path / "key", passphrase=None)
    with pytest.raises(NoteError, match="empty"):
        save_signer(tmp_path / "other", LOG_ED, passphrase=b"")
    assert not (tmp_path / "other").exists()


# Files


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_mode_0600_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        save_signer(tmp_path / "key", LOG_ED, passphrase=None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o777])
def test_files_that_others_may_use(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    save_signer(path, LOG_ED, passphrase=None)
    path.chmod(mode)
    with pytest.raises(NoteError, match=f"mode {mode:04o}.*run chmod 600 {path}"):
        load_signer(path, passphrase=None)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_files_that_only_we_may_use(tmp_path: Path, mode: int) -> None:
    save_signer(tmp_path / "key", LOG_ED, passphrase=None)
    (tmp_path / "key").chmod(mode)
    assert load_signer(tmp_path / "key", passphrase=None).seed == LOG_ED.seed


def test_symbolic_links_directories_and_pipes(tmp_path: Path) -> None:
    save_signer(tmp_path / "key", LOG_ED, passphrase=None)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with pytest.raises(NoteError, match="symbolic link"):
        load_signer(tmp_path / "link", passphrase=None)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "."):
        with pytest.raises(NoteError, match="not a regular file"):
            load_signer(tmp_path / name, passphrase=None)
    with pytest.raises(NoteError, match="No such file"):
        load_signer(tmp_path / "absent", passphrase=None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    save_signer(tmp_path / "key", LOG_ED, passphrase=None)
    os.chown(tmp_path / "key", 12345, -1)
    with pytest.raises(NoteError, match=r"belongs to user 12345.*run chown 0"):
        load_signer(tmp_path / "key", passphrase=None)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    save_signer(tmp_path / "key", LOG_ED, passphrase=None)
    before = (tmp_path / "key").read_bytes()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("key", "dangling"):
        with pytest.raises(NoteError, match="never overwritten"):
            save_signer(tmp_path / name, LOG_PQ, passphrase=None)
    assert (tmp_path / "key").read_bytes() == before
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(NoteError, match="No such file"):
        save_signer(tmp_path / "no" / "directory", LOG_ED, passphrase=None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_full_disk_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def full(path: Path, flags: int, mode: int = 0o777) -> int:
        os.close(real(path, flags, mode))
        return real("/dev/full", os.O_WRONLY)

    monkeypatch.setattr("tlog.notes.keyfile.os.open", full)
    monkeypatch.setattr("tlog.notes.keyfile.os.fchmod", lambda *_: None)
    with pytest.raises(NoteError, match="No space left"):
        save_signer(tmp_path / "key", LOG_ED, passphrase=None)
    assert not (tmp_path / "key").exists()


# Contents


@pytest.mark.parametrize("passphrase", [None, b"p"])
@pytest.mark.usefixtures("cheap")
def test_every_flipped_bit(
    tmp_path: Path, passphrase: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A flip in the parameters may ask for any cost within bounds; keep the test cheap.
    monkeypatch.setattr(keyfile, "_MAX_ITERATIONS", 9)
    monkeypatch.setattr(keyfile, "_MAX_MEMORY_KIB", 1024)
    path = tmp_path / "key"
    save_signer(path, LOG_ED, passphrase=passphrase)
    data = path.read_bytes()
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(NoteError):
                load_signer(path, passphrase=b"p")


@pytest.mark.parametrize("passphrase", [None, b"p"])
@pytest.mark.usefixtures("cheap")
def test_truncated_anywhere(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "key"
    save_signer(path, LOG_ED, passphrase=passphrase)
    data = path.read_bytes()
    for changed in (*(data[:length] for length in range(len(data))), data + b"\n", data + b"x"):
        path.write_bytes(changed)
        with pytest.raises(NoteError):
            load_signer(path, passphrase=b"p")


@pytest.mark.usefixtures("cheap")
def test_the_header_is_authenticated(tmp_path: Path) -> None:
    other = signer("log.example/two", Algorithm.ED25519).vkey
    changes: list[tuple[bytes, bytes]] = [
        (str(LOG_ED.vkey).encode(), str(other).encode()),
        # The same key and seed under another name would pass the check of the seed.
        (
            str(LOG_ED.vkey).encode(),
            str(Signer.from_seed("x", Algorithm.ED25519, LOG_ED.seed).vkey).encode(),
        ),
        (b"argon2id 1 32 4", b"argon2id 2 32 4"),
        (b"argon2id 1 32 4", b"argon2id 1 33 4"),
        (b"argon2id 1 32 4", b"argon2id 1 32 1"),
    ]
    for number, (old, new) in enumerate(changes):
        path = tmp_path / str(number)
        save_signer(path, LOG_ED, passphrase=b"p")
        edit(path, lambda data, old=old, new=new: data.replace(old, new))  # type: ignore[misc]
        with pytest.raises(NoteError, match="wrong passphrase, or the file was changed"):
            load_signer(path, passphrase=b"p")


@pytest.mark.parametrize(
    "parameters",
    [
        "0 65536 4", "17 65536 4", "3 31 4", "3 1048577 4", "3 65536 0", "3 65536 17",
        "3 65536", "3 65536 4 1", "3 65536 04", "-1 65536 4", "3  65536 4", "3 99999999999999999 4",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("cheap")
def test_parameters_out_of_bounds_are_refused_before_they_cost(
    tmp_path: Path, parameters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_signer(tmp_path / "key", LOG_ED, passphrase=b"p")
    path = edit(tmp_path / "key", lambda data: data.replace(b"1 32 4", parameters.encode()))
    monkeypatch.delattr(keyfile, "_derive")
    with pytest.raises(NoteError, match=r"argon2id|decimal"):
        load_signer(path, passphrase=b"p")


def test_a_seed_of_another_key(tmp_path: Path) -> None:
    save_signer(tmp_path / "key", LOG_ED, passphrase=None)
    old, new = (base64.b64encode(seed) for seed in (LOG_ED.seed, LOG_PQ.seed))
    path = edit(tmp_path / "key", lambda data: data.replace(old, new))
    with pytest.raises(NoteError, match="not the one of its vkey"):
        load_signer(path, passphrase=None)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\xff", b"tlog-key/v1\n", b"tlog-key/v2\n\n\n", b"x" * 5000, bytes(60)]
)
def test_garbage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(NoteError, match="key"):
        load_signer(path, passphrase=None)


# The passphrase


def test_passphrase_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passphrase_from_environment() is None
    monkeypatch.setenv("TLOG_PASSPHRASE", "pässword")
    assert passphrase_from_environment() == "pässword".encode()
    file = tmp_path / "passphrase"
    file.touch(0o600)
    file.write_bytes(b"from a file \n\n")
    monkeypatch.setenv("TLOG_PASSPHRASE_FILE", str(file))
    with pytest.raises(NoteError, match="both set"):
        passphrase_from_environment()
    monkeypatch.delenv("TLOG_PASSPHRASE")
    assert passphrase_from_environment() == b"from a file \n"
    file.chmod(0o644)
    with pytest.raises(NoteError, match="run chmod 600"):
        passphrase_from_environment()
    file.chmod(0o600)
    for empty in (b"", b"\n"):
        file.write_bytes(empty)
        with pytest.raises(NoteError, match="empty"):
            passphrase_from_environment()
    monkeypatch.setenv("TLOG_PASSPHRASE_FILE", str(tmp_path / "absent"))
    with pytest.raises(NoteError, match="No such file"):
        passphrase_from_environment()
