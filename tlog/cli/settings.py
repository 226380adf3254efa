"""The settings of `tlog serve`: flags win over TLOG_* variables, and those over the file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tlog.cli.errors import CommandError

MAX_FILE_SIZE = 1 << 20


def _split(value: Any) -> Any:
    return value.split(os.pathsep) if isinstance(value, str) else value


class ServerSettings(BaseSettings):
    """What a server listens on, and what it serves."""

    model_config = SettingsConfigDict(env_prefix="TLOG_", extra="forbid", frozen=True)

    grpc: str = "127.0.0.1:6962"
    """HOST:PORT of the gRPC face; port 0 takes a free one."""
    http: str = "127.0.0.1:6963"
    """HOST:PORT of the HTTP face; port 0 takes a free one."""
    logs: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)] = ()
    """Directories of the logs. In the environment separated as in PATH."""


def load_settings(file: Path | None, **flags: object) -> ServerSettings:
    """Read the settings. Flags that are None or empty were not given.

    Paths in the file are relative to the directory that it lies in.

    Raises:
        CommandError: the file or a variable says something that is not understood.
    """
    written = _read(file) if file else {}

    class Settings(ServerSettings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, written)

    given: dict[str, Any] = {key: value for key, value in flags.items() if value}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        where = f" (see {file} and the environment)" if file else " (see the environment)"
        raise CommandError(f"setting {field!r}: {first['msg']}{where}") from None


def _read(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_SIZE + 1)
    if len(data) > MAX_FILE_SIZE:
        raise CommandError(f"{file} is longer than {MAX_FILE_SIZE} bytes")
    try:
        written = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # the latter for brackets in brackets
        raise CommandError(f"{file}: {error}") from None
    if isinstance(logs := written.get("logs"), list):
        written["logs"] = [file.parent / str(directory) for directory in logs]
    return written
