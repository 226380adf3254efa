"""Which authorities stamp a log's checkpoints, and how often: `timestamps.toml` beside `log.toml`.

    interval = 3600                           # seconds

    [[authority]]                             # two or more, of different operators
    name = "example"
    url = "https://tsa.example/tsr"
    signers = ["timestamps/example-tsa.pem"]  # what its stamps are signed with, pinned
    issuers = ["timestamps/example-ca.pem"]   # the root, and what lies between

Paths are relative to the directory. It is read when the log is opened.

One authority alone is refused: it may lie, lose its key or go out of business, and then nothing is
left that says the time. So there are two at least that have neither an address, nor a signer's key,
nor a root in common. Who runs them, certificates do not tell: that is the operator's to choose.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tlog.audit.stamps import Authority, StampError

FILE_NAME: Final = "timestamps.toml"
MAX_FILE_SIZE: Final = 1 << 20


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Files = Annotated[tuple[Path, ...], Field(min_length=1, max_length=16)]


class AuthoritySection(_Section):
    """One authority, its certificates in PEM files."""

    name: str
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    signers: _Files
    issuers: _Files


class StampSection(_Section):
    """The file."""

    interval: Annotated[float, Field(ge=0.05, le=7 * 86_400)] = 3600.0
    """Least seconds between two checkpoints that are stamped."""
    authority: Annotated[tuple[AuthoritySection, ...], Field(min_length=1, max_length=16)]


class StampSettings(_Section):
    """What was read, certificates and all."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    interval: float
    authorities: tuple[Authority, ...]


def load_settings(directory: Path) -> StampSettings | None:
    """Read the file in a log's directory; None when there is none: nothing is stamped.

    Raises:
        StampError: it, or a file that it names, says something that is not understood.
    """
    path = directory / FILE_NAME
    if not path.exists():
        return None
    try:
        section = StampSection.model_validate(tomllib.loads(_read(path).decode("utf-8")))
        authorities = tuple(
            Authority(
                authority.name,
                authority.url,
                _certificates(directory, authority.signers),
                _certificates(directory, authority.issuers),
            )
            for authority in section.authority
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise StampError(f"{path}: {field}: {first['msg']}") from None
    except (StampError, ValueError, RecursionError) as error:  # the latter for nested brackets
        raise StampError(f"{path}: {error}") from None
    try:
        _check_independent(authorities)
    except StampError as error:
        raise StampError(f"{path}: {error}") from None
    return StampSettings(interval=section.interval, authorities=authorities)


def _check_independent(authorities: Sequence[Authority]) -> None:
    for one, other in combinations(authorities, 2):
        if one.name == other.name:
            raise StampError(f"two authorities are called {one.name!r}: give one another name")
        if one.url == other.url:
            raise StampError(f"{one.name} and {other.name} are one authority: they have one url")
        if _keys(one.signers) & _keys(other.signers):
            raise StampError(
                f"{one.name} and {other.name} are one authority: they sign with one key"
            )
    if not any(
        _keys(one.roots).isdisjoint(_keys(other.roots))
        for one, other in combinations(authorities, 2)
    ):
        raise StampError(
            "name two authorities at least, of different operators and below different roots: one "
            "alone may lie, lose its key or end, and then nothing says when an entry was there"
        )


def _keys(certificates: Iterable[x509.Certificate]) -> set[bytes]:
    """Whoever has a new certificate for an old key is not somebody else."""
    return {
        each.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for each in certificates
    }


def _certificates(directory: Path, files: Sequence[Path]) -> tuple[x509.Certificate, ...]:
    found: list[x509.Certificate] = []
    for file in files:
        try:
            found += x509.load_pem_x509_certificates(_read(directory / file))
        except (ValueError, x509.InvalidVersion) as error:
            raise StampError(f"{file} holds no certificates in PEM: {error}") from None
    return tuple(found)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise StampError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_SIZE:
        raise StampError(f"{path} is longer than {MAX_FILE_SIZE} bytes")
    return data
