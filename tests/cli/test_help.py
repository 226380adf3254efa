"""The command explains itself, and quickly."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from tests.cli.conftest import Run
from tlog.cli.app import cli
from tlog.cli.errors import Exit


def verbs(group: click.Group, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """All verbs by the words that call them, those of groups too."""
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        found[*above, name] = command
        if isinstance(command, click.Group):
            found |= verbs(command, (*above, name))
    return found


VERBS = verbs(cli)


def test_help_tells_every_verb_and_exit_code(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    text = result.out.decode()
    for verb in cli.commands:
        assert f"\n  {verb} " in text
    for code in Exit:
        assert f"\n    {code.value} " in text


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_each_verb_teaches_with_an_example_that_parses(run: Run, words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    text = result.out.decode()
    assert result.code == 0
    examples = text.partition("Examples:\n")[2].splitlines()
    assert any(f"tlog {' '.join(words)}" in line for line in examples)


def test_no_verb_is_a_usage_error(run: Run) -> None:
    assert run().code == Exit.USAGE


def test_an_unknown_verb_or_option_is_a_usage_error(run: Run) -> None:
    assert run("frobnicate").code == Exit.USAGE
    result = run("fsck", "--frobnicate", "--json")
    assert result.code == Exit.USAGE
    assert "--frobnicate" in json.loads(result.err)["error"]


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, tlog.cli; "
        "heavy = {'asyncio', 'grpc', 'rich', 'pydantic', 'rocksdict', 'cryptography', 'uvloop'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    assert done.stdout.strip() == b"[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.code == 0
    assert b"_TLOG_COMPLETE" in result.out


def test_completion_completes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TLOG_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "tlog ver")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert b"verify" in run().out


def test_every_verb_has_json_but_completion() -> None:
    for words, command in VERBS.items():
        options = [opt for param in command.params for opt in param.opts]
        has_none = words == ("completion",) or isinstance(command, click.Group)
        assert ("--json" in options) is not has_none
