"""`tlog erase`, `tlog approve`, `tlog hold`: an order from the first key to the receipt."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.audit.approvers import CISO, COUNSEL, DPO
from tests.audit.producer import SHOP, TENANT, access, signed
from tests.audit.tenant import registration
from tests.cli.conftest import Run
from tests.support import running_server
from tlog.audit import Draft
from tlog.audit.tenancy import RecordsConfig, create_records, recording
from tlog.log import Log, LogConfig, create_log
from tlog.notes import load_signer, save_signer
from tlog.v1 import audit_pb2, audit_pb2_grpc

Keys = dict[str, Path]
VKEY = str(COUNSEL.vkey)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Keys]]:
    """A server with a records log, and the keys of two approvers and of the shop."""
    directory = tmp_path_factory.mktemp("office")
    create_log(directory / "log", LogConfig(origin="example.com/office", name="office"))
    create_records(directory / "log", RecordsConfig(tenant=TENANT), passphrase=None)
    keys: Keys = {}

    async def register() -> None:
        async with (
            Log.opened(directory / "log") as log,
            recording(directory / "log", log, passphrase=None) as records,
        ):
            for signer, role in ((SHOP, "recorder"), (DPO, "approver"), (CISO, "approver")):
                name = signer.vkey.name
                keys[name] = directory / f"{name}.key"
                save_signer(keys[name], signer, passphrase=None)
                await records.record(registration(signer, role))

    asyncio.run(register())
    with running_server(directory / "log") as server:
        yield server.target, keys


_sequence = itertools.count(1)


@pytest.fixture
def keys(office: tuple[str, Keys], monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.setenv("TLOG_SERVER", office[0])
    monkeypatch.setenv("TLOG_PURPOSE", "complaint 7")
    return office[1]


@pytest.fixture
def known(office: tuple[str, Keys], keys: Keys) -> Callable[[str], str]:
    """Makes somebody known to the server."""

    def record(subject: str) -> str:
        with grpc.insecure_channel(office[0]) as channel:
            stub = audit_pb2_grpc.AuditServiceStub(channel)
            event = signed(access(subject), next(_sequence))
            answer = stub.Record(audit_pb2.RecordRequest(events=[event]))
            assert answer.outcomes[0].HasField("recorded"), answer
        return subject

    return record


def erasing(subject: str, *more: object) -> tuple[object, ...]:
    return ("erase", "--subject", subject, "--request", "R-1", "--reason", "asked", *more)


def test_two_approvers_one_after_the_other(
    run: Run, keys: Keys, known: Callable[[str], str], tmp_path: Path
) -> None:
    alice, file = known("alice@example.com"), tmp_path / "order.json"
    seen = json.loads(run("erase", "--subject", alice, "--dry-run", "--json").out)
    assert (seen["parts"], seen["types"]) == (2, {"access.read": 1})
    text = run("erase", "--subject", alice, "--dry-run").out.decode()
    assert "1  access.read" in text
    assert "held     by nothing" in text

    made = run(*erasing(alice, "--key", keys["dpo"], "-o", file))
    assert (made.code, made.out) == (0, f"{file}  signed by dpo\n".encode())
    assert "tlog approve" in made.err
    assert file.stat().st_mode & 0o777 == 0o600
    assert run("erase", "--order", file).code == 1
    assert "2 approvers sign an order" in run("erase", "--order", file).err
    again = run("approve", file, "--key", keys["dpo"], "--yes")
    assert (again.code, "dpo has signed it" in again.err) == (1, True)

    approved = run("approve", file, "--key", keys["ciso"], "--yes")
    assert approved.code == 0, approved.err
    for said in (alice, "R-1", "asked", TENANT, "signed by  dpo", "tlog erase --order"):
        assert said in approved.err
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["order.json"]

    receipt = tmp_path / "receipt.json"
    done = run("erase", "--order", file, "-o", receipt, "--json")
    told = json.loads(done.out)
    assert (told["outcome"], told["parts"]) == ("done", 6)  # with the records of two looks
    assert told["key_id"] == seen["key_id"]
    assert json.loads(receipt.read_text()) == told
    assert alice not in done.out.decode() + receipt.read_text()
    again = run("erase", "--order", file)
    assert again.out.decode().startswith(f"carried out before: erased: entry {told['index']}, ")
    assert "copies  of the vault may hold the key until" in again.out.decode()
    assert "destroy every copy" in again.err
    assert run("erase", "--order", file, "-o", receipt).code == 1  # never overwritten
    other = run(*erasing(alice, "--key", keys["dpo"], "--key", keys["ciso"]))
    assert other.out.decode().startswith("by another order, before: erased: entry")
    assert (
        f"erased before, by entry {told['index']}"
        in run("erase", "--subject", alice, "--dry-run").out.decode()
    )


def test_what_each_system_did(
    run: Run, office: tuple[str, Keys], keys: Keys, known: Callable[[str], str], tmp_path: Path
) -> None:
    dora, receipt = known("dora@example.com"), tmp_path / "receipt.json"
    look = ("erase", "--subject", dora, "--request", "R-77", "--dry-run")
    assert "result   of no system is in the log yet\n" in run(*look).out.decode()
    assert json.loads(run(*look, "--json").out)["system_results"] == []
    claims = {"request_id": "R-77", "system": "crm"}
    event = signed(Draft("delete.system_erased", claims, {}), next(_sequence))
    with grpc.insecure_channel(office[0]) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        answer = stub.Record(audit_pb2.RecordRequest(events=[event]))
    told = f"system_erased (entry {answer.outcomes[0].recorded.index}): crm"
    assert f"result   {told}\n" in run(*look).out.decode()
    assert json.loads(run(*look, "--json").out)["system_results"] == [told]
    # It is the request's, whose subject may be gone, or unknown.
    nobody = run("erase", "--subject", "zoe", "--request", "R-77", "--dry-run").out.decode()
    assert nobody == f"nothing is known of this subject\nresult   {told}\n"
    both = ("--key", keys["dpo"], "--key", keys["ciso"])
    words = ("erase", "--subject", dora, "--request", "R-77", "--reason", "asked", *both)
    assert f"result  {told}\n" in run(*words, "-o", receipt).out.decode()
    assert json.loads(receipt.read_text())["system_results"] == [told]
    before = run(*erasing(known("emil@example.com"), *both)).out.decode()
    assert "result  of no system is in the record\n" in before


def test_in_one_go_and_somebody_unknown(run: Run, keys: Keys, known: Callable[[str], str]) -> None:
    both = ("--key", keys["dpo"], "--key", keys["ciso"], "--tenant", TENANT)
    done = run(*erasing(known("bob@example.com"), *both))
    assert (done.code, done.out.startswith(b"erased: entry ")) == (0, True)
    nobody = run(*erasing("zoe@example.com", *both))
    assert nobody.out == b"nothing is known of the subject: there was nothing to erase\n"
    assert (
        run("erase", "--subject", "zoe", "--dry-run").out == b"nothing is known of this subject\n"
    )
    shop = run(*erasing("bob@example.com", "--key", keys["dpo"], "--key", keys["shop"]))
    assert (shop.code, "shop is no approver" in shop.err) == (1, True)
    twice = run(*erasing("bob@example.com", "--key", keys["dpo"], "--key", keys["dpo"]))
    assert (twice.code, "somebody else" in twice.err) == (1, True)


def test_holds(run: Run, keys: Keys, known: Callable[[str], str], tmp_path: Path) -> None:
    carol, file = known("carol@example.com"), tmp_path / "hold.json"
    both = ("--key", keys["dpo"], "--key", keys["ciso"])
    place = ("hold", "place", "--hold", "LIT-7", "--subject", carol, "--reason", "litigation")
    assert "tlog approve" in run(*place, "--key", keys["dpo"], "-o", file).err
    assert "tlog hold place --order" in run("approve", file, "--key", keys["ciso"], "--yes").err
    wrong = run("erase", "--order", file)
    assert (wrong.code, "orders another thing: hold.place" in wrong.err) == (1, True)
    placed = run("hold", "place", "--order", file)
    assert placed.out.startswith(b"hold LIT-7 stands: entry ")
    assert (
        run("hold", "place", "--hold", "LIT-8", "--request", "R-8", "--reason", "x", *both).code
        == 0
    )
    lines = [json.loads(line) for line in run("hold", "list", "--json").out.splitlines()]
    assert [(each["hold_id"], each["request_id"]) for each in lines] == [
        ("LIT-7", ""), ("LIT-8", "R-8"),
    ]  # fmt: skip
    text = run("hold", "list").out.decode()
    assert "LIT-7  a subject  since entry" in text
    assert "carol" not in text
    held = run(*erasing(carol, *both))
    assert (held.code, "held by LIT-7" in held.err) == (1, True)
    assert "HELD     by LIT-7" in run("erase", "--subject", carol, "--dry-run").out.decode()
    for name in ("LIT-7", "LIT-8"):
        done = run("hold", "release", "--hold", name, "--reason", "settled", *both)
        assert f"hold {name} is released" in done.out.decode()
    assert "no hold stands" in run("hold", "list").err
    assert run(*erasing(carol, *both)).code == 0


def test_another_approver(
    run: Run, keys: Keys, known: Callable[[str], str], tmp_path: Path
) -> None:
    first, second, file = tmp_path / "new.key", tmp_path / "next.key", tmp_path / "order.json"
    made = run("approver", "new-key", "counsel", first)
    assert (made.code, made.err) == (0, "")
    vkey = made.out.decode().strip()
    assert vkey == str(load_signer(first, passphrase=None).vkey)
    assert first.stat().st_mode & 0o777 == 0o600
    before = first.read_bytes()
    assert run("approver", "new-key", "counsel", first).code == 1  # never overwritten
    assert first.read_bytes() == before
    assert "a name of a-z" in run("approver", "new-key", "Counsel", tmp_path / "no.key").err
    assert not (tmp_path / "no.key").exists()

    register = ("approver", "register", "--vkey", vkey, "--reason", "joins")
    alone = run(*register, "--key", keys["dpo"], "-o", file)
    assert (alone.code, alone.out) == (0, f"{file}  signed by dpo\n".encode())
    one = run("approver", "register", "--order", file)
    assert (one.code, "2 approvers sign an order" in one.err) == (1, True)
    himself = run(*register, "--key", keys["dpo"], "--key", first)
    assert (himself.code, "no producer has the key" in himself.err) == (1, True)
    approved = run("approve", file, "--key", keys["ciso"], "--yes")
    for said in (f"new key    {vkey}", "joins", "tlog approver register --order"):
        assert said in approved.err
    wrong = run("approver", "rotate", "--order", file)
    assert (wrong.code, "orders another thing: approver.register" in wrong.err) == (1, True)
    done = run("approver", "register", "--order", file)
    assert done.out.startswith(f"an approver has the key {vkey}: entry ".encode())
    assert done.out.endswith(b"approved by ciso and dpo\n")
    again = json.loads(run("approver", "register", "--order", file, "--json").out)
    assert (again["outcome"], again["vkey"]) == ("done before", vkey)
    twice = run(*register, "--key", keys["dpo"], "--key", keys["ciso"])
    assert (twice.code, "counsel is registered" in twice.err) == (1, True)

    new = run("approver", "new-key", "counsel", second).out.decode().strip()
    rotate = ("approver", "rotate", "--vkey", new, "--old-vkey", vkey, "--reason", "yearly")
    assert run(*rotate, "--key", first, "-o", tmp_path / "rotate.json").code == 0
    shown = run("approve", tmp_path / "rotate.json", "--key", keys["dpo"], "--yes").err
    assert f"new key    {new}" in shown
    assert f"old key    {vkey}" in shown
    told = json.loads(run("approver", "rotate", "--order", tmp_path / "rotate.json", "--json").out)
    assert (told["outcome"], told["kind"], told["vkey"]) == ("done", "approver.rotate", new)
    erase = erasing(known("erin@example.com"), "--key", keys["dpo"])
    over = run(*erase, "--key", first)
    assert (over.code, "was valid until" in over.err) == (1, True)
    assert run(*erase, "--key", second).code == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("erase",), 2, "whom, and why?"),
        (("erase", "--subject", "a"), 2, "whom, and why?"),
        (("erase", "--subject", "a", "--request", "R"), 2, "an order needs --reason"),
        (("erase", "--subject", "a", "--request", "R", "--reason", "x"), 2, "needs --key"),
        (("erase", "--dry-run"), 2, "--dry-run needs --subject"),
        (("erase", "--dry-run", "--subject", "a", "--purpose", "a@b.de"), 1, "purpose: it seems"),
        (("erase", "--dry-run", "--subject", "a", "--key", "DPO"), 2, "and no order"),
        (("erase", "--order", "ORDER", "--subject", "a", "--request", "R"), 2, "what to order?"),
        (("erase", "--order", "ORDER", "--key", "DPO"), 2, "what to order?"),
        (("erase", "--order", "BAD"), 1, "no order: payload and signatures"),
        (("erase", "--order", "LONG"), 1, "has more than 16384 bytes"),
        (("erase", "--order", "NONE"), 2, "does not exist"),
        ((*erasing("a"), "--key", "DPO"), 2, "Give --output FILE"),
        ((*erasing("a"), "--key", "DPO", "-o", "ORDER"), 1, "exists: give another"),
        ((*erasing("a"), "--key", "BAD"), 1, "not a key file"),
        ((*erasing(""), "--key", "DPO"), 2, "it is empty"),
        ((*erasing("x" * 600), "--key", "DPO", "-o", "new"), 1, "subject: "),
        (
            ("erase", "--subject", "a", "--request", "R", "--reason", "for a@example.com", "--key",
             "DPO", "-o", "new"),
            1,
            "reason: it seems to hold an e-mail address",
        ),
        (("hold", "place", "--hold", "H"), 2, "what to hold?"),
        (("hold", "place", "--subject", "a"), 2, "what to hold?"),
        (("hold", "place", "--hold", "H", "--subject", "a", "--request", "R"), 2, "what to hold?"),
        (("hold", "release"), 2, "which hold?"),
        (("approver", "register"), 2, "whom? Give one --vkey"),
        (("approver", "register", "--vkey", VKEY, "--vkey", VKEY), 2, "whom? Give one --vkey"),
        (("approver", "register", "--order", "ORDER", "--vkey", VKEY), 2, "whom? Give one --vkey"),
        (("approver", "register", "--order", "ORDER"), 1, "orders another thing: erase"),
        (("approver", "register", "--vkey", VKEY), 2, "an order needs --reason"),
        (("approver", "register", "--vkey", "counsel"), 2, "--vkey"),
        (("approver", "rotate", "--vkey", VKEY), 2, "which keys? Give one --vkey and one"),
        (("approver", "rotate", "--old-vkey", VKEY), 2, "which keys? Give one --vkey and one"),
        (("approver", "rotate", "--order", "ORDER", "--vkey", VKEY), 2, "which keys?"),
        (("approve", "ORDER", "--key", "CISO"), 2, "give --yes"),
        (("approve", "BARE", "--key", "CISO", "--yes"), 1, "the disclosure was taken away"),
        (("approve", "ORDER"), 2, "--key"),
    ],
)  # fmt: skip
def test_what_is_not_understood(
    run: Run, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(*erasing("alice"), "--key", keys["dpo"], "-o", "ORDER").code == 0
    before = Path("ORDER").read_bytes()
    bare = json.loads(before)
    del bare["signatures"][0]["header"]
    Path("BARE").write_text(json.dumps(bare))
    Path("BAD").write_text("{}")
    Path("BAD").chmod(0o600)
    Path("LONG").write_bytes(b" " * 20_000)
    names: dict[str, Any] = {"DPO": keys["dpo"], "CISO": keys["ciso"]}
    result = run(*[names.get(word, word) for word in words])
    assert (result.code, result.out) == (code, b""), result.err
    assert says in result.err
    assert Path("ORDER").read_bytes() == before
    assert not Path("new").exists()


@pytest.mark.parametrize("answer", ["n\n", "y\n", ""])
def test_a_person_is_asked(
    run: Run, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = tmp_path / "order.json"
    assert run(*erasing("alice"), "--key", keys["dpo"], "-o", file).code == 0
    before = file.read_bytes()
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    result = run("approve", file, "--key", keys["ciso"])
    assert "Sign it as ciso?" in result.err
    assert result.code == (0 if answer == "y\n" else 130)
    assert (file.read_bytes() == before) is (answer != "y\n")


def test_half_a_person(run: Run, office: tuple[str, Keys], known: Callable[[str], str]) -> None:
    first, second = known("dan@example.com"), known("daniel@example.com")
    keys = {"key_id": "00" * 16, "into_key_id": "11" * 16}
    both = Draft("subject.merged", keys, {}, [{"id": first}, {"id": second}])
    with grpc.insecure_channel(office[0]) as channel:
        request = audit_pb2.RecordRequest(events=[signed(both, next(_sequence))])
        (outcome,) = audit_pb2_grpc.AuditServiceStub(channel).Record(request).outcomes
    told = run("erase", "--subject", first, "--dry-run")
    at = f"of the same person, and stays: tlog records show {outcome.recorded.index}\n"
    assert at in told.out.decode()
    assert second not in told.out.decode()


def test_nobody_looks_without_a_purpose(
    run: Run, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TLOG_PURPOSE")
    for words in (("hold", "list"), ("erase", "--subject", "alice", "--dry-run")):
        result = run(*words)
        assert (result.code, result.out) == (2, b"")
        assert "what for? Give --purpose (or TLOG_PURPOSE)" in result.err
        assert run(*words, "--purpose", "audit").code == 0


def test_no_server(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOG_SERVER", "127.0.0.1:1")
    result = run("hold", "list", "--purpose", "audit")
    assert result.code == 4
    assert "nothing listens" in result.err
