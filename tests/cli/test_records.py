"""`tlog records`: what makes a records log, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tlog.audit.tenancy import recording
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
    assert (plain / "records.toml").read_text().splitlines()[1:] == ['tenant = "acme"']


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


@pytest.mark.parametrize("tenant", ["", "Acme", "a b", "x" * 64, "a\nb", "-a"])
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
