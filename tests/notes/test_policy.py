import base64
import hashlib
import itertools
from collections.abc import Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notes.keyring import HEAD, LOG, LOG_ED, LOG_PQ, TIME, signer
from tlog.notes import (
    Algorithm,
    Note,
    NoteError,
    NoteSignature,
    Policy,
    Signer,
    cosign,
    parse_policy,
    sign_checkpoint,
)
from tlog.notes.note import sign_text
from tlog.notes.policy import MAX_POLICY_SIZE, PolicyGroup

NAMES = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
WITNESSES = {
    name: signer(
        f"witness.example/{name}",
        Algorithm.ED25519_COSIGNATURE if name[0] == "X" else Algorithm.MLDSA44,
    )
    for name in NAMES
}
V = {name: str(key.vkey) for name, key in WITNESSES.items()}
L = str(LOG_ED.vkey)

# The example of tlog-policy.md, with keys.
EXAMPLE = f"""log {L}

witness X1 {V["X1"]}
witness X2 {V["X2"]}
witness X3 {V["X3"]}
group X-witnesses 2 X1 X2 X3

witness Y1 {V["Y1"]}
witness Y2 {V["Y2"]}
witness Y3 {V["Y3"]}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""

SIGNED = sign_checkpoint(HEAD, [LOG_ED, LOG_PQ], timestamp=TIME)


def note(*names: str) -> bytes:
    return SIGNED + b"".join(
        cosign(HEAD, WITNESSES[name], timestamp=TIME).encode() for name in names
    )


def parse(text: str) -> Policy:
    return parse_policy(text.encode("utf-8", "surrogateescape"))


def test_the_example_of_the_specification() -> None:
    policy = parse(EXAMPLE)
    assert [log.vkey for log in policy.logs] == [LOG_ED.vkey]
    assert [witness.name for witness in policy.witnesses] == NAMES
    assert policy.groups == (
        PolicyGroup("X-witnesses", 2, ("X1", "X2", "X3")),
        PolicyGroup("Y-witnesses", 1, ("Y1", "Y2", "Y3")),
        PolicyGroup("X-and-Y", 2, ("X-witnesses", "Y-witnesses")),
    )
    for count in range(7):
        for names in itertools.combinations(NAMES, count):
            enough = sum(n[0] == "X" for n in names) >= 2 and any(n[0] == "Y" for n in names)
            assert policy.satisfied_by(set(names)) == enough


def test_open_a_checkpoint() -> None:
    policy = parse(EXAMPLE)
    verdict = policy.open(note("Y2", "X3", "X1"))
    assert verdict.satisfied
    assert verdict.cosigned_by == ("X1", "X3", "Y2")
    assert verdict.checkpoint == HEAD
    assert verdict.reason == "quorum 'X-and-Y' is met: cosigned by 'X1', 'X3', 'Y2'"


def test_too_few_cosignatures() -> None:
    policy = parse(EXAMPLE)
    verdict = policy.evaluate(note("X1"))
    assert not verdict.satisfied
    assert verdict.cosigned_by == ("X1",)
    assert verdict.reason == (
        "quorum 'X-and-Y' is not met: cosigned by 'X1'; "
        "'X-and-Y' has 0 of the 2 it needs, missing 'X-witnesses', 'Y-witnesses'; "
        "'X-witnesses' has 1 of the 2 it needs, missing 'X2', 'X3'; "
        "'Y-witnesses' has 0 of the 1 it needs, missing 'Y1', 'Y2', 'Y3'"
    )
    with pytest.raises(NoteError, match="is not met: cosigned by 'X1'"):
        policy.open(note("X1"))
    with pytest.raises(NoteError, match="cosigned by no witness"):
        policy.open(SIGNED)
    # One witness three times is one witness.
    with pytest.raises(NoteError, match="has 1 of the 2"):
        policy.open(note("X1", "X1", "X1", "Y1"))


def test_a_single_witness_and_none() -> None:
    single = parse(f"log {L}\nwitness X1 {V['X1']}\nwitness X2 {V['X2']}\nquorum X1\n")
    assert single.open(note("X1")).satisfied
    assert single.evaluate(note("X2")).reason == (
        "quorum 'X1' is not met: cosigned by 'X2'; missing 'X1'"
    )
    none = parse(f"log {L}\nquorum none\n")
    assert none.satisfied_by(set())
    assert none.open(SIGNED).cosigned_by == ()


def test_a_bad_cosignature_of_a_known_witness_rejects_the_note() -> None:
    line = cosign(HEAD, WITNESSES["X2"], timestamp=TIME)
    forged = NoteSignature(line.name, line.key_id, line.signature[:-1] + b"\x00")
    with pytest.raises(NoteError, match="does not verify"):
        parse(EXAMPLE).open(note("X1", "X3", "Y1") + forged.encode())


def test_any_log_signs_but_only_in_its_own_name() -> None:
    other = signer("log.example/two", Algorithm.ED25519)
    policy = parse(f"log {other.vkey}\nlog {LOG_PQ.vkey}\nquorum none\n")
    assert policy.open(SIGNED).satisfied
    with pytest.raises(NoteError, match="not signed by a known key of that log"):
        policy.open(Note(HEAD.body(), (sign_text(HEAD.body(), other),)).encode())
    with pytest.raises(NoteError, match="not signed by a known key"):
        parse("quorum none\n").open(SIGNED)


def test_a_witness_named_as_the_origin_is_not_the_log() -> None:
    twin = signer(LOG, Algorithm.ED25519_COSIGNATURE)
    policy = parse(f"log {L}\nwitness twin {twin.vkey}\nquorum none\n")
    line = cosign(HEAD, twin, timestamp=TIME)
    with pytest.raises(NoteError, match="is not signed by one of the logs"):
        policy.open(Note(HEAD.body(), (line,)).encode())
    # ... not even when another log of the policy signs beside it.
    other = signer("log.example/two", Algorithm.ED25519)
    policy = parse(f"log {L}\nlog {other.vkey}\nwitness twin {twin.vkey}\nquorum twin\n")
    with pytest.raises(NoteError, match="is not signed by one of the logs"):
        policy.open(Note(HEAD.body(), (sign_text(HEAD.body(), other), line)).encode())


def test_whitespace_comments_and_urls() -> None:
    policy = parse(
        f"# comment\n \t # indented \t\n\n \t\n\tlog \t {L}\t https://log.example/é \n"
        f"  witness\tw {V['X1']} https://w.example/#not-a-comment\nquorum w\t\n#\n"
    )
    assert policy.logs[0].url == "https://log.example/é"
    assert policy.witnesses[0].url == "https://w.example/#not-a-comment"
    assert policy.quorum == "w"


def test_names_are_octets() -> None:
    data = (
        f"witness K {V['X1']}\nwitness \u212a {V['X2']}\n".encode()
        + b"witness \xe9 " + V["X3"].encode()
        + "\nwitness \u00a0 ".encode() + V["Y1"].encode()
        + b"\nwitness \xff\x85\xfe " + V["Y2"].encode()
        + b"\ngroup g all \xe9 K \xff\x85\xfe\nquorum g\n"
    )  # fmt: skip
    policy = parse_policy(data)
    names = [witness.name for witness in policy.witnesses]
    assert len(set(names)) == 5
    assert [name.encode("utf-8", "surrogateescape") for name in names] == [
        b"K", b"\xe2\x84\xaa", b"\xe9", b"\xc2\xa0", b"\xff\x85\xfe",
    ]  # fmt: skip
    assert policy.satisfied_by({"K", "\udce9", "\udcff\udc85\udcfe"})
    assert not policy.satisfied_by({"\u212a", "\udce9", "\udcff\udc85\udcfe"})
    # What an operator is shown can be printed anywhere.
    verdict = parse_policy(f"log {L}\n".encode() + data).evaluate(SIGNED)
    assert "\\udcff" in verdict.reason
    verdict.reason.encode()


def test_keywords_may_be_names() -> None:
    policy = parse(f"witness 2 {V['X1']}\nwitness all {V['X2']}\ngroup any all 2 all\nquorum any\n")
    assert policy.satisfied_by({"2", "all"})
    assert not policy.satisfied_by({"2"})


W = f"witness a {V['X1']}\nwitness b {V['X2']}\n"


def same_key(key: Signer, name: str, algorithm: Algorithm) -> str:
    return str(Signer.from_seed(name, algorithm, key.seed).vkey)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no quorum line"),
        ("\n# quorum none\n", "no quorum line"),
        (W, "no quorum line"),
        ("quorum none", "newline"),
        ("quorum none\nquorum none\n", "line 2: a second quorum"),
        (f"{W}quorum a\nquorum b\n", "line 4: a second quorum"),
        ("quorum\n", "line 1: 0 items"),
        ("quorum none none\n", "2 items"),
        ("quorum a\n", "'a' is not defined"),
        (f"quorum a\n{W}", "line 1: 'a' is not defined"),
        ("Quorum none\n", "'Quorum' is not one of"),
        ("logs\n", "not one of"),
        ("log\n", "0 items"),
        (f"log {L} url more\n", "3 items"),
        ("log vkey\n", "not a vkey"),
        (f"log {L} # comment\n", "3 items"),
        (f"log {L}\nlog {L}\n", "line 2: .*already that of another log"),
        (f"log {L}\nlog {same_key(LOG_ED, 'x', Algorithm.ED25519)}\n", "already that of another"),
        (
            f"log {L}\nlog {same_key(LOG_ED, LOG, Algorithm.ED25519_COSIGNATURE)}\n",
            "already that of another log",
        ),
        ("witness a\n", "1 items"),
        (f"witness a {V['X1']} url more\n", "4 items"),
        (f"witness a {L}\n", "does not cosign"),
        ("witness a vkey\n", "line 1: .*not a vkey"),
        (f"witness a {V['X1'][:-4]}\n", "line 1: "),
        (f"log {L}\nquorum {LOG}\n", "line 2: .* is not defined"),
        (f"log {L}\ngroup g all {LOG}\n", "line 2: .* is not defined"),
        (f"witness none {V['X1']}\n", "'none' is already defined"),
        (f"{W}witness a {V['X3']}\n", "line 3: the name 'a' is already defined"),
        (f"{W}witness c {V['X1']}\n", "line 3: .*already that of another witness"),
        (
            f"{W}witness c {same_key(WITNESSES['X1'], 'c', Algorithm.ED25519_COSIGNATURE)}\n",
            "already that of another witness",
        ),
        (f"{W}group g\n", "1 items"),
        (f"{W}group g all\n", "2 items"),
        (f"{W}group g a b\n", "'a' is not a decimal"),
        (f"{W}group g 0 a b\n", "threshold of 0"),
        (f"{W}group g 3 a b\n", "threshold of 3"),
        (f"{W}group g -1 a b\n", "not a decimal"),
        (f"{W}group g +1 a b\n", "not a decimal"),
        (f"{W}group g 01 a b\n", "not a decimal"),
        (f"{W}group g 0x1 a b\n", "not a decimal"),
        (f"{W}group g ١ a b\n", "not a decimal"),
        (f"{W}group g ALL a b\n", "not a decimal"),
        (f"{W}group g {'9' * 30} a b\n", "not a decimal"),
        (f"{W}group none all a\n", "'none' is already defined"),
        (f"{W}group a all b\n", "'a' is already defined"),
        (f"{W}group g all a none\n", "`none` cannot be a member"),
        (f"{W}group g all a a\n", "'a' is already a member"),
        (f"{W}group g all a\ngroup h all a b\n", "line 4: 'a' is already a member"),
        (f"{W}group g all a\ngroup h all g\ngroup i all g b\n", "'g' is already a member"),
        (f"{W}group g all g\n", "'g' is not defined"),
        (f"{W}group g all h\ngroup h all a\n", "line 3: 'h' is not defined"),
        (f"{W}group g all a\ngroup g all b\n", "line 4: the name 'g' is already defined"),
        ("# \x00\nquorum none\n", "line 1: the octet 0x00"),
        ("quorum none\r\n", "octet 0x0d"),
        ("quorum none\n# \x7f\n", "line 2: the octet 0x7f"),
        ("quorum none\n\x0c\n", "octet 0x0c"),
        ("quorum\x0bnone\n", "octet 0x0b"),
        ("\ufeffquorum none\n", "not one of"),
        ("quorum\u00a0none\n", "not one of"),
    ],
)
def test_bad_policies(text: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        parse(text)


def test_one_key_as_a_log_and_as_a_witness_is_not_a_duplicate() -> None:
    key = signer(LOG, Algorithm.MLDSA44)
    policy = parse(f"log {key.vkey}\nwitness w {key.vkey}\nquorum w\n")
    assert policy.open(SIGNED).cosigned_by == ("w",)


@pytest.mark.parametrize("octet", range(256))
def test_every_octet_in_a_comment(octet: int) -> None:
    data = b"# " + bytes([octet]) + b"\nquorum none\n"
    if octet in {0x09, 0x0A} or 0x20 <= octet <= 0x7E or octet >= 0x80:
        assert parse_policy(data).quorum == "none"
    else:
        with pytest.raises(NoteError, match=f"octet 0x{octet:02x}"):
            parse_policy(data)


def test_truncated_anywhere() -> None:
    data = EXAMPLE.encode()
    for length in [*range(0, len(data), 13), *range(len(data) - 40, len(data))]:
        with pytest.raises(NoteError):
            parse_policy(data[:length])


# Size and depth


def vkey(number: int) -> str:
    """A witness key that nobody has: only the policy's own rules are asked."""
    material = b"\x04" + hashlib.sha256(b"%d" % number).digest()
    key_id = hashlib.sha256(b"w\n" + material).hexdigest()[:8]
    return f"w+{key_id}+{base64.b64encode(material).decode()}"


