"""Escrow of the tenant key: n shares after SLIP-39, any m of which give it back. Pure.

A share is a text for whoever finds it years later: what it is and what to do; then, after a line
`words:`, its 33 words. The words alone are a share, too, as from paper, and any other program for
SLIP-39 combines them. The lines above are held against the words as far as they are there, but
nobody signed them: that the key is the right one is for the vault to say (`tenancy`).

There is no passphrase: it would be one more thing that is lost over the years, and that m holders
must come together keeps out whoever has fewer shares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from shamir_mnemonic import MnemonicError, Share, combine_mnemonics, generate_mnemonics
from shamir_mnemonic.wordlist import WORD_INDEX_MAP

from tlog.audit.errors import AuditError
from tlog.audit.mac import hmac_sha256

MIN_THRESHOLD: Final = 2
"""With fewer, each share would be a copy of the key."""
MAX_SHARES: Final = 16
"""Of SLIP-39, section "Format of the share mnemonic": four bits."""
MAX_SHARE_SIZE: Final = 16 * 1024
WORDS: Final = 33
"""Of a share: 26 hold ten bits each of its 32 bytes, and seven tell what it is."""
_CHECK: Final = b"tlog/tenant-key-check/v1"
_CHECK_SIZE: Final = 8
_LINE_WORDS: Final = 7
_TOLD: Final = re.compile(r"^(tenant|log|share|threshold|set|check): *(.*?)\s*$", re.MULTILINE)
_SHOWN: Final = 32

_TEXT: Final = """\
tlog: one share of a secret key

This is share {number} of {shares} of the tenant key of an audit log. Without that key nobody can
read the personal data in the vault of the log. Any {threshold} of the {shares} shares together give
the key back; fewer say nothing of it. Keep this share secret, and away from the other shares.

tenant: {tenant}
log: {origin}
share: {number} of {shares}
threshold: {threshold}
set: {set_id}
made: {made}
check: {check}

To get the key back, bring {threshold} shares of this set to the directory DIR of the log, stop its
server, and give their files to

    tlog records recover DIR FILE FILE ...

Without tlog: the words below are a share after SLIP-39, without a passphrase; see
https://github.com/satoshilabs/slips/blob/master/slip-0039.md. Any program for that makes 32 bytes
of {threshold} shares, and shows them as 64 hexadecimal digits. If what this prints begins with the
check above, they are the key, whose 32 bytes DIR/keys/tenant.key holds:

    printf {label} | openssl dgst -r -sha256 -mac HMAC -macopt hexkey:DIGITS

