"""Flags win over the environment, and that over the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlog.cli.errors import CommandError
from tlog.cli.settings import MAX_FILE_SIZE, load_settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "tlog.toml"
    file.write_text('grpc = "127.0.0.1:1"\nhttp = "127.0.0.1:2"\nlogs = ["one", "/two"]\n')
    return file


def test_defaults() -> None:
    settings = load_settings(None)
    assert (settings.grpc, settings.http, settings.logs) == ("127.0.0.1:6962", "127.0.0.1:6963", ())


def test_the_file_has_paths_relative_to_itself(config: Path, tmp_path: Path) -> None:
    settings = load_settings(config)
    assert (settings.grpc, settings.http) == ("127.0.0.1:1", "127.0.0.1:2")
    assert settings.logs == (tmp_path / "one", Path("/two"))


def test_the_environment_wins_over_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOG_GRPC", "127.0.0.1:3")
    monkeypatch.setenv("TLOG_LOGS", "a:b")
    settings = load_settings(config)
    assert (settings.grpc, settings.http) == ("127.0.0.1:3", "127.0.0.1:2")
    assert settings.logs == (Path("a"), Path("b"))


def test_flags_win_over_all(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOG_GRPC", "127.0.0.1:3")
    settings = load_settings(config, grpc="127.0.0.1:4", http=None, logs=(Path("c"),))
    assert (settings.grpc, settings.http) == ("127.0.0.1:4", "127.0.0.1:2")
    assert settings.logs == (Path("c"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"gprc = '127.0.0.1:1'", "gprc"),
        (b"grpc = 6962", "grpc"),
        (b"logs = 5", "logs"),
        (b"grpc = ", "tlog.toml"),
        (b"\xff", "tlog.toml"),
        (b"#" * (MAX_FILE_SIZE + 1), "longer"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, text: bytes, says: str) -> None:
    file = tmp_path / "tlog.toml"
    file.write_bytes(text)
    with pytest.raises(CommandError, match=says):
        load_settings(file)