def test_many_lines() -> None:
    count = 1000
    lines = [f"witness w{i} {vkey(i)}\ngroup g{i} all w{i}" for i in range(count)]
    lines += [f"log {vkey(i)}" for i in range(count)]
    members = " ".join(f"g{i}" for i in range(count))
    policy = parse("\n".join([*lines, f"group all 500 {members}", "quorum all", ""]))
    assert policy.satisfied_by({f"w{i}" for i in range(500)})
    assert not policy.satisfied_by({f"w{i}" for i in range(499)})


def test_a_chain_of_groups_as_deep_as_the_file_is_long() -> None:
    lines = [f"log {L}", f"witness w {V['X1']}", "group 0 all w"]
    lines += [f"group {i} any {i - 1}" for i in range(1, 20_000)]
    policy = parse("\n".join([*lines, "quorum 19999", ""]))
    assert policy.satisfied_by({"w"})
    assert not policy.satisfied_by(set())
    assert policy.evaluate(note("X1")).satisfied
    assert not policy.evaluate(SIGNED).satisfied


def test_too_large() -> None:
    line = b"quorum none\n"
    assert parse_policy(b"#" * (MAX_POLICY_SIZE - len(line) - 1) + b"\n" + line)
    with pytest.raises(NoteError, match="limit is 1048576"):
        parse_policy(b"\n" * (MAX_POLICY_SIZE + 1))