words:
{words}
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose key it is: the tenant, and the origin of the log."""

    tenant: str
    origin: str


@dataclass(frozen=True, slots=True)
class _Read:
    """A share that was read: what messages call it, what it tells of itself, and its words."""

    name: str
    told: Mapping[str, str]
    mnemonic: str
    share: Any


def key_check(key: bytes) -> str:
    """The check value of a key, in hex: tells keys apart, and nothing of 32 random bytes."""
    return hmac_sha256(key, _CHECK)[:_CHECK_SIZE].hex()


def split_key(key: bytes, owner: Owner, *, shares: int, threshold: int, made: date) -> list[str]:
    """Split a key into the texts of its shares, in their order; each was tried before it returns.

    Args:
        key: 32 bytes.
        owner: whose it is.
        shares: how many, at most `MAX_SHARES`.
        threshold: how many of them give the key back, at least `MIN_THRESHOLD`.
        made: the day, as the shares tell it.

    Raises:
        AuditError: no such numbers; or the shares do not give the key back.
    """
    if not MIN_THRESHOLD <= threshold <= shares <= MAX_SHARES:
        raise AuditError(
            f"{threshold} of {shares}: a threshold is at least {MIN_THRESHOLD} and at most the "
            f"number of shares, which is at most {MAX_SHARES}",
            field="threshold",
        )
    # Not extendable, because older programs know no other shares; and nothing is stretched, because
    # there is no passphrase.
    (mnemonics,) = generate_mnemonics(
        1, [(threshold, shares)], key, extendable=False, iteration_exponent=0
    )
    texts = [
        _TEXT.format(
            tenant=owner.tenant,
            origin=owner.origin,
            number=number,
            shares=shares,
            threshold=threshold,
            set_id=Share.from_mnemonic(mnemonic).identifier,
            made=made.isoformat(),
            check=key_check(key),
            label=_CHECK.decode(),
            words=_lines(mnemonic.split()),
        )
        for number, mnemonic in enumerate(mnemonics, 1)
    ]
    check_shares({f"share {n}": text for n, text in enumerate(texts, 1)}, owner, key)
    return texts


def check_shares(texts: Mapping[str, str], owner: Owner, key: bytes) -> None:
    """Refuse shares that do not give this key back, each of them.

    Raises:
        AuditError: as `combine_shares`; or it is another key.
    """
    if combine_shares(texts, owner) != key:
        raise AuditError("the shares do not give the key back: use none of them")


def combine_shares(texts: Mapping[str, str], owner: Owner) -> bytes:
    """The key of shares, every one of which has a part in it, also when there are more than needed.

    Args:
        texts: of one share or more, whole or the words alone, by what messages call them.
        owner: whose key is wanted.

    Raises:
        AuditError: a share is damaged, or somebody else's, and is named; they are not of one set,
            or too few.
    """
    shares = [_read(name, text, owner) for name, text in texts.items()]
    _check_set(shares)
    threshold = shares[0].share.member_threshold
    mnemonics = [each.mnemonic for each in shares]
    windows = [mnemonics[at : at + threshold] for at in range(len(shares) - threshold + 1)]
    try:
        keys = {combine_mnemonics(window) for window in windows}
    except MnemonicError:
        keys = set()
    if len(keys) != 1:
        names = ", ".join(each.name for each in shares)
        raise AuditError(f"not all of these are shares of one key: {names}")
    key: bytes = keys.pop()
    check = key_check(key)
    for each in shares:
        if (said := each.told.get("check", check)) != check:
            raise AuditError(
                f"{each.name}: the words give a key with the check {check}, the lines above them "
                f"say {said[:_SHOWN]}"
            )
    return key


def _check_set(shares: Sequence[_Read]) -> None:
    """Refuse what is not enough shares of one set."""
    first = shares[0]
    seen: dict[int, str] = {}
    for each in shares:
        if each.share.group_parameters() != first.share.group_parameters():
            raise AuditError(
                f"{each.name} is of set {each.share.identifier}, {first.name} of set "
                f"{first.share.identifier}: shares of different sets give nothing together"
            )
        number = each.share.index + 1
        if (other := seen.setdefault(number, each.name)) != each.name:
            raise AuditError(f"{other} and {each.name} are both share {number}: leave one out")
    if len(shares) < (needed := first.share.member_threshold):
        raise AuditError(
            f"{len(shares)} of the {needed} shares that it takes: bring {needed - len(shares)} "
            f"more of set {first.share.identifier}"
        )


def _read(name: str, text: str, owner: Owner) -> _Read:
    head, _, rest = f"\n{text}".rpartition("\nwords:")
    words = rest.lower().split()
    for number, word in enumerate(words, 1):
        if word not in WORD_INDEX_MAP:
            raise AuditError(f"{name}: word {number}, {word[:_SHOWN]!r}, is none of SLIP-39")
    if len(words) != WORDS:
        raise AuditError(f"{name}: {len(words)} words, a share of a tenant key has {WORDS}")
    mnemonic = " ".join(words)
    try:
        share = Share.from_mnemonic(mnemonic)
    except MnemonicError:
        # A checksum tells that, but not which.
        raise AuditError(
            f"{name}: a word is wrong, or not in its place: compare it with what was given out"
        ) from None
    if share.group_count != 1:
        raise AuditError(f"{name}: a share of several groups: only other programs combine them")
    read = _Read(name, dict(_TOLD.findall(head)), mnemonic, share)
    _check_told(read, owner)
    return read


def _check_told(read: _Read, owner: Owner) -> None:
    """Refuse a share that tells of itself what it is not, or that is somebody else's."""
    told, share = read.told, read.share
    for field, is_so in (
        ("share", share.index + 1),
        ("threshold", share.member_threshold),
        ("set", share.identifier),
    ):
        said = told.get(field, str(is_so)).partition(" ")[0]
        if said != str(is_so):
            raise AuditError(
                f"{read.name}: the words are of {field} {is_so}, the lines above them say "
                f"{said[:_SHOWN]}"
            )
    for field, wanted in (("tenant", owner.tenant), ("log", owner.origin)):
        if (said := told.get(field, wanted)) != wanted:
            raise AuditError(f"{read.name}: a share of the {field} {said[:255]}, not of {wanted}")


def _lines(words: Sequence[str]) -> str:
    rows = [words[at : at + _LINE_WORDS] for at in range(0, len(words), _LINE_WORDS)]
    return "\n".join(" ".join(row) for row in rows)
