"""The directory of a mirror, and what its operator decides once.

mirror.toml     name and limits
logs            the logs that it mirrors, with their keys and URLs, as a witness's list
keys/           ed25519.key and mldsa44.key, two cosigner keys under one name
db/             the pending checkpoint of each log
copies/HASH/    the copy of the log whose origin has this SHA-256 hash: db/ and HEAD
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tlog.mirror.errors import MirrorError
from tlog.notes import VerifierKey
from tlog.witness import WitnessConfig, hash_origin
from tlog.witness.config import CosignerName, create_cosigner, load_settings, toml_lines

FILE_NAME: Final = "mirror.toml"
COPIES: Final = "copies"


class MirrorConfig(BaseModel):
    """What `tlog mirror init` decides, and what an operator may change between two starts.

    The name is the mirror's identity and never changes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: CosignerName
    """The name of both keys."""
    interval: Annotated[float, Field(ge=0.05, le=86_400)] = 5.0
    """Seconds between two looks at a log that is followed."""
    max_uploads: Annotated[int, Field(ge=1, le=1024)] = 16
    """add-entries requests at once; each may hold 17 MiB."""
    rate: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    """Pending checkpoints of one log per second, in the long run."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Pending checkpoints of one log at once after a pause."""

    @property
    def pending(self) -> WitnessConfig:
        """The limits for pending checkpoints."""
        return WitnessConfig(name=self.name, rate=self.rate, burst=self.burst)

    def save(self, directory: Path) -> None:
        """Write `mirror.toml`, refusing to replace one."""
        lines = ["# A tlog mirror. The name is its identity: never change it.\n"]
        lines += toml_lines(self.model_dump())
        with (directory / FILE_NAME).open("x", encoding="utf-8") as file:
            file.writelines(lines)

    @classmethod
    def load(cls, directory: Path) -> MirrorConfig:
        """Read `mirror.toml`.

        Raises:
            WitnessError: there is none, or it says something that is not understood.
        """
        return load_settings(cls, directory / FILE_NAME, what="mirror")


def create_mirror(
    directory: Path, *, name: str, passphrase: bytes | None = None
) -> tuple[VerifierKey, ...]:
    """Make a mirror's directory.

    Returns:
        The verifier keys, Ed25519 first.

    Raises:
        WitnessError: the directory holds something already, or the name cannot be one.
    """
    try:
        config = MirrorConfig(name=name)
    except ValidationError as error:
        raise MirrorError(f"the name: {error.errors()[0]['msg']}") from None
    vkeys = create_cosigner(directory, what="mirror", name=name, passphrase=passphrase)
    config.save(directory)
    return vkeys


def copy_directory(directory: Path, origin: str) -> Path:
    """Where the copy of a log is."""
    return directory / COPIES / hash_origin(origin).hex()
