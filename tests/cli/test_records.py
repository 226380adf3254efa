"""`tlog records`: what makes a records log, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Result, Run
from tests.support import running_server
from tlog.audit import (
    Draft,
    EventRefused,
    default_catalogue,
    load_catalogue,
    rotation,
    sign_event,
)
from tlog.audit.intake import Recorded
from tlog.audit.jws import parse_jws
from tlog.audit.tenancy import RecordsConfig, recording
from tlog.log import Log, LogConfig, create_log
from tlog.notes import Algorithm, Signer, load_signer, save_signer


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A log without entries."""
    create_log(tmp_path / "log", LogConfig(origin="example.com/log", name="log"))
    return tmp_path / "log"


@pytest.fixture
def kept(run: Run, plain: Path) -> Path:
    """A records log without producers."""
    assert run("records", "init", plain, "--tenant", "acme").code == 0
    return plain


def test_the_keys_are_private_and_the_tenant_is_written_down(run: Run, plain: Path) -> None:
    result = run("records", "init", plain, "--tenant", "acme", "--json")
    told = json.loads(result.out)
    assert (told["tenant"], result.err) == ("acme", "")
    service = load_signer(plain / "keys/service.key", passphrase=None).vkey
    assert told["vkey"] == str(service)
    assert service.algorithm is Algorithm.ED25519
    for name in ("tenant.key", "service.key"):
        assert (plain / "keys" / name).stat().st_mode & 0o777 == 0o600
    assert len((plain / "keys/tenant.key").read_bytes()) == 32
    settings = (plain / "records.toml").read_text()
    assert tomllib.loads(settings) == {"tenant": "acme"}
    # Every setting is there to be found, and as it counts when it is not.
    shown = "\n".join(re.findall(r"^# (\w+ = .*)$", settings, re.M))
    assert set(tomllib.loads(shown)) == set(RecordsConfig.model_fields) - {"tenant", "root"}
    for name in ("warn_days_before", "erasures_per_hour", "backup_days", "expiry_interval"):
        value = tomllib.loads(shown)[name]
        assert RecordsConfig.model_fields[name].default == (
            tuple(value) if isinstance(value, list) else value
        )


def test_it_is_made_once(run: Run, kept: Path) -> None:
    key = (kept / "keys/tenant.key").read_bytes()
    result = run("records", "init", kept, "--tenant", "other")
    assert result.code == 1
    assert "is a records log already" in result.err
    assert (kept / "keys/tenant.key").read_bytes() == key


def test_a_log_with_entries_stays_what_it_is(run: Run, plain: Path) -> None:
    async def append() -> None:
        async with Log.opened(plain) as log:
            await log.submit([b"hello"])

    asyncio.run(append())
    before = sorted(plain.rglob("*"))
    result = run("records", "init", plain, "--tenant", "acme")
    assert result.code == 1
    assert "has 1 entries: a records log begins without any" in result.err
    assert not [each for each in set(plain.rglob("*")) - set(before) if "db" not in each.parts]


@pytest.mark.parametrize("tenant", ["Acme", "a b", "x" * 64, "a\nb", "-a"])
def test_the_name_of_a_tenant(run: Run, plain: Path, tenant: str) -> None:
    result = run("records", "init", plain, f"--tenant={tenant}")
    assert result.code == 2
    assert "a name of a-z" in result.err
    assert not (plain / "vault").exists()


def test_no_log_and_no_records_log(run: Run, plain: Path, tmp_path: Path) -> None:
    result = run("records", "init", tmp_path / "none", "--tenant", "acme")
    assert (result.code, (tmp_path / "none").exists()) == (1, False)
    assert "holds no log" in result.err
    key = tmp_path / "shop.key"
    result = run("records", "add-producer", plain, "shop", "--key", key)
    assert result.code == 1
    assert "is not a records log" in result.err


def test_a_producer_gets_a_key_or_brings_one(run: Run, kept: Path, tmp_path: Path) -> None:
    key = tmp_path / "shop.key"
    told = json.loads(run("records", "add-producer", kept, "shop", "--key", key, "--json").out)
    assert told["vkey"] == str(load_signer(key, passphrase=None).vkey)
    assert key.stat().st_mode & 0o777 == 0o600
    till = Signer.generate("till", Algorithm.ED25519).vkey
    words = ("records", "add-producer", kept, "till", "--vkey", till, "--role", "approver")
    told = json.loads(run(*words, "--role", "registrar", "--json").out)
    assert (told["index"], told["roles"]) == (1, ["approver", "registrar"])
    save_signer(tmp_path / "hr.key", Signer.generate("hr", Algorithm.ED25519), passphrase=None)
    before = (tmp_path / "hr.key").read_bytes()
    assert run("records", "add-producer", kept, "hr", "--key", tmp_path / "hr.key").code == 0
    assert (tmp_path / "hr.key").read_bytes() == before


