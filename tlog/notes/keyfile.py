r"""Key files: one private key in one text file, which only its owner can read.

Without a passphrase:                    Sealed under a passphrase:

    tlog-key/v1                              tlog-key/v1
    vkey <vkey>                              vkey <vkey>
    seed <base64 of 32 bytes>                argon2id <iterations> <memory in KiB> <lanes>
                                             salt <base64 of 16 bytes>
                                             nonce <base64 of 12 bytes>
                                             sealed <base64 of 48 bytes>

The seed is sealed with AES-256-GCM under Argon2id(passphrase, salt), the lines above `sealed` as
associated data. Every line ends in a newline; nothing precedes or follows.
"""

import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from tlog.notes.codec import decode_base64, decode_utf8, encode_base64, parse_decimal, shown
from tlog.notes.errors import NoteError
from tlog.notes.keys import MAX_VKEY_SIZE, Signer, VerifierKey

_HEADER = "tlog-key/v1"
_MAX_FILE_SIZE = MAX_VKEY_SIZE + 1024
_SALT_SIZE, _NONCE_SIZE, _SEALED_SIZE = 16, 12, 48

# RFC 9106 section 4, second recommended option: t=3, m=64 MiB, p=4.
_ITERATIONS, _MEMORY_KIB, _LANES = 3, 64 * 1024, 4
# What a file may ask of us: at most a few seconds and 1 GiB, and never less than the minimum that
# RFC 9106 section 3.1 sets.
_MAX_ITERATIONS, _MAX_MEMORY_KIB, _MAX_LANES = 16, 1024 * 1024, 16


def save_signer(path: str | Path, signer: Signer, *, passphrase: bytes | None) -> None:
    """Write a new key file with mode 0600, on disk when this returns.

    With `passphrase` the seed is sealed; None leaves it in the clear.

    Raises:
        NoteError: the file exists (a key is never overwritten) or cannot be written.
    """
    _write_new(Path(path), _encode(signer, passphrase).encode())


def load_signer(path: str | Path, *, passphrase: bytes | None) -> Signer:
    """Read a key file. `passphrase` is not used for a key that is not sealed.

    Raises:
        NoteError: others have any access to the file; it is malformed; it is sealed and the
            passphrase is missing or wrong; its seed is not the one of its vkey.
    """
    path = Path(path)
    data = _read_private(path, _MAX_FILE_SIZE)
    try:
        return _decode(decode_utf8(data, "key file"), passphrase)
    except NoteError as error:
        raise NoteError(f"key file {path}: {error}") from None


def passphrase_from_environment() -> bytes | None:
    """The passphrase of TLOG_PASSPHRASE, or of the file named by TLOG_PASSPHRASE_FILE, or None.

    One newline at the end of the file is not part of it. The file must be as private as a key.
    """
    direct = os.environb.get(b"TLOG_PASSPHRASE")
    file = os.environ.get("TLOG_PASSPHRASE_FILE")
    if direct is not None and file is not None:
        raise NoteError("TLOG_PASSPHRASE and TLOG_PASSPHRASE_FILE are both set: unset one")
    if file is not None:
        direct = _read_private(Path(file), _MAX_FILE_SIZE).removesuffix(b"\n")
    if direct == b"":
        raise NoteError("the passphrase is empty: unset the variable to use no passphrase")
    return direct


def _encode(signer: Signer, passphrase: bytes | None) -> str:
    head = f"{_HEADER}\nvkey {signer.vkey}\n"
    if passphrase is None:
        return f"{head}seed {encode_base64(signer.seed)}\n"
    if not passphrase:
        raise NoteError("the passphrase is empty: give none, or one of some length")
    salt, nonce = secrets.token_bytes(_SALT_SIZE), secrets.token_bytes(_NONCE_SIZE)
    head += f"argon2id {_ITERATIONS} {_MEMORY_KIB} {_LANES}\n"
    head += f"salt {encode_base64(salt)}\nnonce {encode_base64(nonce)}\n"
    key = _derive(passphrase, salt, _ITERATIONS, _MEMORY_KIB, _LANES)
    sealed = AESGCM(key).encrypt(nonce, signer.seed, head.encode())
    return f"{head}sealed {encode_base64(sealed)}\n"


