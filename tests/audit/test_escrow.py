"""Escrow of a key: any shares that are enough give it back, and nothing else does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from datetime import date

import pytest
import shamir_mnemonic
from hypothesis import given, settings
from hypothesis import strategies as st
from shamir_mnemonic.wordlist import WORDLIST

from tlog.audit import AuditError, escrow
from tlog.audit.escrow import Owner, check_shares, combine_shares, key_check, split_key

KEY = bytes(range(32))
OWNER = Owner("acme", "example.com/mylog")
MADE = date(2026, 11, 26)


def split(key: bytes = KEY, *, shares: int = 5, threshold: int = 3) -> dict[str, str]:
    texts = split_key(key, OWNER, shares=shares, threshold=threshold, made=MADE)
    assert len(texts) == shares
    return {f"file {number}": text for number, text in enumerate(texts, 1)}


def words(text: str) -> list[str]:
    """As somebody reads them who knows nothing of tlog."""
    return text.split("\nwords:\n")[1].split()


FIVE = split()
SET = int(re.findall(r"^set: (\d+)$", FIVE["file 1"], re.MULTILINE)[0])
THREE = {name: FIVE[name] for name in ("file 1", "file 2", "file 4")}


@st.composite
def chosen(draw: st.DrawFn) -> tuple[bytes, int, int, list[int]]:
    """A key, how many shares, how many are needed, and which are brought, in their order."""
    shares = draw(st.integers(2, 16))
    threshold = draw(st.integers(2, shares))
    some = draw(st.lists(st.integers(1, shares), min_size=1, max_size=shares, unique=True))
    return draw(st.binary(min_size=32, max_size=32)), shares, threshold, some


@given(chosen())
@settings(max_examples=60, deadline=None)
def test_enough_shares_give_the_key_back_and_fewer_nothing(
    this: tuple[bytes, int, int, list[int]],
) -> None:
    key, shares, threshold, some = this
    texts = split(key, shares=shares, threshold=threshold)
    brought = {f"file {number}": texts[f"file {number}"] for number in some}
    bare = [" ".join(words(text)) for text in brought.values()]
    if len(some) >= threshold:
        assert combine_shares(brought, OWNER) == key
        assert shamir_mnemonic.combine_mnemonics(bare[:threshold]) == key
        return
    missing = threshold - len(some)
    with pytest.raises(
        AuditError, match=f"^{len(some)} of the {threshold} .* bring {missing} more"
    ):
        combine_shares(brought, OWNER)
    with pytest.raises(shamir_mnemonic.MnemonicError):
        shamir_mnemonic.combine_mnemonics(bare)


def test_a_share_says_what_it_is_and_nothing_of_the_key() -> None:
    for number, text in enumerate(FIVE.values(), 1):
        for line in (
            "tenant: acme",
            "log: example.com/mylog",
            f"share: {number} of 5",
            "threshold: 3",
            "made: 2026-11-26",
            f"check: {key_check(KEY)}",
        ):
            assert text.splitlines().count(line) == 1
        assert f"share {number} of 5 of the tenant key" in text
        assert "tlog records recover DIR" in text
        assert KEY.hex() not in text
        assert len(words(text)) == 33
        assert text.isascii()
        assert text.endswith("\n")
        assert max(map(len, text.splitlines())) <= 100
    assert len({words(text)[-1] for text in FIVE.values()}) > 1


def test_the_check_is_what_the_share_says_that_openssl_prints() -> None:
    (command,) = re.findall(r"^ {4}(printf .*)$", FIVE["file 1"], re.MULTILINE)
    for key in (KEY, b"\xff" * 32):
        printed = subprocess.run(
            ["/bin/sh", "-c", command.replace("DIGITS", key.hex())],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout.decode()
        assert printed.startswith(key_check(key))
    assert len(key_check(KEY)) == 16
    assert key_check(KEY) != key_check(bytes(32))


@pytest.mark.parametrize(("shares", "threshold"), [(1, 1), (3, 1), (3, 4), (17, 2), (17, 17)])
def test_numbers_that_are_no_escrow(shares: int, threshold: int) -> None:
    with pytest.raises(AuditError, match=f"threshold: {threshold} of {shares}: ") as refused:
        split(shares=shares, threshold=threshold)
    assert refused.value.field == "threshold"


@pytest.mark.parametrize("agreeing", [False, True], ids=["check", "key"])
def test_shares_that_do_not_give_the_key_back_are_not_given_out(
    monkeypatch: pytest.MonkeyPatch, agreeing: bool
) -> None:
    made = shamir_mnemonic.generate_mnemonics
    monkeypatch.setattr(
        escrow,
        "generate_mnemonics",
        lambda groups, members, _key, **rest: made(groups, members, bytes(32), **rest),
    )
    if agreeing:
        monkeypatch.setattr(escrow, "key_check", lambda _key: "0" * 16)
    with pytest.raises(AuditError, match="do not give the key back" if agreeing else "the check"):
        split()


def test_whoever_checks_shares_looks_at_each_of_them() -> None:
    check_shares(FIVE, OWNER, KEY)
    with pytest.raises(AuditError, match="use none of them"):
        check_shares(FIVE, OWNER, bytes(32))
    with pytest.raises(AuditError, match="^file 5: "):
        check_shares(FIVE | {"file 5": FIVE["file 5"][:-20]}, OWNER, KEY)


@given(
    st.dictionaries(st.integers(0, 32), st.integers(1, 1023), min_size=1, max_size=3),
    st.sampled_from(sorted(THREE)),
)
@settings(max_examples=100, deadline=None)
def test_up_to_three_wrong_words_are_always_found(changed: dict[int, int], name: str) -> None:
    """SLIP-39, section "Checksum": any error that affects at most 3 words is detected."""
    damaged = words(THREE[name])
    for at, by in changed.items():
        damaged[at] = WORDLIST[(WORDLIST.index(damaged[at]) + by) % 1024]
    with pytest.raises(AuditError, match=f"^{name}: a word is wrong, or not in its place"):
        combine_shares(THREE | {name: " ".join(damaged)}, OWNER)


def with_words(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        head, _, _ = text.partition("\nwords:\n")
        return f"{head}\nwords:\n{' '.join(change(words(text)))}\n"

    return changed


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (with_words(lambda w: ["tlog", *w[1:]]), "word 1, 'tlog', is none of SLIP-39"),
        (with_words(lambda w: [*w[:-1], w[-1][:-1]]), "word 33, '.*', is none of SLIP-39"),
        (with_words(lambda w: [*w[:4], "x" * 9999, *w[5:]]), f"word 5, '{'x' * 32}', is none"),
        (with_words(lambda w: w[1:]), "32 words, a share of a tenant key has 33"),
        (with_words(lambda w: [*w, w[-1]]), "34 words, a share of a tenant key has 33"),
        (with_words(lambda w: w[:20]), "20 words, a share"),
        (with_words(lambda _: []), "0 words, a share"),
        (with_words(lambda w: [w[0], w[1], w[3], w[2], *w[4:]]), "not in its place"),
        (with_words(lambda w: [*w[1:], w[0]]), "not in its place"),
        (lambda _: "", "0 words"),
        (lambda text: text.replace("\nwords:\n", "\n"), "word 1, 'tlog:', is none"),
        (lambda text: text[: len(text) // 2], "word 1, 'tlog:', is none"),
        (lambda text: text.replace("share: 2 of", "share: 3 of"), "of share 2, .* say 3"),
        (lambda text: text.replace("share: 2 of", "share: of"), "of share 2, .* say of"),
        (lambda text: text.replace("threshold: 3", "threshold: 2"), "of threshold 3, .* say 2"),
        (lambda text: re.sub("set: .*", "set: 99999", text), "of set .*, .* say 99999"),
        (lambda text: text.replace("tenant: acme", "tenant: acne"), "the tenant acne, not of acme"),
        (
            lambda text: text.replace("log: example.com/", "log: example.org/"),
            "the log example.org/mylog, not of example.com/mylog",
        ),
        (
            lambda text: re.sub("check: .*", "check: 0123", text),
            f"a key with the check {key_check(KEY)}, .* say 0123",
        ),
    ],
)
def test_a_damaged_share_is_refused_by_name(damage: Callable[[str], str], said: str) -> None:
    damaged = damage(THREE["file 2"])
    assert damaged != THREE["file 2"]
    with pytest.raises(AuditError, match=f"^file 2: .*{said}"):
        combine_shares(THREE | {"file 2": damaged}, OWNER)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: " ".join(words(text)),
        lambda text: "\n".join(words(text)).upper(),
        lambda text: f"words:\r\n\t{'  '.join(words(text))}",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: re.sub("^(set|check|share|tenant): .*\n", "", text, flags=re.MULTILINE),
    ],
    ids=["line", "capitals", "words", "crlf", "lines lost"],
)
def test_the_words_are_what_counts(rewrite: Callable[[str], str]) -> None:
    assert combine_shares({name: rewrite(text) for name, text in THREE.items()}, OWNER) == KEY
    mixed = THREE | {"file 2": rewrite(THREE["file 2"])}
    assert combine_shares(mixed, OWNER) == KEY


def test_shares_of_different_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shamir_mnemonic.shamir._random_identifier", lambda: SET ^ 1)
    for other in (split(), split(threshold=2), split(bytes(32))):
        with pytest.raises(AuditError, match=f"^file 4 is of set {SET ^ 1}, file 1 of set {SET}: "):
            combine_shares(THREE | {"file 4": other["file 4"]}, OWNER)


@pytest.mark.parametrize(("own", "others"), [((1, 2), (4,)), ((1, 2, 4), (3, 5))])
def test_sets_that_look_like_one(
    monkeypatch: pytest.MonkeyPatch, own: tuple[int, ...], others: tuple[int, ...]
) -> None:
    """Two sets in 32,768 have the same number: the digest in the shares tells them apart."""
    monkeypatch.setattr("shamir_mnemonic.shamir._random_identifier", lambda: SET)
    other = split(bytes(32))
    # In the second case the first three alone would give the key.
    brought = {f"file {n}": FIVE[f"file {n}"] for n in own}
    brought |= {f"other {n}": other[f"file {n}"] for n in others}
    with pytest.raises(AuditError, match="^not all of these are shares of one key: file 1, .* 4"):
        combine_shares(brought, OWNER)


def test_a_share_counts_once() -> None:
    twice = {"file 1": FIVE["file 1"], "copy": FIVE["file 1"], "file 2": FIVE["file 2"]}
    with pytest.raises(AuditError, match="^file 1 and copy are both share 1: leave one out"):
        combine_shares(twice, OWNER)


def test_shares_that_tlog_does_not_make() -> None:
    groups = shamir_mnemonic.generate_mnemonics(1, [(2, 2), (2, 2)], KEY)
    with pytest.raises(AuditError, match="^a: a share of several groups"):
        combine_shares(dict(zip("ab", groups[0], strict=True)), OWNER)
    (short,) = shamir_mnemonic.generate_mnemonics(1, [(2, 2)], KEY[:16])
    with pytest.raises(AuditError, match="^a: 20 words"):
        combine_shares(dict(zip("ab", short, strict=True)), OWNER)


def test_shares_of_today_and_those_that_others_make_of_the_same_key() -> None:
    """SLIP-39: shares that are extendable, and stretched, as other programs make them."""
    (made,) = shamir_mnemonic.generate_mnemonics(1, [(2, 3)], KEY)
    assert combine_shares(dict(zip("abc", made, strict=True)), OWNER) == KEY