def test_producers_that_are_refused(run: Run, kept: Path, tmp_path: Path) -> None:
    def refused(name: str, *words: object, code: int = 1) -> str:
        result = run("records", "add-producer", kept, name, *map(str, words))
        assert (result.code, result.out) == (code, b"")
        return result.err

    key, other = tmp_path / "shop.key", tmp_path / "other.key"
    assert run("records", "add-producer", kept, "shop", "--key", key).code == 0
    assert "shop is registered: rotate its key" in refused("shop", "--key", other)
    assert "log is registered" in refused("log", "--key", tmp_path / "log.key")
    assert "valid_until" in refused("till", "--key", other, "--valid-until", "soon")
    # No key is left of somebody who is not registered; one that was there stays.
    assert [path.name for path in tmp_path.glob("*.key")] == ["shop.key"]
    assert "an Ed25519 key with the name till" in refused("till", "--key", key)
    slow = Signer.generate("till", Algorithm.MLDSA44).vkey
    assert "an Ed25519 key with the name till" in refused("till", "--vkey", slow)
    assert "a name of a-z" in refused("Till", "--key", tmp_path / "Till.key")
    assert not (tmp_path / "Till.key").exists()
    assert "which key?" in refused("till", code=2)
    assert "which key?" in refused("till", "--key", key, "--vkey", slow, code=2)

    async def entries() -> int:
        async with Log.opened(kept) as log:
            return log.sequencer.edge.size

    assert asyncio.run(entries()) == 1


def test_no_key_is_made_while_the_log_is_served(run: Run, kept: Path, tmp_path: Path) -> None:
    key, new = tmp_path / "shop.key", tmp_path / "new.key"
    assert run("records", "add-producer", kept, "shop", "--key", key).code == 0
    with running_server(kept):
        for words in (("add-producer", kept, "till"), ("rotate-key", kept, "shop")):
            result = run("records", *words, "--key", new)
            assert (result.code, result.out) == (1, b"")
            assert not new.exists()
    # Nor for a producer whose key is not there to be rotated.
    assert run("records", "rotate-key", kept, "till", "--key", new).code == 1
    assert not new.exists()
    assert run("records", "rotate-key", kept, "shop", "--key", new).code == 0
    assert new.exists()


