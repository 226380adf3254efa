"""Words that nobody can mean are refused by every verb, before it does anything."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.cli.conftest import Run, Served
from tests.cli.test_help import VERBS
from tlog.cli.errors import Exit

NO_UTF8 = "ali\udcff"
"""As Python has the bytes `ali\\xff` of a command line."""
LEAVES = {words: verb for words, verb in VERBS.items() if not isinstance(verb, click.Group)}
OPTIONS = [
    (words, option, option.opts[-1])
    for words, verb in LEAVES.items()
    for option in verb.params
    if isinstance(option, click.Option) and not option.is_flag
]
TEXTS = [each for each in OPTIONS if not isinstance(each[1].type, click.Path)]


def test_there_are_options() -> None:
    assert len(OPTIONS) > len(TEXTS) > len(LEAVES) > 30


def ids(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(("words", "_", "name"), OPTIONS, ids=ids)
def test_an_option_that_is_given_and_empty(
    run: Run, words: tuple[str, ...], _: click.Option, name: str
) -> None:
    """`--subject "$WHO"`, and WHO is not set: that must not be everybody."""
    for given in ((name, ""), (f"{name}=",)) if name[:2] == "--" else ((name, ""),):
        result = run(*words, *given)
        assert (result.code, result.out) == (Exit.USAGE, b"")
        assert "it is empty: is a variable of your shell not set?" in result.err
        assert result.err.startswith("tlog: Invalid value for ")
        assert name in result.err
        assert result.err.count("\n") == 1


@pytest.mark.parametrize(("words", "_", "name"), TEXTS, ids=ids)
def test_text_that_is_not_utf_8(
    run: Run, words: tuple[str, ...], _: click.Option, name: str
) -> None:
    result = run(*words, name, NO_UTF8)
    assert (result.code, result.out) == (Exit.USAGE, b"")
    assert result.err.startswith("tlog: Invalid value for ")
    assert f"{name}" in result.err
    assert "it is not UTF-8" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_arguments_that_are_not_utf_8(run: Run, words: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever they are: a line, and no traceback."""
    arguments = [each for each in LEAVES[words].params if isinstance(each, click.Argument)]
    given = [
        str(tmp_path / NO_UTF8) if isinstance(each.type, click.Path) else NO_UTF8
        for each in arguments
    ]
    result = run(*words, *given)
    assert result.code in (Exit.OK, Exit.FAILED, Exit.USAGE, Exit.UNREACHABLE)
    assert "Traceback" not in result.err


def test_one_of_several_that_is_empty(run: Run) -> None:
    result = run("export", "--purpose", "x", "--type", "access.read", "--type", "")
    assert (result.code, "'--type': it is empty" in result.err) == (Exit.USAGE, True)


def test_the_directory_that_is_empty_is_not_the_one_we_are_in(run: Run) -> None:
    result = run("records", "init", "", "--tenant", "acme")
    assert (result.code, "it is empty" in result.err) == (Exit.USAGE, True)


def test_variables(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOG_PURPOSE", NO_UTF8)
    result = run("records", "--subject", "alice")
    assert (result.code, "'--purpose': it is not UTF-8" in result.err) == (Exit.USAGE, True)
    # One that is empty counts as none.
    monkeypatch.setenv("TLOG_PURPOSE", "")
    assert "what for? Give --purpose" in run("records", "--subject", "alice").err


def test_an_entry_is_bytes_and_may_be_empty(run: Run, remote: Served) -> None:
    for entry in (NO_UTF8, ""):
        result = run("append", entry)
        assert (result.code, result.err) == (0, "")


def test_files_may_have_names_that_are_not_utf_8(run: Run, remote: Served, tmp_path: Path) -> None:
    result = run("append", "named", "--proof", tmp_path / NO_UTF8)
    assert (result.code, result.err) == (0, "")
    (tmp_path / "entry").write_bytes(b"named")
    vkeys = [word for vkey in remote.vkeys for word in ("--vkey", vkey)]
    assert run("verify", *vkeys, tmp_path / NO_UTF8, tmp_path / "entry").code == 0
