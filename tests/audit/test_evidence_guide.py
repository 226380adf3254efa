"""Other people's tools verify our packages, by the commands in VERIFY.txt; and the page is safe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.audit.evidence import ACCESSED, RECEIVED, Case, case, contents_of
from tests.audit.producer import SHOP, forged
from tests.audit.tenant import LOG, TILL, indices, tenant
from tests.e2e.processes import ROOT
from tlog.audit.codec import encode_base64url
from tlog.audit.collecting import Choice, collect
from tlog.audit.evidence_file import encode_package, read_package
from tlog.audit.evidence_page import report
from tlog.audit.key_history import KeyHistory
from tlog.audit.sdjwt import Disclosure
from tlog.client import VerificationError, Verifier


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked by somebody else's zip, and beside it what its verifier knows."""
    directory = tmp_path_factory.mktemp("unpacked")
    made = case()
    ZipFile(BytesIO(made.before)).extractall(directory)
    (directory / "YOUR-POLICY").write_bytes(made.policy)
    (directory / "YOUR-ROOT.pem").write_bytes(made.root_file.read_bytes())
    (directory / "verify.py").symlink_to(ROOT / "tools/verify.py")
    binaries = directory / "bin"
    binaries.mkdir()
    (binaries / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (binaries / "python3").chmod(0o755)
    guide = (directory / "VERIFY.txt").read_text()
    script = guide[guide.index("import base64") : guide.index("   and for each RECORD with")]
    (directory / "sdjwt.py").write_text(script)
    return directory


def command(unpacked: Path, tool: str) -> str:
    """The command of the guide that has a word in it."""
    lines = (unpacked / "VERIFY.txt").read_text().splitlines()
    (found,) = [line.strip() for line in lines if line.startswith("    ") and tool in line]
    return found


def typed(unpacked: Path, line: str) -> subprocess.CompletedProcess[str]:
    path = f"{unpacked / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", line],
        cwd=unpacked,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def damaged(unpacked: Path) -> Iterator[Path]:
    """A file may be damaged; it is whole again afterwards."""
    file = unpacked / f"records/{RECEIVED:06}/leaf.json"
    good = file.read_bytes()
    file.write_bytes(good[:-9] + b"]" + good[-8:])
    yield unpacked
    file.write_bytes(good)


def test_sha256sum(unpacked: Path) -> None:
    line = command(unpacked, "sha256sum")
    done = typed(unpacked, line)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_sha256sum_of_damage(damaged: Path) -> None:
    done = typed(damaged, command(damaged, "sha256sum"))
    assert done.returncode == 1
    assert f"records/{RECEIVED:06}/leaf.json: FAILED" in done.stdout


def records(unpacked: Path) -> list[str]:
    text = (unpacked / "VERIFY.txt").read_text()
    return re.findall(r"^    ((?:records|keys)/\d+)  ", text, re.M)


def test_the_proofs(unpacked: Path) -> None:
    line = command(unpacked, "python3 verify.py")
    assert len(records(unpacked)) == 5
    for record in records(unpacked):
        done = typed(unpacked, line.replace("RECORD", record))
        index = int(record.rpartition("/")[2])
        assert done.stdout.startswith(f"verified: entry {index} of example.com/records, in the t")
        assert done.returncode == 0


def test_the_proof_of_damage(damaged: Path) -> None:
    line = command(damaged, "python3 verify.py")
    assert typed(damaged, line.replace("RECORD", f"records/{RECEIVED:06}")).returncode == 3


def test_the_disclosures(unpacked: Path) -> None:
    line = command(unpacked, "python3 sdjwt.py")
    shop = line.replace("VKEY", str(SHOP.vkey))
    claims = {}
    for index in (RECEIVED, ACCESSED):
        record = unpacked / f"records/{index:06}"
        leaf = json.loads((record / "leaf.json").read_text())
        assert (record / "disclosures.txt").read_text().startswith(leaf["jws"] + "~")
        done = typed(unpacked, shop.replace("RECORD", f"records/{index:06}"))
        assert done.returncode == 0, done.stderr
        claims[index] = json.loads(done.stdout)
    assert claims[RECEIVED]["actor"] == {"id": "eve", "ip": "192.0.2.1"}
    assert claims[RECEIVED]["subjects"] == [{"id": "alice@example.com"}]
    assert "details" not in claims[RECEIVED]
    assert claims[ACCESSED]["subjects"] == [{"id": "alice@example.com"}, {}]
    # The key is where the guide says.
    leaf = json.loads((unpacked / "keys/000000/leaf.json").read_text())
    assert str(SHOP.vkey) == payload(leaf["jws"])["vkey"]
    assert json.loads((unpacked / "manifest.json").read_text())["service"] == str(LOG.vkey)
    # It is that key's, and nobody else's.
    wrong = line.replace("VKEY", str(TILL.vkey)).replace("RECORD", f"records/{RECEIVED:06}")
    assert typed(unpacked, wrong).returncode != 0