def test_the_tenant_key_of_a_command(run: Run, kept: Path, tmp_path: Path) -> None:
    wrapped = kept / "keys/tenant.key"
    wrapped.write_bytes(wrapped.read_bytes()[::-1] + b"wrapped")
    settings = (kept / "records.toml").read_text()
    add = ("records", "add-producer", kept, "shop", "--key", tmp_path / "shop.key")
    assert "39 bytes" in run(*add).err
    command = 'tenant_key_command = ["python3", "-c", "import sys; %s"]\n'
    unwrap = "sys.stdout.buffer.write(sys.stdin.buffer.read()[:32][::-1])"
    (kept / "records.toml").write_text(settings + command % unwrap)
    assert run(*add).code == 0
    (kept / "records.toml").write_text(settings + command % unwrap.replace("[::-1]", ""))
    assert "the tenant key is another one" in run(*add).err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("", "tenant: Field required"),
        ("tenant = 7\n", "tenant: Input should be a valid string"),
        ('tenant = "A"\n', "a name of a-z"),
        ('tenant = "acme"\nmore = 1\n', "more: Extra inputs"),
        ("tenant = [", "records.toml: "),
        ("[" * 20_000, "records.toml: "),
        ("#" * 70_000, "longer than 65536 bytes"),
        ('tenant = "acme"\nroot = "shop"\n', "records.toml: root: "),
        ('tenant = "acme"\nroot = "shop+00000000+AAAA"\n', "records.toml: root: "),
        (
            'tenant = "acme"\ndeadline_webhook = "ftp://x"\n',
            "deadline_webhook: Value error, an http",
        ),
        ('tenant = "acme"\ndeadline_command = "x"\n', "records.toml: deadline_command: "),
        ('tenant = "acme"\nwarn_days_before = [-1]\n', "records.toml: warn_days_before.0: "),
        ('tenant = "acme"\ncalendar = "none.toml"\n', "none.toml cannot be read: No such file"),
        ('tenant = "acme"\ncatalogue = "none.toml"\n', "none.toml: No such file"),
        ('tenant = "acme"\ncatalogue = "records.toml"\n', "records.toml: version: needs"),
    ],
)
def test_settings_that_are_not_understood(run: Run, kept: Path, settings: str, says: str) -> None:
    (kept / "records.toml").write_text(settings)
    result = run("serve", kept, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    assert (result.code, result.out) == (1, b"")
    assert says in result.err


async def test_what_a_closed_records_layer_leaves_is_still_reserved(kept: Path) -> None:
    from tlog.log import Reserved

    async with Log.opened(kept) as log:
        async with recording(kept, log, passphrase=None):
            pass
        with pytest.raises(Reserved, match="records log"):
            log.submit([b"hello"])


def record(directory: Path, signer: Signer, seq: int) -> Recorded | EventRefused:
    """What becomes of an event that this key signs."""
    event = sign_event(
        Draft("policy.changed", {"policy_id": "p"}, {}),
        signer,
        tenant="acme",
        seq=seq,
        catalogue=default_catalogue(),
    )

    async def accept() -> Recorded | EventRefused:
        async with Log.opened(directory) as log, recording(directory, log, passphrase=None) as kept:
            (outcome,) = await kept.accept([event])
            return outcome

    return asyncio.run(accept())


def test_a_producers_key_is_rotated_and_revoked(run: Run, kept: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "shop.key", tmp_path / "new.key"
    assert run("records", "add-producer", kept, "shop", "--key", old).code == 0
    first = load_signer(old, passphrase=None)
    told = json.loads(run("records", "rotate-key", kept, "shop", "--key", new, "--json").out)
    second = load_signer(new, passphrase=None)
    assert (told["index"], told["vkey"]) == (1, str(second.vkey))
    assert record(kept, first, 1) == Recorded(2)
    assert record(kept, second, 2) == Recorded(3)
    assert (
        "is a key of shop already" in run("records", "rotate-key", kept, "shop", "--key", new).err
    )
    revoke = ("records", "revoke-key", kept, "shop", "--reason", "stolen")
    result = run(*revoke)
    assert result.code == 1
    assert f"name one of {first.vkey.label}, {second.vkey.label}" in result.err
    assert run(*revoke, "--old", first.vkey.label).code == 0
    refused = record(kept, first, 3)
    assert isinstance(refused, EventRefused)
    assert "is revoked" in str(refused)
    assert record(kept, second, 3) == Recorded(5)
    # All are revoked: only by the name of an old one is there another.
    assert run(*revoke).code == 0
    third = tmp_path / "third.key"
    rotate = ("records", "rotate-key", kept, "shop", "--key", third)
    assert "has no such key: name an old one" in run(*rotate).err
    assert run(*rotate, "--old", second.vkey.label, "--days", "0").code == 0
    assert record(kept, load_signer(third, passphrase=None), 4) == Recorded(8)


def test_a_key_for_a_time(run: Run, kept: Path, tmp_path: Path) -> None:
    key = tmp_path / "fair.key"
    add = ("records", "add-producer", kept, "fair", "--key", key)
    assert "valid_until: not a time of RFC 3339" in run(*add, "--valid-until", "today").err
    until = "2026-01-01T00:00:00Z"
    assert run(*add, "--valid-from", "2025-01-01T00:00:00Z", "--valid-until", until).code == 0
    refused = record(kept, load_signer(key, passphrase=None), 1)
    assert isinstance(refused, EventRefused)
    assert "was valid until 2026-01-01" in str(refused)


def test_rotations_that_are_refused(run: Run, kept: Path, tmp_path: Path) -> None:
    key = tmp_path / "shop.key"
    assert run("records", "add-producer", kept, "shop", "--key", key).code == 0
    rotate = ("records", "rotate-key", kept)
    assert "which key?" in run(*rotate, "shop").err
    assert "leave --key and --vkey out" in run(*rotate, "log", "--key", key).err
    assert (
        "no producer is called till: it is one of log, shop"
        in run(*rotate, "till", "--key", tmp_path / "till.key").err
    )
    assert (
        "shop has no such key"
        in run(*rotate, "shop", "--key", tmp_path / "n.key", "--old", "x").err
    )
    log = ("records", "revoke-key", kept, "log", "--reason", "lost")
    assert "signs the log's own records: rotate it first" in run(*log).err
    assert "it seems to hold" in run(*log[:3], "shop", "--reason", "bob@example.com took it").err


def test_an_operator_alone_makes_two_approvers_and_no_more(
    run: Run, kept: Path, tmp_path: Path
) -> None:
    def add(name: str, *more: str) -> Result:
        key = tmp_path / f"{name}.key"
        return run("records", "add-producer", kept, name, "--key", key, "--role", "approver", *more)

    def rotate(name: str) -> Result:
        return run("records", "rotate-key", kept, name, "--key", tmp_path / f"{name}-2.key")

    assert add("dpo").code == 0
    assert rotate("dpo").code == 0
    assert add("ciso").code == 0
    for refused in (add("counsel"), add("counsel", "--role", "recorder"), rotate("ciso")):
        assert (refused.code, refused.out) == (1, b"")
        assert "order: 2 approvers stand, so it takes an order" in refused.err
        assert "tlog approver register" in refused.err
    assert run("records", "revoke-key", kept, "ciso", "--reason", "stolen").code == 0
    # One is left, who could order nothing. What the operator does then is in the log.
    assert add("counsel").code == 0
    assert add("hr").code == 1
    for verb in ("add-producer", "rotate-key", "revoke-key"):
        assert "order" in run("records", verb, "--help").out.decode()


def own_records(directory: Path) -> list[str]:
    """The keys that signed the records, in their order."""

    async def read() -> list[str]:
        async with Log.opened(directory) as log, recording(directory, log, passphrase=None) as kept:
            kept.vault.store.write([("state", b"snapshot", None)])
        async with Log.opened(directory) as log, recording(directory, log, passphrase=None) as kept:
            size = log.sequencer.edge.size
            return [parse_jws(kept.read(index).leaf.jws).kid for index in range(size)]

    return asyncio.run(read())


@pytest.mark.parametrize("cut", ["", "recorded", "settings"])
def test_the_key_of_the_logs_own_records_is_rotated(
    run: Run, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    service = kept / "keys/service.key"
    first = load_signer(service, passphrase=None).vkey
    rotate = ("records", "rotate-key", kept, "log", "--json")
    if cut:
        with monkeypatch.context() as patch:
            if cut == "recorded":
                patch.setattr(rotation, "replace_service_key", interrupted)
            else:
                replace = Path.replace

                def last(this: Path, to: Path) -> object:
                    if this.name == "service.key.new":
                        interrupted()
                    return replace(this, to)

                patch.setattr(Path, "replace", last)
            assert run(*rotate).code == 130
        # It goes on with the old key meanwhile.
        assert (
            run("records", "add-producer", kept, "shop", "--key", tmp_path / "shop.key").code == 0
        )
    told = json.loads(run(*rotate).out)
    second = load_signer(service, passphrase=None).vkey
    assert told["vkey"] == str(second) != str(first)
    assert tomllib.loads((kept / "records.toml").read_text())["root"] == str(first)
    assert not (kept / "keys/service.key.new").exists()
    assert run("records", "add-producer", kept, "till", "--key", tmp_path / "till.key").code == 0
    before = [first.label] * (2 if cut else 1)
    assert own_records(kept) == [*before, second.label]
    # The whole log is read again, from the first key on.
    third = json.loads(run(*rotate).out)["vkey"]
    assert tomllib.loads((kept / "records.toml").read_text())["root"] == str(first)
    assert own_records(kept) == [*before, second.label, second.label]
    assert third == str(load_signer(service, passphrase=None).vkey)


def interrupted(*_args: object, **_more: object) -> None:
    raise KeyboardInterrupt


def test_another_service_key_that_nobody_recorded(run: Run, kept: Path, tmp_path: Path) -> None:
    add = ("records", "add-producer", kept, "shop", "--key", tmp_path / "shop.key")
    assert run(*add).code == 0
    (kept / "keys/service.key").unlink()
    stranger = Signer.generate("log", Algorithm.ED25519)
    save_signer(kept / "keys/service.key", stranger, passphrase=None)
    result = run("records", "add-producer", kept, "till", "--key", tmp_path / "till.key")
    assert result.code == 1
    assert "the log's own records cannot be signed" in result.err


def test_event_types_of_the_tenants_own(run: Run, kept: Path, tmp_path: Path) -> None:
    key = tmp_path / "shop.key"
    assert run("records", "add-producer", kept, "shop", "--key", key).code == 0
    text = """version = 1
    [types."order.placed"]
    retention = "access"
    required = ["request_id"]
    """
    (kept / "own.toml").write_text(text)
    catalogue = load_catalogue(kept / "own.toml")
    event = sign_event(
        Draft("order.placed", {"request_id": "O-1"}, {}),
        load_signer(key, passphrase=None),
        tenant="acme",
        seq=1,
        catalogue=catalogue,
    )

    async def accept() -> Recorded | EventRefused:
        async with Log.opened(kept) as log, recording(kept, log, passphrase=None) as records:
            (outcome,) = await records.accept([event])
            return outcome

    refused = asyncio.run(accept())
    assert isinstance(refused, EventRefused)
    assert refused.field == "type"
    with (kept / "records.toml").open("a") as file:
        file.write('catalogue = "own.toml"\n')
    assert asyncio.run(accept()) == Recorded(1)
