"""The directory of a witness, and what its operator decides once.

witness.toml    name and limits
logs            the logs that it trusts: see the `logs` module
keys/           ed25519.key and mldsa44.key, two cosigner keys under one name
db/             the latest head that it cosigned for each log
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tlog.notes import (
    Algorithm,
    NoteError,
    Signer,
    VerifierKey,
    check_name,
    load_signer,
    save_signer,
)
from tlog.store.heads import HeadStore
from tlog.witness.errors import WitnessError
from tlog.witness.logs import create_log_list
from tlog.witness.requests import MAX_BODY_SIZE

FILE_NAME: Final = "witness.toml"
MAX_FILE_SIZE: Final = 64 * 1024
KEYS: Final = "keys"
# SPEC tlog-cosignature: "The ML-DSA version SHOULD be used for new deployments"; most clients of
# today know Ed25519 only. A checkpoint gets both.
KEY_FILES: Final = {
    "ed25519.key": Algorithm.ED25519_COSIGNATURE,
    "mldsa44.key": Algorithm.MLDSA44,
}


def _name(value: str) -> str:
    try:
        check_name(value)
    except NoteError as error:
        raise ValueError(str(error)) from None
    return value


class WitnessConfig(BaseModel):
    """What `tlog witness init` decides, and what an operator may change between two starts.

    The name is the witness's identity and never changes; the rest are limits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_name)]
    """The name of both keys."""
    rate: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    """Checkpoints of one log that are cosigned per second, in the long run; subtrees likewise."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Checkpoints of one log that are cosigned at once after a pause."""
    max_body_size: Annotated[int, Field(ge=16 * 1024, le=MAX_BODY_SIZE)] = MAX_BODY_SIZE
    """Bytes of a request."""

    def save(self, directory: Path) -> None:
        """Write `witness.toml`, refusing to replace one."""
        lines = ["# A tlog witness. The name is its identity: never change it.\n"]
        for key, value in self.model_dump().items():
            text = json.dumps(value, ensure_ascii=False)  # JSON scalars are TOML scalars
            lines.append(f"{key} = {text}\n")
        with (directory / FILE_NAME).open("x", encoding="utf-8") as file:
            file.writelines(lines)

    @classmethod
    def load(cls, directory: Path) -> WitnessConfig:
        """Read `witness.toml`.

        Raises:
            WitnessError: there is none, or it says something that is not understood.
        """
        path = directory / FILE_NAME
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_SIZE + 1)
        except FileNotFoundError:
            raise WitnessError(
                f"{directory} holds no witness ({FILE_NAME} is missing). Make one with: "
                f"tlog witness init {directory} --name NAME"
            ) from None
        if len(data) > MAX_FILE_SIZE:
            raise WitnessError(f"{path} is longer than {MAX_FILE_SIZE} bytes")
        try:
            return cls.model_validate(tomllib.loads(data.decode("utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise WitnessError(f"{path}: {field}: {first['msg']}") from None
        except ValueError as error:
            raise WitnessError(f"{path}: {error}") from None


def create_witness(
    directory: Path, *, name: str, passphrase: bytes | None = None
) -> tuple[VerifierKey, ...]:
    """Make a witness's directory: keys, an empty store, an empty list of logs, `witness.toml`.

    Returns:
        The verifier keys, Ed25519 first.

    Raises:
        WitnessError: the directory holds something already, or the name cannot be one.
    """
    try:
        config = WitnessConfig(name=name)
    except ValidationError as error:
        raise WitnessError(f"the name: {error.errors()[0]['msg']}") from None
    if directory.exists() and any(directory.iterdir()):
        raise WitnessError(f"{directory} is not empty: choose a new directory for a new witness")
    (directory / KEYS).mkdir(parents=True, exist_ok=True)
    (directory / KEYS).chmod(0o700)
    vkeys = []
    for file, algorithm in KEY_FILES.items():
        signer = Signer.generate(name, algorithm)
        save_signer(directory / KEYS / file, signer, passphrase=passphrase)
        vkeys.append(signer.vkey)
    HeadStore.create(directory).close()
    create_log_list(directory)
    config.save(directory)
    return tuple(vkeys)


def load_signers(
    directory: Path, config: WitnessConfig, *, passphrase: bytes | None
) -> tuple[Signer, ...]:
    """Load the witness's keys and check that they carry its name.

    Raises:
        NoteError: a key file is missing, too open, sealed, or damaged.
        WitnessError: a key is of another witness, or in the other's file.
    """
    signers = []
    for file, algorithm in KEY_FILES.items():
        signer = load_signer(directory / KEYS / file, passphrase=passphrase)
        if signer.vkey.name != config.name or signer.vkey.algorithm is not algorithm:
            raise WitnessError(
                f"{directory / KEYS / file} holds a {signer.vkey.algorithm.name} key of "
                f"{signer.vkey.name!r}, not the {algorithm.name} key of {config.name!r}"
            )
        signers.append(signer)
    return tuple(signers)
