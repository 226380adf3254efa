"""What people read in an evidence package: `report.html`, and `VERIFY.txt` for their own tools.

Both are made from the rest of the package alone, and say of nothing that it is proven: whoever
verifies makes them again, and refuses a package in which they say anything else. The page stands
alone, as all our reports do: no script, nothing fetched, no link. All values are escaped.

Who changes a word adds one to `PAGES`, and keeps the words of before beside the new ones: a package
that was given out is made again in the words that it says (`Contents.pages`), under every later
release. There are no pages that nobody checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from tlog.audit.evidence import Contents, Gone, Part, Record, Why, directory_of
from tlog.audit.times import format_time

_SKIPPED: Final = frozenset({"_sd", "_sd_alg", "subjects"})

_HEAD: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 1rem/1.4 sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border: 1px solid #999; padding: .2rem .5rem; text-align: left; vertical-align: top }
th { font-weight: normal; width: 14rem }
td, pre { overflow-wrap: anywhere; white-space: pre-wrap }
.gone, .hidden { color: #555; font-style: italic }
</style>
"""

_FIRST: Final = (
    "completeness of the package: that no record of the log was left out that belongs here, is the "
    "word of whoever collected it",
    "completeness of the log: it has what was recorded. A number that is missing from a producer's "
    "sequence tells a gap; of what was never recorded, nothing can tell",
    "truth: that what the records say is so. Proven is who signed it, and that it is unchanged",
    "hidden claims: what they say, or how many they are, for a digest may be a decoy",
    "destruction: that erased data is gone everywhere, or with which key a part was sealed. Proven "
    "is that the log has signed that the key is destroyed",
    "revocation: that no record about a key was left out. For that, audit the log",
)
_SECOND: Final = (
    *_FIRST[:-1],
    "expiry: that what has expired is gone, or that no hold kept it. Proven is that the log has "
    "signed that it was past its time",
    "revocation: that no record about a key was left out: for that, audit the log. Nor that no "
    "certificate of a time-stamp authority was revoked",
)
NOT_PROVEN: Final = (
    *_SECOND[:4],
    f"{_SECOND[4]}; and, where it is told who ordered that, that they signed an order under that "
    "request: not whom it named, of which the record keeps a salted digest alone",
    *_SECOND[5:],
)
"""What no evidence package proves, in the words of the report and of `tlog verify`."""
_NOT_PROVEN: Final = {1: _FIRST, 2: _SECOND, 3: NOT_PROVEN}
"""The same, by the words that the pages are in."""


def report(contents: Contents, records: Sequence[Record]) -> bytes:
    """The page."""
    chosen = [record for record in records if record.item.why is Why.CHOSEN]
    others = [record for record in records if record.item.why is not Why.CHOSEN]
    title = f"Records of {contents.tenant}"
    if contents.request_id:
        title += f" about request {contents.request_id}"
    about = [
        ("Log", contents.origin),
        ("Entries of the log that its checkpoint covers", str(contents.tree_size)),
        ("Records", str(len(chosen))),
        ("Key of the log's own records", str(contents.service)),
    ]
    stamps = [(stamp.authority, f"the head of {stamp.size} entries") for stamp in contents.stamps]
    pieces = [
        _HEAD,
        f"<title>{escape(title)}</title></head>\n<body>\n<h1>{escape(title)}</h1>\n",
        "<p>This page repeats what the package holds, and proves nothing by itself. Verify the "
        "package, with <code>tlog verify FILE --policy POLICY</code> or with other people's tools "
        "as VERIFY.txt tells; with this page changed, it would be refused.</p>\n",
        _table(about),
        *(_record(record) for record in chosen),
        "<h2>Records of erasures, expiry and keys</h2>\n" if others else "",
        *(_record(record, level=3) for record in others),
        "<h2>Time-stamps</h2>\n",
        _table(stamps) if stamps else "<p>none</p>\n",
        "<h2>Checkpoint</h2>\n",
        f"<pre>{escape(contents.checkpoint.decode('utf-8', 'replace'))}</pre>\n",
        "<h2>What is not proven</h2>\n<ul>\n",
        *(f"<li>{escape(each)}</li>\n" for each in _NOT_PROVEN[contents.pages]),
        "</ul>\n<p>Not legal advice, and no proof of compliance.</p>\n</body></html>\n",
    ]
    return _encode(pieces)


def _record(record: Record, level: int = 2) -> str:
    rows = [
        ("Received by the log", format_time(record.leaf.received_at)),
        ("Signed with", record.jws.kid),
        *((name, shown_value(value)) for name, value in public_claims(record).items()),
    ]
    title = escape(f"Entry {record.index}: {record.type}")
    parts = "".join(_part(number, part) for number, part in enumerate(record.parts))
    return f"<h{level}>{title}</h{level}>\n{_table(rows)}{parts}"


