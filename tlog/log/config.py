"""The settings of one log, kept as `log.toml` in its directory."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tlog.log.errors import LogError
from tlog.merkle import MAX_ENTRY_SIZE
from tlog.notes import NoteError, check_name

FILE_NAME = "log.toml"
MAX_FILE_SIZE = 64 * 1024
MAX_BATCH_ENTRIES = 16_384


def _origin(value: str) -> str:
    try:
        check_name(value)
    except NoteError as error:
        raise ValueError(str(error)) from None
    return value


class LogConfig(BaseModel):
    """What `tlog init` decides, and what an operator may change between two starts.

    The origin and the name are the log's identity and never change; the rest are limits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    origin: Annotated[str, AfterValidator(_origin)]
    """First line of every checkpoint, and the name of the keys."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    """How requests and URLs address the log."""
    dedup: bool = False
    """The same leaf has one index, however often it is appended."""
    checkpoint_interval: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """Least seconds between two published checkpoints; 0 publishes every commit."""
    max_entry_size: Annotated[int, Field(ge=1, le=MAX_ENTRY_SIZE)] = MAX_ENTRY_SIZE
    """Bytes; an entry bundle cannot hold more than 65,535."""
    max_batch_entries: Annotated[int, Field(ge=1, le=MAX_BATCH_ENTRIES)] = MAX_BATCH_ENTRIES
    """Entries that one request may carry."""
    max_pending_entries: Annotated[int, Field(ge=1, le=1 << 24)] = 1 << 17
    """Entries that may wait to be committed before the log pushes back."""
    max_pending_bytes: Annotated[int, Field(ge=1, le=1 << 34)] = 128 << 20
    """Bytes that may wait to be committed before the log pushes back."""
    linger: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Seconds a commit may wait for company when appends come in parallel."""
    scrub_interval: Annotated[float, Field(ge=0, le=366 * 86_400)] = 86_400.0
    """Seconds after which all that is stored is re-hashed again, beside the work; 0 for never."""

    quorum_timeout: Annotated[float, Field(gt=0, le=300)] = 5.0
    """Seconds that the witnesses of the policy have to make a quorum for one head."""
    refresh_interval: Annotated[float, Field(gt=0, le=86_400)] = 3600.0
    """Seconds after which an unchanged head is cosigned anew."""
    fail_open: bool = False
    """Publish without a quorum rather than not at all: gives up what witnesses are for."""

    def save(self, directory: Path) -> None:
        """Write `log.toml`, refusing to replace one."""
        lines = ["# A tlog log. The origin and the name are its identity: never change them.\n"]
        for key, value in self.model_dump().items():
            text = json.dumps(value, ensure_ascii=False)  # JSON scalars are TOML scalars
            lines.append(f"{key} = {text}\n")
        with (directory / FILE_NAME).open("x", encoding="utf-8") as file:
            file.writelines(lines)

    @classmethod
    def load(cls, directory: Path) -> LogConfig:
        """Read `log.toml`.

        Raises:
            LogError: there is none, or it says something that is not understood.
        """
        path = directory / FILE_NAME
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_SIZE + 1)
        except FileNotFoundError:
            raise LogError(
                f"{directory} holds no log ({FILE_NAME} is missing). Make one with: "
                f"tlog init {directory} --origin ORIGIN"
            ) from None
        if len(data) > MAX_FILE_SIZE:
            raise LogError(f"{path} is longer than {MAX_FILE_SIZE} bytes")
        try:
            return cls.model_validate(tomllib.loads(data.decode("utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise LogError(f"{path}: {field}: {first['msg']}") from None
        except (ValueError, RecursionError) as error:  # the latter for brackets in brackets
            raise LogError(f"{path}: {error}") from None