def test_thirty_two_witnesses_of_either_kind_and_a_quorum_of_all() -> None:
    keys = [
        signer(f"w.example/{i}", algorithm)
        for i, algorithm in enumerate(
            [Algorithm.ED25519_COSIGNATURE] * 16 + [Algorithm.MLDSA44] * 16
        )
    ]
    lines = [f"witness {i} {key.vkey}" for i, key in enumerate(keys)]
    everyone = " ".join(map(str, range(32)))
    policy = parse("\n".join([f"log {L}", *lines, f"group g all {everyone}", "quorum g", ""]))
    data = SIGNED + b"".join(cosign(HEAD, key, timestamp=TIME).encode() for key in keys)
    assert len(policy.open(data).cosigned_by) == 32


# A second opinion on quorums: recursive, as the specification words it.


def witnessed(policy: Policy, name: str, cosigned: Set[str]) -> bool:
    for group in policy.groups:
        if group.name == name:
            return sum(witnessed(policy, m, cosigned) for m in group.members) >= group.threshold
    return name in cosigned


@given(st.data())
def test_quorums_against_the_recursive_definition(data: st.DataObject) -> None:
    free = [f"w{i}" for i in range(8)]
    names = set(free)
    lines = [f"witness {name} {vkey(i)}" for i, name in enumerate(free)]
    for number in range(data.draw(st.integers(1, 5))):
        count = data.draw(st.integers(1, len(free)))
        members, free = free[:count], [*free[count:], f"g{number}"]
        k = data.draw(st.sampled_from(["any", "all", *map(str, range(1, count + 1))]))
        lines.append(f"group g{number} {k} {' '.join(members)}")
        names.add(f"g{number}")
    quorum = data.draw(st.sampled_from(sorted(names)))
    policy = parse("\n".join([*lines, f"quorum {quorum}", ""]))
    cosigned = data.draw(st.sets(st.sampled_from([f"w{i}" for i in range(8)])))
    assert policy.satisfied_by(cosigned) == witnessed(policy, quorum, cosigned)


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    for candidate in (data, data + b"\nquorum none\n", W.encode() + data + b"\nquorum a\n"):
        try:
            policy = parse_policy(candidate)
        except NoteError:
            continue
        assert policy.quorum in {"none", "a"} or candidate is data
