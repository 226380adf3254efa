"""Personal data in a public claim: what is refused, and that nothing is refused by chance."""

from __future__ import annotations

import base64
import ipaddress
import random
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.audit.producer import ALICE, CATALOGUE, received, signed
from tlog.audit import CatalogueError, Draft, EventRefused
from tlog.audit.claims import MAX_INTEGER
from tlog.audit.personal import find_personal


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("alice@example.com", "an e-mail address"),
        ("order-4111111111111111", "a card number"),
        ("ref_4111111111111111-1", "a card number"),
        ("x4111.1111.1111.1111y", "a card number"),
        ("4111  1111  1111  1111", "a card number"),
        ("4111–1111–1111–1111", "a card number"),
        ("2026-01-31 3782 822463 10005", "a card number"),
        ("2026-01-31 415-555-0100", "a telephone number"),
        ("a.b+c@mail.example.co.uk", "an e-mail address"),
        ("/users/alice%40example.com", "an e-mail address"),
        ("alice\uff20example.com", "an e-mail address"),
        ("5500005555555559", "a card number"),
        ("3714 496353 98431", "a card number"),
        ("123 45 6789", "a social security number"),
        ("(415) 555-0100", "a telephone number"),
        ("415.555.0100", "a telephone number"),
        ("+442079460958", "a telephone number"),
        ("\uff14\uff11\uff15-555-0100", "a telephone number"),
        ("2001:db8:0:0:1::5", "an IP address"),
        ("alice@localhost", "an e-mail address"),
        ("/users/alice%40localhost", "an e-mail address"),
        ("root@server1", "an e-mail address"),
        ("jdoe@CORP", "an e-mail address"),
        ("alice\uff20localhost", "an e-mail address"),
        ("alice@mailhost:25", "an e-mail address"),
        ("alice@163.com", "an e-mail address"),
        ("alice@v2.example.com", "an e-mail address"),
        ("customers@home", "an e-mail address"),
        ("alice@sha256", "an e-mail address"),
        ("6b1de8a4-8e4b-4c0c-9f5a-0d3f0a4f2b11@example.com", "an e-mail address"),
        ("6b1de8a4-8e4b-4c0c-9f5a-0d3f0a4f2b11 4111111111111111", "a card number"),
        ("deadbeef 4111111111111111", "a card number"),
        ("decade-4111111111111111-face", "a card number"),
        ("a378282246310005", "a card number"),
        ("tel_415-555-0100_home", "a telephone number"),
        ("ssn_078-05-1120", "a social security number"),
        ("host_192.0.2.7_a", "an IP address"),
        ("4111/1111/1111/1111", "a card number"),
        ("/cards/4111_1111_1111_1111/", "a card number"),
        ("ref_4111_1111_1111_1111_x", "a card number"),
        ("17: 4111, 1111, 1111, 1111, 12", "a card number"),
        ("3782 / 822463 / 10005", "a card number"),
        ("3056,930902,5904", "a card number"),
        ("4111\u200b1111\u20601111\ufeff1111", "a card number"),
        ("4111\u200b-\u200b1111-1111-1111", "a card number"),
        ("415\u2060-555-0100", "a telephone number"),
        ("tel\u200b415-555-0100", "a telephone number"),
        ("alice\xad@\u200bexample.com", "an e-mail address"),
        ("2001:db8::1", "an IP address"),
        ("[2001:DB8:0:ff::]:443", "an IP address"),
        ("ip:2a00:1450:4001:81b::200e: refused", "an IP address"),
        ("host_fe80::a%eth0", "an IP address"),
        ("fd12:3456:789a::/48", "an IP address"),
    ],
)
def test_personal_data_is_seen(text: str, kind: str) -> None:
    assert find_personal(text) == kind
    assert find_personal(f"before {text} after") == kind