def _decode(text: str, passphrase: bytes | None) -> Signer:
    lines = text.split("\n")
    if len(lines) not in {4, 7} or lines[0] != _HEADER or lines[-1]:
        raise NoteError(f"not a key file: expected {_HEADER!r} and two or five lines after it")
    vkey = VerifierKey.parse(_field(lines[1], "vkey"))
    if len(lines) == 4:
        seed = decode_base64(_field(lines[2], "seed"))
    else:
        seed = _unseal(lines, passphrase)
    signer = Signer.from_seed(vkey.name, vkey.algorithm, seed)
    if signer.vkey != vkey:
        raise NoteError(f"its seed is not the one of its vkey {vkey.label}")
    return signer


def _unseal(lines: list[str], passphrase: bytes | None) -> bytes:
    parameters = _field(lines[2], "argon2id").split(" ")
    if len(parameters) != 3:
        raise NoteError("argon2id needs iterations, memory and lanes")
    iterations, memory, lanes = map(parse_decimal, parameters)
    if not (
        1 <= iterations <= _MAX_ITERATIONS
        and 1 <= lanes <= _MAX_LANES
        and 8 * lanes <= memory <= _MAX_MEMORY_KIB
    ):
        raise NoteError(
            f"argon2id {iterations} {memory} {lanes} is out of bounds: at most "
            f"{_MAX_ITERATIONS} iterations, {_MAX_MEMORY_KIB} KiB, {_MAX_LANES} lanes"
        )
    salt = _sized(lines[3], "salt", _SALT_SIZE)
    nonce = _sized(lines[4], "nonce", _NONCE_SIZE)
    sealed = _sized(lines[5], "sealed", _SEALED_SIZE)
    if passphrase is None:
        raise NoteError("it is sealed: set TLOG_PASSPHRASE or TLOG_PASSPHRASE_FILE")
    head = "\n".join(lines[:5]) + "\n"
    key = _derive(passphrase, salt, iterations, memory, lanes)
    try:
        return AESGCM(key).decrypt(nonce, sealed, head.encode())
    except InvalidTag:
        raise NoteError("wrong passphrase, or the file was changed") from None


def _derive(passphrase: bytes, salt: bytes, iterations: int, memory: int, lanes: int) -> bytes:
    kdf = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory)
    return kdf.derive(passphrase)


def _field(line: str, name: str) -> str:
    prefix = f"{name} "
    if not line.startswith(prefix):
        raise NoteError(f"expected a `{name}` line, not {shown(line)}")
    return line.removeprefix(prefix)


def _sized(line: str, name: str, size: int) -> bytes:
    data = decode_base64(_field(line, name))
    if len(data) != size:
        raise NoteError(f"{name} has {len(data)} bytes, not {size}")
    return data


def _read_private(path: Path, limit: int) -> bytes:
    """Read a small file that nobody but its owner, who is us, can read or change."""
    try:
        # Non-blocking, or somebody's FIFO would hang us before we can look at it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = " (or it is a symbolic link: name the file itself)" if path.is_symlink() else ""
        raise NoteError(f"cannot read {path}: {error.strerror}{hint}") from None
    try:
        _check_private(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise NoteError(f"{path} is longer than {limit} bytes")
    return data


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NoteError(f"{path} is not a regular file")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise NoteError(f"others may use {path} (mode {mode:04o}): run chmod 600 {path}")
    if status.st_uid != (user := os.geteuid()):
        raise NoteError(
            f"{path} belongs to user {status.st_uid}, and this is user {user}: "
            f"run chown {user} {path}"
        )


def _write_new(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise NoteError(f"{path} exists: a key file is never overwritten") from None
    except OSError as error:
        raise NoteError(f"cannot create {path}: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask is
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key helps nobody
        raise NoteError(f"cannot write {path}: {error.strerror}") from None
