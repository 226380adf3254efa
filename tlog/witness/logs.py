"""The logs that a witness trusts: one text file, a line for each key.

    # anything
    log <vkey> [<origin>]         a key of the log `origin`; without one, of the key's name
    url <url> <origin>            where the log is asked for proofs when heads are compared
    frozen <reason> <origin>      the witness does not cosign this log

The origin is the rest of its line, because it may hold spaces. A log may have several keys, all
trusted alike, so that one can follow another. `reason` is `operator` or `conflict`.

The functions that edit the file replace it whole, one editor at a time, in any process. A running
witness sees that the file was replaced and reads it again (`LogList`).
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

import structlog

from tlog.notes import Algorithm, NoteError, VerifierKey
from tlog.notes.codec import decode_utf8, shown
from tlog.notes.keys import check_origin
from tlog.store.disk import replace_file
from tlog.witness.errors import WitnessError

FILE_NAME: Final = "logs"
MAX_FILE_SIZE: Final = 256 << 20
MAX_KEYS: Final = 16
"""Keys of one log."""
MAX_URL_SIZE: Final = 2048
CHECK_INTERVAL: Final = 1.0
"""Seconds for which a running witness believes that the file is as it was."""

_HEADER: Final = "# The logs that this {what} trusts. Edit with: tlog {what} add-log DIR ...\n"
_logger = structlog.get_logger(__name__)


class FreezeReason(StrEnum):
    """Why a log is frozen."""

    OPERATOR = "operator"
    CONFLICT = "conflict"


class LogUrl(str):
    """Where a log is reached: http(s) for its tiles, or grpc. Who connects knows the forms."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TrustedLog:
    """A log that the witness knows, with the keys that sign for it."""

    origin: str
    vkeys: tuple[VerifierKey, ...]
    frozen: FreezeReason | None
    url: LogUrl | None = None


class Logs(Protocol):
    """Which logs are trusted: `LogList`."""

    def find(self, origin: str) -> TrustedLog | None:
        """The log of this origin."""


# A line that says something: about which origin, and what.
_Statement = tuple[str, VerifierKey | LogUrl | FreezeReason]