def _part(number: int, part: Part) -> str:
    of = part_name(number)
    text = ""
    if part.shown:
        rows = [(disclosure.name, shown_value(disclosure.value)) for disclosure in part.shown]
        text = f"<p>Disclosed {escape(of)}:</p>\n{_table(rows)}"
    if part.gone is not None:
        said = f"What it said {of} is {told_gone(part.gone)}."
        return f'<p class="gone">{escape(said)}</p>\n'
    if part.hidden:
        return f'{text}<p class="hidden">Hidden {escape(of)}: at most {part.hidden} claims.</p>\n'
    return text


def told_gone(gone: Gone) -> str:
    """What became of a part."""
    if gone.request_id:
        return f"erased at entry {gone.index} under request {gone.request_id}"
    return f"expired at entry {gone.index}"


def part_name(number: int) -> str:
    """What a part is about."""
    return "of all subjects" if number == 0 else f"of subject {number}"


def public_claims(record: Record) -> dict[str, Any]:
    """What a record says in the clear."""
    return {name: record.payload[name] for name in sorted(record.payload.keys() - _SKIPPED)}


def shown_value(value: Any) -> str:
    """A value of JSON, for people."""
    return value if type(value) is str else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n'
        for name, value in rows
    )
    return f"<table>\n{body}</table>\n"


_SUMS: Final = (
    "python3 -c 'import json; "
    'print(*[h + "  " + n for n, h in json.load(open("manifest.json"))["members"].items()], '
    'sep="\\n")\' | sha256sum --check --strict --quiet'
)
_STAMP: Final = (
    "openssl ts -verify -data STAMP.note -in STAMP.tsr -CAfile YOUR-ROOT.pem "
    "-untrusted timestamps/NAME/certificates.pem"
)
_SCRIPT: Final = """\
import base64, json, sys
from jwcrypto.jwk import JWK
from sd_jwt.verifier import SDJWTVerifier
key = base64.b64decode(sys.argv[1].split("+", 2)[2])[1:]
jwk = JWK(kty="OKP", crv="Ed25519", x=base64.urlsafe_b64encode(key).rstrip(b"=").decode())
verifier = SDJWTVerifier(open(sys.argv[2]).read(), lambda issuer, header: jwk)
print(json.dumps(verifier.get_verified_payload(), indent=2))
"""
_GUIDE: Final = f"""\
How to verify this package with other people's tools
====================================================

With tlog, all of it, offline:

    tlog verify FILE.zip --policy YOUR-POLICY --service-key YOUR-KEY --tsa-root YOUR-ROOT.pem

Take the policy (or the log's keys), the service key and the roots of the time-stamp authorities
from where you trust them to come from, and not from this package. Unpack it, and in its directory:

1. Nothing was changed since it was packed: coreutils

    {_SUMS}

2. Each record is in the log: any implementation of c2sp.org/tlog-proof, such as tools/verify.py of
   tlog, one file that needs only Python and its `cryptography` package. For each RECORD:

    python3 verify.py --policy YOUR-POLICY RECORD/proof.tlog-proof RECORD/leaf.json

3. What is disclosed is what was signed: any library of SD-JWT (RFC 9901), such as the Python
   package `sd-jwt`. The key of a producer, VKEY, is the claim `vkey` of the record in keys/ that
   registers it, or for the log's own records the one in manifest.json. Save this as sdjwt.py:

{_SCRIPT}
   and for each RECORD with a disclosures.txt, which begins with the `jws` in its leaf.json:

    python3 sdjwt.py VKEY RECORD/disclosures.txt

4. When it was there: openssl. For each STAMP, with the root of its authority, which you trust:

    {_STAMP}

   STAMP.path is the consistency proof (RFC 9162, section 2.1.4) from the note to `checkpoint`.

"""


def guide(contents: Contents, records: Sequence[Record]) -> bytes:
    """The guide."""
    names: Mapping[Why, str] = {
        Why.CHOSEN: "chosen",
        Why.GONE: "says why something is gone",
        Why.KEY: "of the keys of producers",
    }
    lines = [
        f"    {directory_of(record.item)}  {names[record.item.why]}, signed with {record.jws.kid}\n"
        for record in records
    ]
    stamps = [f"    timestamps/{each.authority}/{each.size:06}\n" for each in contents.stamps]
    return _encode(
        [
            _GUIDE,
            f"The log is {contents.origin}, its tree has {contents.tree_size} entries.\n\n",
            "The RECORDs:\n\n",
            *(lines or ["    none\n"]),
            "\nThe STAMPs:\n\n",
            *(stamps or ["    none\n"]),
            "\nWhat none of this proves:\n\n",
            *(f"  * {each}\n" for each in _NOT_PROVEN[contents.pages]),
        ]
    )


def _encode(pieces: Iterable[str]) -> bytes:
    # JSON can spell out what UTF-8 cannot.
    return "".join(pieces).encode("utf-8", "backslashreplace")
