"""Personal data that strayed into a public claim: the patterns that are refused by default.

They catch mistakes, not malice: a name or a street is not seen. False alarms are chosen over
leaks, because a public claim stays in the log for ever; disclosing the claim always works. But
none comes by chance: what is drawn at random, a UUID or a hash in hex, holds nobody's number.

An address needs no dot after the @ (alice@localhost, jdoe@CORP), and so `app@prod` is refused as
well. What cannot be a host is let through: versions (pkg@1.2.3, pkg@v2), digests (app@sha256:…).
A handle (@alice) is a name. Digits that no mark or + groups are taken for a card only, never for a
telephone or social security number: every other number of nine or ten digits would be one.

A comma, a slash or a _ parts the items of a list, too: a card is only what stands between them in
groups as cards are printed, and there is nothing else in the list. In its short form, an IPv6
address is one of a host out there, or of a network's own: ::1 is let through, and so are names of
programs (a::b) and the bounds of a range (2026::2030), which could all be addresses.
"""

from __future__ import annotations

import re
import unicodedata

# No letter or digit before; names have words with _ between them.
_APART = r"(?<![^\W_])"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
# Digits in groups; which of them are a number of a card is looked at apart.
_LISTED = (
    r"(?<!\d[,/_])(?<!\d[,/_] )(?<!\d [,/_] )\d{4}(?P<sep> ?[,/_] ?)(?:"
    r"\d{4}(?P=sep)\d{4}(?P=sep)\d{4}(?:(?P=sep)\d{1,3})?|\d{6}(?P=sep)\d{4,5})(?!(?P=sep)?\d)"
)
_CARD = rf"(?<!\d)(?P<card>\d(?:[ .-]{{0,2}}\d){{12,}}|{_LISTED})"
_CARD_DIGITS = range(13, 20)
# ISO/IEC 7812: Visa, Mastercard, American Express, Diners, JCB, Maestro, Discover, UnionPay.
_ISSUER = re.compile(r"4|5|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)|3[04-8]|6")
# Global, of RFC 4193, and link-local. A lone number before :: begins a range, not a global address.
_SHORT = (
    r"(?:[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{1,4}|[Ff](?:[CDcd][0-9A-Fa-f]|[Ee][89ABab])[0-9A-Fa-f])"
    r"(?::[0-9A-Fa-f]{1,4}){0,5}::(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,5})?(?![^\W_]|::)"
)
# A host has 253 characters at most (RFC 1035, section 2.3.4).
_EMAIL = re.compile(
    r"[@%](?:(?<=[^\s@:/<>]@)|(?<=[^\s@:/<>]%)40)"
    r"(?:[^\s@:/<>]{1,253}\.[^\W\d_]{2,}|(?!v\d|sha\d+:)[^\W\d_])"
)
# The first look is at what all of them begin with: most of a text does not.
_SSN = (
    rf"{_APART}(?<!-)(?P<ssn>"
    r"(?!000|666|9)\d{3}(?P<gap>[- ])(?!00)\d{2}(?P=gap)(?!0000)\d{4})(?![^\W_]|-)"
)
_PHONE_OR_IP = (
    rf"{_APART}(?<!\+)(?P<phone>\+\d(?:[ ().-]{{0,2}}\d){{7,14}}(?![^\W_])"
    r"|(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![^\W_]|-))"
    rf"|{_APART}(?<!\.)(?P<ip>(?:{_OCTET}\.){{3}}{_OCTET}(?![^\W_]|\.)"
    rf"|(?:[0-9A-Fa-f]{{1,4}}:){{4,7}}[0-9A-Fa-f:]{{1,9}}|{_SHORT})"
)
_NUMBER = re.compile(rf"(?=[\dA-Fa-f(+])(?:{_SSN}|{_CARD}|{_PHONE_OR_IP})")
_NO_CARD = re.compile(rf"(?=[\dA-Fa-f(+])(?:{_SSN}|{_PHONE_OR_IP})")
_CARDS = re.compile(_CARD)
_RANDOM = re.compile(
    r"(?<![^\W_])(?:[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    r"|(?=\d*[A-Fa-f])(?:[0-9A-Fa-f]{8}){3,16})(?![^\W_])"
)
# One of these is in all of them, and in few words.
_SUSPECT = re.compile(r"[@%:0-9]")
_DASHES = dict.fromkeys(map(ord, "‐‒–—−"), "-")
# Zero-width joiners and spaces, marks of direction, soft hyphens, variation selectors.
_UNSEEN = re.compile(
    r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_NAMES = {
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
        # What nobody sees parts no digits. It may part words, so both are looked at.
        if (plain := _UNSEEN.sub("", text)) != text and (found := find_personal(plain)):
            return found
    if not _SUSPECT.search(text) or _find(text) is None:
        return None
    return _find(_RANDOM.sub("x", text))


def _find(text: str) -> str | None:
    if _EMAIL.search(text):
        return "an e-mail address"
    found = _NUMBER.search(text)
    # Digits may go on and on that are no card, and hide what begins among them. They are looked at
    # once for each: a text may be made to have as many groups as it can.
    if found is not None and found.lastgroup == "card":
        if _has_card(text):
            return _NAMES["card"]
        found = _NO_CARD.search(text)
    return None if found is None else _NAMES[found.lastgroup or ""]


def _has_card(text: str) -> bool:
    at = 0
    while (found := _CARDS.search(text, at)) is not None:
        *before, last = groups = re.findall(r"\d+", found["card"])
        if _holds_card(groups):
            return True
        # A list whose items a comma parts may begin with the last group.
        at = found.end() - (len(last) if before else 0)
    return False


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
