"""The directory of a witness, and what its operator decides once.

witness.toml    name, limits, and the peers to gossip with
logs            the logs that it trusts: see the `logs` module
keys/           ed25519.key and mldsa44.key, two cosigner keys under one name
db/             the latest head that it cosigned for each log
conflicts/      evidence: see the `evidence` module
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tlog.notes import (
    Algorithm,
    NoteError,
    Signer,
    VerifierKey,
    check_name,
    load_signer,
    save_signer,
)
from tlog.store.disk import replace_file
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


Settings = TypeVar("Settings", bound=BaseModel)


def _name(value: str) -> str:
    try:
        check_name(value)
    except NoteError as error:
        raise ValueError(str(error)) from None
    return value


CosignerName = Annotated[str, AfterValidator(_name)]
"""The name of a cosigner's keys."""


def _peer_vkey(value: str) -> str:
    try:
        vkey = VerifierKey.parse(value)
    except NoteError as error:
        raise ValueError(str(error)) from None
    if vkey.algorithm not in KEY_FILES.values():
        raise ValueError(f"{vkey.label} is not the key of a witness")
    return value


class PeerConfig(BaseModel):
    """Another witness to gossip with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vkey: Annotated[str, AfterValidator(_peer_vkey)]
    """One of its keys: who does not name it as its own is not this peer."""
    url: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[!-~]+$")]
    """Where its gRPC face is: grpc://HOST:PORT."""

    @property
    def name(self) -> str:
        """The peer's name."""
        return VerifierKey.parse(self.vkey).name


class WitnessConfig(BaseModel):
    """What `tlog witness init` decides, and what an operator may change between two starts.

    The name is the witness's identity and never changes; the rest are limits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: CosignerName
    """The name of both keys."""
    rate: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    """Checkpoints of one log that are cosigned per second, in the long run; subtrees likewise."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Checkpoints of one log that are cosigned at once after a pause."""
    max_body_size: Annotated[int, Field(ge=16 * 1024, le=MAX_BODY_SIZE)] = MAX_BODY_SIZE
    """Bytes of a request."""
    gossip_interval: Annotated[float, Field(ge=0.05, le=86_400)] = 30.0
    """Seconds between two rounds of gossip, on average."""
    peers: tuple[PeerConfig, ...] = ()
    """Witnesses to gossip with."""

    @model_validator(mode="after")
    def _check_peers(self) -> WitnessConfig:
        names = [self.name, *(peer.name for peer in self.peers)]
        for index, name in enumerate(names):
            if name in names[:index]:
                what = "is this witness itself" if name == self.name else "is named twice"
                raise ValueError(f"the peer {name} {what}")
        return self

    def save(self, directory: Path) -> None:
        """Write `witness.toml`, refusing to replace one."""
        lines = ["# A tlog witness. The name is its identity: never change it.\n"]
        lines += toml_lines(self.model_dump(exclude={"peers"}))
        for peer in self.peers:
            lines += _peer_lines(peer)
        with (directory / FILE_NAME).open("x", encoding="utf-8") as file:
            file.writelines(lines)

    @classmethod
    def load(cls, directory: Path) -> WitnessConfig:
        """Read `witness.toml`.

        Raises:
            WitnessError: there is none, or it says something that is not understood.
        """
        return load_settings(cls, directory / FILE_NAME, what="witness")


def load_settings(model: type[Settings], path: Path, *, what: str) -> Settings:
    """Read a file of settings, that of a `what`.

    Raises:
        WitnessError: there is none, or it says something that is not understood.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        raise WitnessError(
            f"{path.parent} holds no {what} ({path.name} is missing). Make one with: "
            f"tlog {what} init {path.parent} --name NAME"
        ) from None
    if len(data) > MAX_FILE_SIZE:
        raise WitnessError(f"{path} is longer than {MAX_FILE_SIZE} bytes")
    try:
        return model.model_validate(tomllib.loads(data.decode("utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise WitnessError(f"{path}: {field or 'it'}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:  # the latter for brackets in brackets
        raise WitnessError(f"{path}: {error}") from None


def add_peer(directory: Path, vkey: VerifierKey, url: str) -> PeerConfig:
    """Gossip with one more witness, from the next start on.

    Raises:
        WitnessError: it is a peer already, no witness, or this witness itself.
    """
    config = WitnessConfig.load(directory)
    path = directory / FILE_NAME
    try:
        peer = PeerConfig(vkey=str(vkey), url=url)
        WitnessConfig(**{**dict(config), "peers": (*config.peers, peer)})
        # A table belongs at the end. What an operator has written stays as it is.
        text = path.read_text(encoding="utf-8").removesuffix("\n") + "\n"
        replace_file(path, (text + "".join(_peer_lines(peer))).encode())
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise WitnessError(f"{path}: not changed: {reason}") from None
    except OSError as error:
        raise WitnessError(f"{path}: not changed: {error}") from None
    return peer


def toml_lines(values: Mapping[str, object]) -> list[str]:
    """Scalars as a file of settings has them."""
    # JSON scalars are TOML scalars.
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()]


def _peer_lines(peer: PeerConfig) -> list[str]:
    return ["\n[[peers]]\n", *toml_lines(peer.model_dump())]


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
    vkeys = create_cosigner(directory, what="witness", name=name, passphrase=passphrase)
    config.save(directory)
    return vkeys


def create_cosigner(
    directory: Path, *, what: str, name: str, passphrase: bytes | None
) -> tuple[VerifierKey, ...]:
    """Make what a witness and a mirror (`what`) both have: keys, heads, and a list of logs.

    Raises:
        WitnessError: the directory holds something already.
    """
    if directory.exists() and any(directory.iterdir()):
        raise WitnessError(f"{directory} is not empty: choose a new directory for a new {what}")
    (directory / KEYS).mkdir(parents=True, exist_ok=True)
    (directory / KEYS).chmod(0o700)
    vkeys = []
    for file, algorithm in KEY_FILES.items():
        signer = Signer.generate(name, algorithm)
        save_signer(directory / KEYS / file, signer, passphrase=passphrase)
        vkeys.append(signer.vkey)
    HeadStore.create(directory).close()
    create_log_list(directory, what=what)
    return tuple(vkeys)


def load_signers(directory: Path, *, name: str, passphrase: bytes | None) -> tuple[Signer, ...]:
    """Load a cosigner's keys and check that they carry its name.

    Raises:
        NoteError: a key file is missing, too open, sealed, or damaged.
        WitnessError: a key is of another witness, or in the other's file.
    """
    signers = []
    for file, algorithm in KEY_FILES.items():
        signer = load_signer(directory / KEYS / file, passphrase=passphrase)
        if signer.vkey.name != name or signer.vkey.algorithm is not algorithm:
            raise WitnessError(
                f"{directory / KEYS / file} holds a {signer.vkey.algorithm.name} key of "
                f"{signer.vkey.name!r}, not the {algorithm.name} key of {name!r}"
            )
        signers.append(signer)
    return tuple(signers)