@pytest.mark.parametrize(
    "text",
    [
        "R-2026-000123",
        "4111111111111112",  # fails Luhn's check
        "8000000000000001",  # no card begins like this
        "R-2026-000000001234",
        "000-12-3456",
        "019aa000-0000-7000-8000-000000000001",
        "v1.2.3",
        "12:30:45",
        "1234567890",
        "2026-01-31T09:30:00Z",
        "pkg@1.2.3",
        "pkg@^1.2.3",
        "pkg@v2",
        "app@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0bb822cd15d6c15b0f00a0",
        "asked by @alice",
        "/@alice",
        "2 @ 5",
        "alice@",
        "@localhost",
        "HEAD@{1}",
        "4155550100",
        "078051120",
        "1769851800123",  # milliseconds
        "a1234-078-05-1120",
        "41111111-1111-1111-1111-111111111111",
        "d4111111111111111a7c0b3e",
        "4111,1111,1111,1112",  # fails Luhn's check
        "1,4111,1111,1111,1111",
        "4111, 1111, 1111, 1111, 2222",
        "4111/1111/1111/1111/2222",
        "4111_1111,1111_1111",
        "411,111,111,111,111,1",
        "1,234,567,890,123,456",
        "41111111,11111111",
        "4,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
        "4111\u200b1111",
        "std::vector",
        "a::b",
        "dead::beef",
        "ada::add::face::1",
        "fade::2",
        "x2001:db8::1",
        "2001:db8::1x",
        "2001:db8::fg",
        "2001:db8::12345",
        "2001:db8::1::2",
        "2026::2030",
        "::1",
        "00:1b:44::",
        "v1.2.3, v1.2.4, 2.0.1",
    ],
)
def test_ordinary_text_is_let_through(text: str) -> None:
    assert find_personal(text) is None


OWN = CATALOGUE.extended("""
version = 1
[claims]
label = { kind = "name" }
number = { kind = "integer" }
code = { kind = "hex", max = 128 }
span = { kind = "hex", max = 16, searched = false }
row = { kind = "integer", searched = false }
shelf = { kind = "name", searched = false }
secret = { personal = true, kind = "integer" }
[types."order.placed"]
retention = "access"
optional = ["label", "number", "code", "span", "row", "shelf", "secret"]
""")


def refused(**public: Any) -> str:
    """What a public claim is said to hold; empty if it is let through."""
    try:
        signed(Draft("order.placed", public, {"secret": 4111111111111111}), catalogue=OWN)
    except EventRefused as refusal:
        named = f"{min(public)}: it seems to hold "
        return str(refusal).partition(", and it is public")[0].removeprefix(named)
    return ""


@pytest.mark.parametrize(
    ("claim", "value", "said"),
    [
        ("number", 4111111111111111, "a card number"),
        ("number", -4111111111111111, "a card number"),
        ("number", 378282246310005, "a card number"),
        ("number", 4222222222222, "a card number"),
        ("number", 4111111111111112, ""),
        ("number", 4155550100, ""),
        ("number", 1769851800123456, ""),
        ("number", MAX_INTEGER, ""),
        ("label", "415-555-0100", "a telephone number"),
        ("label", "tel_415.555.0100", "a telephone number"),
        ("label", "078-05-1120", "a social security number"),
        ("label", "card-4111111111111111", "a card number"),
        ("label", "4111.1111.1111.1111", "a card number"),
        ("label", "192.0.2.7", "an IP address"),
        ("label", "orders-2026.01_v1.2.3", ""),
        ("code", "4111111111111111", "a card number"),
        ("code", "411111111111111102", ""),
        ("code", "a4111111111111111f", ""),
        ("code", "4111111111111111" * 8, ""),
        ("span", "4111111111111111", ""),
        ("row", 4111111111111111, ""),
        ("shelf", "415-555-0100", ""),
    ],
)
def test_every_public_claim_is_looked_through_unless_it_says_no(
    claim: str, value: Any, said: str
) -> None:
    assert refused(**{claim: value}) == said


