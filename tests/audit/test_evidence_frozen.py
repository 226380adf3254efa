"""Packages that were given out years ago verify, pages and all, whatever words later releases find.

`packages/N.zip` is one in the words `PAGES = N`. Who changes a word of the pages adds one to
`PAGES`, keeps the words of before (`evidence_page`) and freezes another package; those that are
there stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.audit.lies import changed, relisted, said
from tlog.audit.evidence import PAGES
from tlog.audit.evidence_check import Verdict
from tlog.client import VerificationError, Verifier
from tlog.notes import VerifierKey
from tlog.notes.policy import parse_policy

PACKAGES = sorted(
    Path(__file__).with_name("packages").glob("*.zip"), key=lambda file: int(file.stem)
)
of_each = pytest.mark.parametrize("file", PACKAGES, ids=lambda file: file.stem)


def verified(file: Path, package: bytes) -> Verdict:
    policy = parse_policy(file.with_suffix(".policy").read_bytes())
    service = VerifierKey.parse(file.with_suffix(".service").read_text().strip())
    return Verifier(policy).evidence(package, service=service)


@of_each
def test_a_package_of_before_verifies(file: Path) -> None:
    verdict = verified(file, file.read_bytes())
    assert verdict.contents.pages == int(file.stem)
    assert verdict.service_known
    assert len(verdict.chosen()) >= 2


def test_the_words_of_today_are_frozen() -> None:
    """Red because a word has changed? See above."""
    assert [file.stem for file in PACKAGES] == [str(number + 1) for number in range(PAGES)]


@of_each
@pytest.mark.parametrize("page", ["report.html", "VERIFY.txt"])
def test_a_page_that_says_anything_else_is_refused(file: Path, page: str) -> None:
    for change in (
        lambda _: b"<script src=https://evil.example/x.js></script>",
        lambda data: data + b" ",
        lambda data: data.replace(b"record", b"reco\xd0\xb3d", 1),
    ):
        with pytest.raises(VerificationError, match=f"{page} does not say what the rest"):
            verified(file, relisted(file.read_bytes(), changed(page, change)))


@of_each
@pytest.mark.parametrize("pages", [-1, 0, PAGES + 1, 99, 1 << 60, "1", None, True, 1.0])
def test_pages_in_words_that_nobody_knows_are_refused(file: Path, pages: Any) -> None:
    """Or whoever makes a package could say in which words nobody can look."""
    for lie in (said(pages=pages), changed("report.html", lambda _: b"anything")):
        package = relisted(relisted(file.read_bytes(), said(pages=pages)), lie)
        with pytest.raises(VerificationError, match="pages (are in words|is malformed|is out of)"):
            verified(file, package)


@of_each
def test_pages_are_those_of_their_words(file: Path) -> None:
    for pages in range(1, PAGES + 1):
        if pages != int(file.stem):
            with pytest.raises(VerificationError, match="does not say what the rest"):
                verified(file, relisted(file.read_bytes(), said(pages=pages)))
