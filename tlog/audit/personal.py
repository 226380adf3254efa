"""Personal data that strayed into a public claim: the patterns that are refused by default.

They catch mistakes, not malice: a name or a street is not seen. False alarms are chosen over
leaks, because a public claim stays in the log for ever; disclosing the claim always works. But
none comes by chance: what is drawn at random, a UUID or a hash in hex, holds nobody's number.

An address needs no dot after the @ (alice@localhost, jdoe@CORP), and so `app@prod` is refused as
well. What cannot be a host is let through: versions (pkg@1.2.3, pkg@v2), digests (app@sha256:…).
A handle (@alice) is a name. Digits that no mark or + groups are taken for a card only, never for a
telephone or social security number: every other number of nine or ten digits would be one.
"""

from __future__ import annotations

import re
import unicodedata

# No letter or digit before; names have words with _ between them.
_APART = r"(?<![^\W_])"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
# Digits in groups; which of them are a number of a card is looked at apart.
_CARD = r"(?<!\d)(?P<card>\d(?:[ .-]{0,2}\d){12,})"
_CARD_DIGITS = range(13, 20)
# ISO/IEC 7812: Visa, Mastercard, American Express, Diners, JCB, Maestro, Discover, UnionPay.
_ISSUER = re.compile(r"4|5|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)|3[04-8]|6")
_PATTERN = re.compile(
    r"(?P<email>[^\s@:/<>]+(?:@|%40)"
    r"(?:[^\s@:/<>]+\.[^\W\d_]{2,}|(?!v\d|sha\d+:)[^\W\d_]))"
    rf"|{_APART}(?<!-)(?P<ssn>(?!000|666|9)\d{{3}}([- ])(?!00)\d{{2}}\3(?!0000)\d{{4}})(?![^\W_]|-)"
    rf"|{_CARD}"
    rf"|{_APART}(?<!\+)(?P<phone>\+\d(?:[ ().-]{{0,2}}\d){{7,14}}(?![^\W_])"
    r"|(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![^\W_]|-))"
    rf"|{_APART}(?<!\.)(?P<ip>(?:{_OCTET}\.){{3}}{_OCTET}(?![^\W_]|\.)"
    r"|(?:[0-9A-Fa-f]{1,4}:){4,7}[0-9A-Fa-f:]{1,9})"
)
_RANDOM = re.compile(
    r"(?<![^\W_])(?:[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    r"|(?=\d*[A-Fa-f])(?:[0-9A-Fa-f]{8}){3,16})(?![^\W_])"
)
# One of these is in all of them, and in few words.
_SUSPECT = re.compile(r"[@%:0-9]")
_DASHES = dict.fromkeys(map(ord, "‐‒–—−"), "-")
_NAMES = {
    "email": "an e-mail address",
    "ssn": "a social security number",
    "card": "a card number",
    "phone": "a telephone number",
    "ip": "an IP address",
}


def find_personal(text: str) -> str | None:
    """What kind of personal data a text seems to hold, in words; None if none is seen."""
    if not text.isascii():
        # A full-width @ or digit is read by people as the plain one.
        text = unicodedata.normalize("NFKC", text).translate(_DASHES)
    if not _SUSPECT.search(text) or _find(text) is None:
        return None
    return _find(_RANDOM.sub("x", text))


def _find(text: str) -> str | None:
    at = 0
    while (found := _PATTERN.search(text, at)) is not None:
        kind = found.lastgroup or ""
        if kind != "card":
            return _NAMES[kind]
        groups = re.findall(r"\d+", found[kind])
        if _holds_card(groups):
            return _NAMES[kind]
        # Something else may begin with the next group.
        at = found.start() + len(groups[0])
    return None


def _holds_card(groups: list[str]) -> bool:
    """Whether some groups of digits that stand together are the number of a card."""
    for start in range(len(groups)):
        number = ""
        for group in groups[start:]:
            number += group
            if len(number) > _CARD_DIGITS[-1]:
                break
            if len(number) in _CARD_DIGITS and _ISSUER.match(number) and _luhn(number):
                return True
    return False


def _luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number)]
    doubled = (digit * 2 - 9 * (digit > 4) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0