def _is_card(number: int) -> bool:
    """ISO/IEC 7812, written down in another way."""
    digits, issuer = str(number), int(f"{number:0<6}"[:6])
    known = (
        digits[0] in "456"
        or 222100 <= issuer <= 272099
        or 300000 <= issuer <= 309999
        or 340000 <= issuer <= 389999
    )
    total = sum(
        (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[int(digit)] if place % 2 else int(digit)
        for place, digit in enumerate(digits[::-1])
    )
    return 13 <= len(digits) <= 19 and known and total % 10 == 0


@given(
    st.one_of(
        st.integers(0, MAX_INTEGER),
        st.builds(
            lambda head, rest: min(int(f"{head}{rest:012}"), MAX_INTEGER),
            st.sampled_from([2220, 2221, 2720, 2721, 300, 309, 31, 339, 34, 389, 39, 4, 5, 6]),
            st.integers(0, 10**12 - 1),
        ),
    ),
    st.integers(0, 9),
)
def test_an_integer_is_a_card_or_it_is_let_through(number: int, last: int) -> None:
    number = number // 10 * 10 + last
    if number <= MAX_INTEGER:
        assert bool(refused(number=number)) == _is_card(number)
    text = str(number)
    if len(text) % 2 == 0:
        assert bool(refused(code=text)) == _is_card(number)


@st.composite
def cards(draw: st.DrawFn) -> str:
    """A number of a card, in groups as it is printed."""
    groups = draw(st.sampled_from([(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)]))
    head = draw(
        st.sampled_from({15: ["34", "37"], 14: ["305", "38"]}.get(sum(groups), ["4", "62"]))
    )
    rest = draw(st.text("0123456789", min_size=19, max_size=19))
    digits = (head + rest)[: sum(groups) - 1]
    digits += next(last for last in "0123456789" if _is_card(int(digits + last)))
    ends = [sum(groups[: at + 1]) for at in range(len(groups))]
    parts = [digits[end - size : end] for end, size in zip(ends, groups, strict=True)]
    return draw(st.sampled_from(SEPARATORS)).join(parts)


SEPARATORS = [
    *("", " ", "-", ".", ",", "/", "_", ", ", " / ", "- ", "\u2010", "\uff0c", "\uff3f"),
    *("\u200b", "\u200d", "\u2060", "\ufeff", "\xad", "\u200b-", ",\u200b"),
]


@given(
    cards(), st.sampled_from(["", "x_", "/", "x\u200b", "17: "]), st.sampled_from(["", "_x", "."])
)
def test_a_card_is_seen_whatever_parts_its_groups(card: str, before: str, after: str) -> None:
    assert find_personal(before + card + after) == "a card number"


@given(
    st.sampled_from(["2000::/3", "fc00::/7", "fe80::/10"]),
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**128 - 1),
    st.booleans(),
)
def test_an_address_of_a_host_is_seen_in_its_shortest_form(
    block: str, bits: int, zeros: int, upper: bool
) -> None:
    # Zeros of whole groups: those whose lowest bit is not set.
    kept = sum(0xFFFF << 16 * at for at in range(8) if at == 7 or zeros >> 16 * at & 1)
    network = ipaddress.IPv6Network(block)
    first = int(network.network_address)
    text = str(ipaddress.IPv6Address(first | bits & kept & int(network.hostmask)))
    # A lone number and :: may be the bounds of a range.
    assume(block != "2000::/3" or text[4:6] != "::")
    assert find_personal(text.upper() if upper else text) == "an IP address"


@given(st.text("0123456789abcdef:", max_size=24))
def test_what_is_no_address_has_another_form(text: str) -> None:
    if text.count(":") < 4 and find_personal(text) == "an IP address":
        found = [text[at:end] for at in range(len(text)) for end in range(at + 2, len(text) + 1)]
        assert any("::" in each and _is_address(each) for each in found)


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


