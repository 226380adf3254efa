"""Selective disclosure by RFC 9901, in the profile of events: flat, sha-256, no key binding.

A disclosure is `base64url(JSON [salt, name, value])`; its digest stands in the `_sd` of the object
that the claim belongs to. Decoys look the same. Values hold no digests themselves.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from tlog.audit.codec import (
    check_depth,
    decode_base64url,
    dump_json,
    encode_base64url,
    load_json,
)
from tlog.audit.errors import EventRefused

SALT_SIZE = 16
"""Bytes of a salt. RFC 9901, section 9.3: "the RECOMMENDED minimum length ... is 128 bits"."""
MAX_SALT_SIZE = 64
MAX_DISCLOSURE_SIZE = 64 * 1024
MAX_DISCLOSURES = 256
MAX_DECOYS = 32
MAX_SD_JWT_SIZE = 512 * 1024
SD_ALG = "sha-256"
_DIGEST_LENGTH = 43
_SALT = re.compile(rf"[A-Za-z0-9_-]{{{-(-SALT_SIZE * 4 // 3)},{-(-MAX_SALT_SIZE * 4 // 3)}}}")
# RFC 9901, section 4.2.1: the name "MUST NOT be _sd, ..., or a claim name existing in the object".
_RESERVED = frozenset({"_sd", "_sd_alg", "..."})


class Disclosure(NamedTuple):
    """One claim that was disclosed.

    Attributes:
        name: of the claim.
        value: any JSON value.
        encoded: as it travels, and as it is hashed.
    """

    name: str
    value: Any
    encoded: str

    @property
    def digest(self) -> str:
        """What stands in `_sd`."""
        return digest_of(self.encoded)


def digest_of(encoded: str) -> str:
    """The digest of an encoded disclosure (RFC 9901, section 4.2.3)."""
    return encode_base64url(sha256(encoded.encode("ascii")).digest())


def disclose(name: str, value: Any) -> Disclosure:
    """A claim under a fresh salt."""
    salt = encode_base64url(secrets.token_bytes(SALT_SIZE))
    return Disclosure(name, value, encode_base64url(dump_json([salt, name, value])))


def check_decoys(decoys: int) -> None:
    """Refuse to fill up to more than `MAX_DECOYS` at once."""
    if type(decoys) is not int or not 0 <= decoys <= MAX_DECOYS:
        raise EventRefused(f"{decoys!r:.20}: 0 (none) to {MAX_DECOYS}", field="decoys")


def digests(disclosures: Iterable[Disclosure], *, decoys: int = 0) -> list[str]:
    """The `_sd` of an object: sorted, so that it tells nothing of the order (section 4.2.4.1).

    Decoys fill it up to the next multiple of their number, also where there is no claim at all: a
    fixed number of them, or a random one, would still tell how many claims there are, or about.
    """
    made = [disclosure.digest for disclosure in disclosures]
    if decoys:
        missing = -len(made) % decoys or (0 if made else decoys)
        made += [encode_base64url(sha256(secrets.token_bytes(32)).digest()) for _ in range(missing)]
    return sorted(made)


def parse_disclosure(encoded: str, *, field: str) -> Disclosure:
    """Read one disclosure.

    Raises:
        EventRefused: malformed, too long, or with a salt that is too short.
    """
    if len(encoded) > MAX_DISCLOSURE_SIZE:
        raise EventRefused(f"longer than {MAX_DISCLOSURE_SIZE} characters", field=field)
    made = load_json(decode_base64url(encoded, field=field), field=field)
    if type(made) is not list or len(made) != 3:
        raise EventRefused("needs a salt, a name and a value", field=field)
    salt, name, value = made
    if type(salt) is not str or type(name) is not str or not name:
        raise EventRefused("its salt and its name are strings", field=field)
    if name in _RESERVED:
        raise EventRefused(f"the name {name!r} is SD-JWT's own", field=field)
    if not _SALT.fullmatch(salt):
        raise EventRefused(
            f"its salt needs {SALT_SIZE} to {MAX_SALT_SIZE} bytes in base64url", field=field
        )
    if isinstance(value, (dict, list)):
        check_depth(value, field=field)
        _check_flat(value, field)
    return Disclosure(name, value, encoded)


def _check_flat(value: Any, field: str) -> None:
    if isinstance(value, dict):
        if not _RESERVED.isdisjoint(value):
            raise EventRefused("its value holds digests: events are flat", field=field)
        for item in value.values():
            _check_flat(item, field)
    elif isinstance(value, list):
        for item in value:
            _check_flat(item, field)


def split(sd_jwt: str) -> tuple[str, list[str]]:
    """The JWS and the encoded disclosures of an SD-JWT in compact form.

    Raises:
        EventRefused: too long, too many, or not an SD-JWT without key binding.
    """
    if len(sd_jwt) > MAX_SD_JWT_SIZE:
        raise EventRefused(f"an SD-JWT of over {MAX_SD_JWT_SIZE} characters", field="event")
    if not sd_jwt.isascii():
        raise EventRefused("an SD-JWT is ASCII", field="event")
    jws, *encoded = sd_jwt.split("~")
    if not encoded or encoded.pop():
        raise EventRefused("an SD-JWT ends with `~` and has no key binding", field="event")
    if len(encoded) > MAX_DISCLOSURES:
        raise EventRefused(f"more than {MAX_DISCLOSURES} disclosures", field="disclosures")
    return jws, encoded


def join(jws: str, encoded: Iterable[str]) -> str:
    """Inverse of `split`."""
    return "~".join([jws, *encoded, ""])


def check_digests(value: Any, *, field: str) -> list[str]:
    """The digests of an `_sd`, checked for form.

    Raises:
        EventRefused: it is not a list of SHA-256 digests.
    """
    if type(value) is not list or len(value) > 2 * MAX_DISCLOSURES:
        raise EventRefused(f"a list of at most {2 * MAX_DISCLOSURES} digests", field=field)
    for digest in value:
        if type(digest) is not str or len(digest) != _DIGEST_LENGTH:
            raise EventRefused("holds what is no SHA-256 digest in base64url", field=field)
    return value


def match(
    encoded: Sequence[str], objects: Sequence[tuple[Mapping[str, Any], Sequence[str]]]
) -> list[list[Disclosure]]:
    """Give each disclosure to the object whose digest it matches.

    Args:
        encoded: the disclosures, in any order; those left out are simply not there.
        objects: for each object its claims in the clear, and its digests.

    Returns:
        For each object what was disclosed of it.

    Raises:
        EventRefused: a digest stands twice, a disclosure matches none, comes twice, or its name is
            in the object already (RFC 9901, section 7.1, steps 3 and 4).
    """
    places: dict[str, int] = {}
    count = 0
    for place, (_, listed) in enumerate(objects):
        places.update(dict.fromkeys(listed, place))
        count += len(listed)
    if len(places) != count:
        raise EventRefused("a digest stands twice", field="_sd")
    found: list[list[Disclosure]] = [[] for _ in objects]
    names: list[set[str]] = [set(claims) for claims, _ in objects]
    for i, each in enumerate(encoded):
        at = places.pop(digest_of(each), None) if each.isascii() else None
        if at is None:
            why = "it comes twice" if each in encoded[:i] else "it matches no digest of the event"
            raise EventRefused(why, field=f"disclosures[{i}]")
        disclosure = parse_disclosure(each, field=f"disclosures[{i}]")
        if disclosure.name in names[at]:
            raise EventRefused(
                f"the claim {disclosure.name!r:.80} is there already", field=f"disclosures[{i}]"
            )
        names[at].add(disclosure.name)
        found[at].append(disclosure)
    return found