def payload(jws: str) -> dict[str, object]:
    import base64

    part = jws.split(".")[1]
    made: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return made


def test_the_stamps(unpacked: Path) -> None:
    line = command(unpacked, "openssl ts")
    text = (unpacked / "VERIFY.txt").read_text()
    stamps = re.findall(r"^    (timestamps/(\w+)/\d+)$", text, re.M)
    assert [stamp for stamp, _ in stamps] == [
        "timestamps/one/000004", "timestamps/one/000006", "timestamps/two/000006",
    ]  # fmt: skip
    for stamp, name in stamps:
        done = typed(unpacked, line.replace("STAMP", stamp).replace("NAME", name))
        ours = name == "one"
        assert (done.returncode == 0) is ours, done.stderr
        assert ("Verification: OK" in done.stdout + done.stderr) is ours


def test_the_guide_has_no_other_command(unpacked: Path) -> None:
    lines = (unpacked / "VERIFY.txt").read_text().splitlines()
    shown = [line.split()[0] for line in lines if re.match(r"    [a-z]+3? ", line)]
    assert shown == ["tlog", "python3", "python3", "python3", "openssl"]


# ---- the page ----


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "</td><script src=//evil.example></script><img src=x onerror=alert(1)>\u202e&lt;\ud800"


def spelt_out(name: str, value: object, salt: str) -> Disclosure:
    """A disclosure as a foreign producer may spell it: JSON has escapes for half a character."""
    text = json.dumps([salt * 22, name, value])
    return Disclosure(name, value, encode_base64url(text.encode("ascii")))


async def test_what_is_recorded_cannot_get_out_of_the_page(tmp_path: Path) -> None:
    event = forged(
        [[spelt_out("id", "<b>alice</b>", "a"), spelt_out("x_note", HOSTILE, "b")]],
        [spelt_out("details", {HOSTILE: [HOSTILE]}, "c"), spelt_out("actor", HOSTILE, "d")],
    )
    async with tenant(tmp_path) as kept:
        assert indices(await kept.accept([event])) == [2]
        collected = await collect(kept, [2], Choice(everything=True), history=KeyHistory(kept.log))
        vkeys = kept.log.vkeys
    verdict = Verifier.with_vkeys(vkeys).evidence(collected.package, service=LOG.vkey)
    assert verdict.chosen()[0].record.parts[0].shown[0].value == HOSTILE
    text = ZipFile(BytesIO(collected.package)).read("report.html").decode()
    page = Page(text)
    assert page.tags <= {
        *("html", "head", "meta", "style", "title", "body", "h1", "h2", "h3", "p", "code", "pre"),
        *("table", "tr", "th", "td", "ul", "li"),
    }
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "scope", "class"}
    assert "<script src=//evil.example>" in page.text
    assert "default-src 'none'" in text
    for word in ("http:", "https:", "javascript:"):
        assert word not in text


def test_the_page_tells_what_is_there() -> None:
    page = Page(ZipFile(BytesIO(case().after)).read("report.html").decode()).text
    for words in (
        "Records of acme about request R-1",
        f"Entry {RECEIVED}: request.received",
        "What it said of subject 1 is erased at entry 7 under request R-1.",
        "Entry 7: subject.key_destroyed",
        "completeness",
    ):
        assert words in page
    before = Page(ZipFile(BytesIO(case().before)).read("report.html").decode()).text
    assert "Hidden of subject 2: at most 1 claims." in before
    assert "alice@example.com" in before


def test_a_page_that_lies_is_refused() -> None:
    """Everything else is right; the manifest too."""
    made: Case = case()
    contents = contents_of(made.after)
    package = read_package(made.after)
    true = report(contents, package.records)
    lie = true.replace(b"is erased at entry 7", b"is erased at entry 6")
    assert len(lie) == len(true)
    with pytest.raises(VerificationError, match=r"report\.html is not what|CRC-32"):
        made.verify(made.after.replace(true, lie))
    assert encode_package(replace(contents)) == made.after