class LogList:
    """The file as a running witness sees it: up to date, without reading it for every request.

    A file that is damaged changes nothing: the logs that were read last stay, and `problem` says
    what is wrong until it is mended.

    Args:
        directory: of the witness.
        clock: seconds, from any beginning.

    Raises:
        WitnessError: at the start there is no list to fall back on.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._path = directory / FILE_NAME
        self._clock = clock
        # In conflict, but the file does not say so yet: it could not be written.
        self._held: set[str] = set()
        self._seen: tuple[int, int, int] | None = None
        self._checked = clock()
        # Kept by their bytes, so that reading again costs only what is new.
        self._statements: dict[bytes, _Statement] = {}
        self._logs: dict[str, TrustedLog] = {}
        self.problem: str | None = None
        self.refresh()
        if self.problem is not None:
            raise WitnessError(self.problem)

    def find(self, origin: str) -> TrustedLog | None:
        """The log of this origin. An unknown origin is looked for in the file as it is now."""
        now = self._clock()
        if origin not in self._logs or not 0 <= now - self._checked < CHECK_INTERVAL:
            self.refresh()
        return self._as_held(self._logs.get(origin))

    def __iter__(self) -> Iterator[TrustedLog]:
        """All logs, as known now."""
        return (log for known in self._logs.values() if (log := self._as_held(known)))

    def _as_held(self, log: TrustedLog | None) -> TrustedLog | None:
        if log is None or log.origin not in self._held:
            return log
        return replace(log, frozen=FreezeReason.CONFLICT)

    def freeze(self, origin: str) -> None:
        """Freeze a log for a conflict: from now on, whether or not the file can be written.

        Raises:
            WitnessError: the file does not say so; the log stays frozen until the restart.
        """
        self._held.add(origin)
        freeze(self._directory, origin, reason=FreezeReason.CONFLICT)
        self.refresh()
        self._held.discard(origin)

    def __len__(self) -> int:
        return len(self._logs)

    def refresh(self) -> None:
        """Read the file again if it is another one than the last time."""
        self._checked = self._clock()
        try:
            if (seen := _identity(self._path.stat())) == self._seen:
                return
            # Remembered before it is understood: a damaged file is read and reported once.
            self._seen = seen
            with self._path.open("rb") as file:
                self._seen = _identity(os.fstat(file.fileno()))
                self._statements, self._logs = _parse(_read(file.read), self._statements)
        except (OSError, WitnessError) as error:
            if (problem := f"{self._path}: {error}") != self.problem:
                _logger.error("list of logs not read, the last one stays", problem=problem)
            self.problem = problem
        else:
            self.problem = None


def create_log_list(directory: Path, *, what: str = "witness") -> None:
    """Make an empty list of logs, that of a `what`, refusing to replace one."""
    with (directory / FILE_NAME).open("xb") as file:
        file.write(_HEADER.format(what=what).encode())


def add_log(
    directory: Path,
    vkeys: Sequence[VerifierKey],
    *,
    origin: str | None = None,
    url: str | None = None,
) -> None:
    """Trust these keys for the log `origin`, or each for the log that has its name.

    A log that is known keeps the keys it has: both are trusted until `rekey`.

    Raises:
        WitnessError: a key is trusted for that log already, or cannot be a log's.
    """
    with _editing(directory) as lines:
        lines.extend(_key_line(vkey, vkey.name if origin is None else origin) for vkey in vkeys)
        if url is not None:
            for named in {vkey.name if origin is None else origin for vkey in vkeys}:
                _put_url(lines, named, url)


def set_url(directory: Path, origin: str, url: str) -> None:
    """Ask a log that is known for proofs at this URL, and nowhere else.

    Raises:
        WitnessError: it is not known, or the URL cannot be one.
    """
    with _editing(directory) as lines:
        _require(lines, origin, VerifierKey)
        _put_url(lines, origin, url)


def rekey(directory: Path, origin: str, vkeys: Sequence[VerifierKey]) -> None:
    """Trust these keys, and no others, for a log that is known.

    Raises:
        WitnessError: it is not known, or no keys are given.
    """
    if not vkeys:
        raise WitnessError(f"no keys for {shown(origin)}: a log needs one; or remove the log")
    with _editing(directory) as lines:
        where = _require(lines, origin, VerifierKey)
        for index in reversed(where):
            del lines[index]
        lines[where[0] : where[0]] = [_key_line(vkey, origin) for vkey in vkeys]


def remove(directory: Path, origin: str) -> None:
    """Do not know this log any more.

    Its head stays in the store: added again, it goes on where it was, and is never rolled back.

    Raises:
        WitnessError: it is not known.
    """
    with _editing(directory) as lines:
        for index in reversed(_require(lines, origin, (VerifierKey, LogUrl, FreezeReason))):
            del lines[index]


def freeze(directory: Path, origin: str, *, reason: FreezeReason = FreezeReason.OPERATOR) -> None:
    """Do not cosign this log any more. A conflict stays the reason until `unfreeze`.

    Raises:
        WitnessError: it is not known.
    """
    with _editing(directory) as lines:
        _require(lines, origin, VerifierKey)
        frozen = _find(lines, origin, FreezeReason)
        if not frozen:
            lines.append(f"frozen {reason} {origin}".encode())
        elif reason is FreezeReason.CONFLICT:
            lines[frozen[0]] = f"frozen {reason} {origin}".encode()


def unfreeze(directory: Path, origin: str) -> None:
    """Cosign this log again, whatever it was frozen for.

    Raises:
        WitnessError: it is not frozen.
    """
    with _editing(directory) as lines:
        for index in _require(lines, origin, FreezeReason):
            del lines[index]


def _key_line(vkey: VerifierKey, origin: str) -> bytes:
    check_origin(origin)  # it could be several lines
    return f"log {vkey} {origin}".encode() if vkey.name != origin else f"log {vkey}".encode()


def _put_url(lines: list[bytes], origin: str, url: str) -> None:
    for index in reversed(_find(lines, origin, LogUrl)):
        del lines[index]
    lines.append(f"url {_checked_url(url)} {origin}".encode())


def _checked_url(text: str) -> LogUrl:
    if not 0 < len(text) <= MAX_URL_SIZE or not text.isascii() or not text.isprintable():
        raise WitnessError(f"{shown(text)} is not a URL: at most {MAX_URL_SIZE} ASCII characters")
    if " " in text or not text.partition("://")[2]:
        raise WitnessError(f"{shown(text)} is not a URL such as https://log.example/prefix")
    return LogUrl(text)


@contextlib.contextmanager
def _editing(directory: Path) -> Iterator[list[bytes]]:
    """The lines of the file; what is left of them replaces it, if that can be read back."""
    path = directory / FILE_NAME
    try:
        with (directory / f"{FILE_NAME}.lock").open("ab") as lock:
            # Not on the file itself, which is replaced. Closing the lock releases it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            with path.open("rb") as file:
                data = _read(file.read)
            statements, _ = _parse(data, {})
            lines = data.removesuffix(b"\n").split(b"\n")
            yield lines
            data = b"\n".join(lines) + b"\n"
            _parse(data, statements)
            replace_file(path, data)
    except FileNotFoundError as error:
        raise WitnessError(
            f"{directory} holds no witness ({Path(error.filename).name} is missing). Make one "
            f"with: tlog witness init {directory} --name NAME"
        ) from None
    except (OSError, NoteError) as error:
        raise WitnessError(f"{path}: not changed: {error}") from None
    except WitnessError as error:
        raise WitnessError(f"{path}: not changed: {error}") from None


def _require(lines: Sequence[bytes], origin: str, kind: type | tuple[type, ...]) -> list[int]:
    if found := _find(lines, origin, kind):
        return found
    what = "frozen" if kind is FreezeReason else "known"
    raise WitnessError(f"the log {shown(origin)} is not {what} here")


def _find(lines: Sequence[bytes], origin: str, kind: type | tuple[type, ...]) -> list[int]:
    """Which lines say something of this kind about a log."""
    tail = origin.encode()
    return [
        index
        for index, line in enumerate(lines)
        # Most lines are not even parsed: with 10,000 of them it shows.
        if (tail in line and (statement := _parse_line(line)) is not None)
        and statement[0] == origin
        and isinstance(statement[1], kind)
    ]


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(read: Callable[[int], bytes]) -> bytes:
    if len(data := read(MAX_FILE_SIZE + 1)) > MAX_FILE_SIZE:
        raise WitnessError(f"longer than {MAX_FILE_SIZE} bytes")
    return data


def _parse(
    data: bytes, known: Mapping[bytes, _Statement]
) -> tuple[dict[bytes, _Statement], dict[str, TrustedLog]]:
    """Read the whole file; lines that are in `known` are not parsed again.

    Raises:
        WitnessError: the message names the line.
    """
    statements: dict[bytes, _Statement] = {}
    keys: dict[str, list[VerifierKey]] = {}
    urls: dict[str, LogUrl] = {}
    frozen: dict[str, FreezeReason] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            statement = known.get(line) or _parse_line(line)
            if statement is None:
                continue
            origin, said = statements[line] = statement
            if isinstance(said, FreezeReason):
                if frozen.setdefault(origin, said) is not said:
                    raise WitnessError(f"{shown(origin)} is frozen for two reasons")
            elif isinstance(said, LogUrl):
                if urls.setdefault(origin, said) != said:
                    raise WitnessError(f"{shown(origin)} has two URLs")
            else:
                _add_key(keys.setdefault(origin, []), said)
        except (NoteError, WitnessError) as error:
            raise WitnessError(f"line {number}: {error}") from None
    if unknown := (frozen.keys() | urls.keys()) - keys.keys():
        raise WitnessError(f"{shown(min(unknown))} is frozen or has a URL, but no key")
    return statements, {
        origin: TrustedLog(origin, tuple(vkeys), frozen.get(origin), urls.get(origin))
        for origin, vkeys in keys.items()
    }


def _add_key(vkeys: list[VerifierKey], vkey: VerifierKey) -> None:
    if any(vkey.label == other.label for other in vkeys):
        raise WitnessError(f"{vkey.label} is a key of this log already")
    if len(vkeys) == MAX_KEYS:
        raise WitnessError(f"a log with more than {MAX_KEYS} keys")
    vkeys.append(vkey)


def _parse_line(line: bytes) -> _Statement | None:
    text = decode_utf8(line, "the list of logs")
    if not text or text.startswith("#"):
        return None
    word, _, rest = text.partition(" ")
    first, space, origin = rest.partition(" ")
    if word == "log":
        vkey = VerifierKey.parse(first)
        if vkey.algorithm is Algorithm.ED25519_COSIGNATURE:
            raise WitnessError(f"{vkey.label} is the key of a witness, not of a log")
        said: VerifierKey | LogUrl | FreezeReason = vkey
        origin = origin if space else vkey.name
    elif word == "url":
        said = _checked_url(first)
    elif word == "frozen" and first in set(FreezeReason):
        said = FreezeReason(first)
    else:
        raise WitnessError(
            f"{shown(text)} is none of `log <vkey> [<origin>]`, `url <url> <origin>` and "
            "`frozen operator|conflict <origin>`"
        )
    check_origin(origin)
    return origin, said