@pytest.mark.parametrize(
    "draw",
    [
        lambda rand: str(uuid.UUID(int=rand.getrandbits(128), version=4)),
        lambda rand: f"R-{uuid.UUID(int=rand.getrandbits(128), version=4)}_1",
        lambda rand: uuid.UUID(int=rand.getrandbits(128), version=4).hex,
        lambda rand: rand.randbytes(32).hex().upper(),
        lambda rand: f"sha256:{rand.randbytes(32).hex()}",
        lambda rand: rand.randbytes(12).hex(),
        lambda rand: base64.urlsafe_b64encode(rand.randbytes(32)).decode(),
        lambda rand: datetime.fromtimestamp(rand.randrange(2**31), UTC).isoformat(),
        lambda rand: f"{rand.randrange(10**16):,}",
        lambda rand: f"{rand.randrange(10**16):_}",
        lambda rand: f"{rand.randrange(10**5)}::{rand.randrange(10**5)}",
        lambda rand: ", ".join(str(rand.randrange(1000, 10_000)) for _ in range(5)),
        lambda rand: ",".join(str(rand.randrange(10_000)) for _ in range(rand.randrange(2, 4))),
        lambda rand: "/".join(str(rand.randrange(10_000)) for _ in range(rand.randrange(6, 20))),
        lambda rand: "_".join(str(rand.randrange(10**8)) for _ in range(rand.randrange(2, 4))),
    ],
)
def test_no_id_is_refused_by_chance(draw: Any) -> None:
    rand = random.Random(1)
    assert not [text for text in (draw(rand) for _ in range(4000)) if find_personal(text)]


def test_what_the_log_says_of_its_own_is_never_refused_for_how_it_looks() -> None:
    about = {"about_producer": "192.0.2.7", "about_event": "019aa000-0000-7000-8000-000000000001"}
    seqs = {"expected_seq": 4111111111111111, "found_seq": 5500005555555559}
    far = {"skew_seconds": -(9999 * 366 * 86_400)}
    for more in (seqs | {"gap_kind": "gap"}, far | {"gap_kind": "clock"}):
        signed(Draft("log.gap_detected", about | more, {}))
    signed(received(), seq=4111111111111111)
    signed(
        Draft("subject.merged", {"key_id": "41" * 8, "into_key_id": "41" * 8}, {}, [{"id": ALICE}])
    )
    # A count is whatever its producer says.
    with pytest.raises(EventRefused, match="a card number") as caught:
        signed(Draft("access.read", {"purpose": "x", "count": 4111111111111111}, {}))
    assert caught.value.field == "count"


def test_what_is_in_a_log_is_not_searched_again() -> None:
    payload = {
        "occurred_at": "2026-01-31T09:30:00Z",
        "_sd_alg": "sha-256",
        "event_id": "019aa000-0000-7000-8000-000000000001",
        "type": "policy.changed",
        "schema_version": 1,
        "tenant": "acme",
        "producer_id": "log",
        "producer_seq": 1,
        "policy_id": "P-1",
        "reason": "asked by root@server1",
    }
    kind = CATALOGUE.type_of(payload)
    with pytest.raises(EventRefused, match="e-mail"):
        CATALOGUE.check_public(kind, payload)
    CATALOGUE.check_public(kind, payload, recorded=True)
    with pytest.raises(EventRefused, match="at least 1"):
        CATALOGUE.check_public(kind, payload | {"producer_seq": 0}, recorded=True)


@pytest.mark.parametrize("kind", ["string", "strings", "boolean", "sha256", "time"])
def test_free_text_is_always_searched(kind: str) -> None:
    claim = f'x = {{ kind = "{kind}", searched = false }}'
    with pytest.raises(CatalogueError, match="not a setting of this kind") as caught:
        CATALOGUE.extended(f"version = 1\n[claims]\n{claim}\n")
    assert caught.value.field == "claims.x.searched"


def test_searched_is_true_or_false() -> None:
    with pytest.raises(CatalogueError, match="true or false") as caught:
        CATALOGUE.extended('version = 1\n[claims]\nx = { kind = "hex", searched = 0 }\n')
    assert caught.value.field == "claims.x.searched"
