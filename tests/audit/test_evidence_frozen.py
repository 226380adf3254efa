"""Packages that were given out years ago verify, whatever words later releases find for people.

`packages/N.zip` is one in the words `PAGES = N`. Who changes a word of the pages adds one to
`PAGES` and freezes another package; those that are there stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.audit.evidence import GOOD, contents_of
from tlog.audit.evidence import PAGES
from tlog.audit.evidence_file import encode_package
from tlog.client import Verifier
from tlog.notes import VerifierKey
from tlog.notes.policy import parse_policy

PACKAGES = sorted(
    Path(__file__).with_name("packages").glob("*.zip"), key=lambda file: int(file.stem)
)


@pytest.mark.parametrize("file", PACKAGES, ids=lambda file: file.stem)
def test_a_package_of_before_verifies(file: Path) -> None:
    policy = parse_policy(file.with_suffix(".policy").read_bytes())
    service = VerifierKey.parse(file.with_suffix(".service").read_text().strip())
    verdict = Verifier(policy).evidence(file.read_bytes(), service=service)
    assert verdict.pages_checked == (int(file.stem) == PAGES)
    assert verdict.service_known
    assert len(verdict.chosen()) == 2


def test_the_words_of_today_are_frozen() -> None:
    """Red because a word has changed? See above."""
    assert PACKAGES[-1].stem == str(PAGES)


def test_pages_in_other_words_are_not_relied_upon() -> None:
    other = encode_package(replace(contents_of(GOOD.before), pages=PAGES + 1))
    verdict = GOOD.verify(other)
    assert not verdict.pages_checked
    assert GOOD.verify(GOOD.before).pages_checked
