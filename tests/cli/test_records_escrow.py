"""`tlog records escrow` and `recover`: a tenant key is lost, and what it sealed is read again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.cli.conftest import Result, Run
from tests.support import running_server
from tlog.audit import AuditError, default_catalogue, tenant_key
from tlog.audit.escrow import key_check
from tlog.audit.tenancy import RecordsConfig, create_records, recording
from tlog.cli import main
from tlog.client import Producer
from tlog.log import Log, LogConfig, create_log

ALICE = "alice@example.com"
SECRET = "lives at 7 Elm Street"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A records log without producers."""
    return records_log(tmp_path / "log")


def records_log(directory: Path, origin: str = "example.com/log", **settings: Any) -> Path:
    create_log(directory, LogConfig(origin=origin, name="log"))
    wrapped = settings.pop("wrapped", b"")
    config = RecordsConfig(**{"tenant": "acme", **settings})
    create_records(directory, config, passphrase=None, wrapped=wrapped)
    return directory


def split(run: Run, directory: Path, output: Path, *words: object) -> list[Path]:
    """The files of the shares of its key."""
    result = run("records", "escrow", directory, "-o", output, "--json", *map(str, words))
    assert (result.code, result.err) == (0, ""), result.err
    return [Path(each) for each in json.loads(result.out)["shares"]]


def own_records(directory: Path) -> list[dict[str, Any]]:
    """What the log says, in the clear."""

    async def read() -> list[dict[str, Any]]:
        async with Log.opened(directory) as log, recording(directory, log, passphrase=None) as kept:
            size = log.sequencer.edge.size
            return [dict(kept.read(index).payload) for index in range(size)]

    return asyncio.run(read())


def refused(result: Result, code: int = 1) -> str:
    """What it said, in one line."""
    assert (result.code, result.out) == (code, b"")
    assert result.err.count("\n") == 1
    return result.err


def test_a_key_is_lost_and_what_it_sealed_is_read_again(
    run: Run, kept: Path, tmp_path: Path
) -> None:
    shop = tmp_path / "shop.key"
    assert run("records", "add-producer", kept, "shop", "--key", shop).code == 0
    with running_server(kept) as server:
        with Producer(server.target, key=shop, tenant="acme", spool=tmp_path / "spool") as producer:
            producer.record("access.read", subject=ALICE, purpose="support", details=SECRET)
            assert producer.flush(30), producer.problem
        assert server.stop() == 0
    one, _, three, _, five = split(run, kept, tmp_path / "shares")
    key_file = kept / "keys/tenant.key"
    key = key_file.read_bytes()
    key_file.unlink()
    for verb in (("serve", kept), ("records", "escrow", kept, "-o", tmp_path / "again")):
        said = refused(run(*verb))
        assert f"tenant key {key_file} is missing" in said
        assert "tlog records recover" in said
    structlog.reset_defaults()
    result = run("records", "recover", kept, five, one, three)
    assert result.code == 0, result.err
    assert key_check(key).encode() in result.out
    assert f"Next: tlog serve {kept}" in result.err
    assert key_file.read_bytes() == key
    assert key_file.stat().st_mode & 0o777 == 0o600
    with running_server(kept) as server:
        words = ("--subject", ALICE, "--purpose", "audit", "--server", server.target)
        assert SECRET in run("records", *words).out.decode()


def test_the_shares_are_private_and_the_log_says_that_they_were_made(
    run: Run, kept: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "shares"
    key = (kept / "keys/tenant.key").read_bytes()
    result = run("records", "escrow", kept, "--shares", 3, "--threshold", 2, "-o", output)
    assert result.code == 0, result.err
    assert b"any 2 of them give the tenant key back" in result.out
    assert f"Entry 0 records it, with the check value {key_check(key)}" in result.err
    assert f"remove {output}" in result.err
    assert output.stat().st_mode & 0o777 == 0o700
    files = sorted(output.iterdir())
    assert [file.name for file in files] == [f"acme-share-{n}-of-3.txt" for n in (1, 2, 3)]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    (record,) = own_records(kept)
    assert record["type"] == "log.tenant_key_escrowed"
    told = {name: record[name] for name in ("key_check", "escrow_shares", "escrow_threshold")}
    assert told == {"key_check": key_check(key), "escrow_shares": 3, "escrow_threshold": 2}
    assert told.keys() == record.keys() - default_catalogue().envelope[0] - {"_sd_alg"}
    for file in files:
        assert f"check: {key_check(key)}\n" in file.read_text()


def test_both_by_default_and_again(
    run: Run, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = iter((7, 8))
    monkeypatch.setattr("shamir_mnemonic.shamir._random_identifier", lambda: next(sets))
    first = split(run, kept, tmp_path / "first")
    second = split(run, kept, tmp_path / "second")
    assert (len(first), len(second), len(own_records(kept))) == (5, 5, 2)
    (kept / "keys/tenant.key").rename(tmp_path / "old.key")
    said = refused(run("records", "recover", kept, first[0], second[1], second[2]))
    assert f"{second[1]} is of set 8, {first[0]} of set 7: " in said
    assert run("records", "recover", kept, *first[2:]).code == 0
    (kept / "keys/tenant.key").unlink()
    assert run("records", "recover", kept, *second).code == 0
    assert (kept / "keys/tenant.key").read_bytes() == (tmp_path / "old.key").read_bytes()


@pytest.fixture
def unwrapped(tmp_path: Path) -> Path:
    """A log whose key a command gives: what is in the file, with its letters moved on."""
    return records_log(
        tmp_path / "log", tenant_key_command=("tr", "a-z", "b-za"), wrapped=b"abcxyz01" * 4
    )


def test_a_key_that_a_kms_gives(run: Run, unwrapped: Path, tmp_path: Path) -> None:
    key_file, raw = unwrapped / "keys/tenant.key", tmp_path / "raw"
    shares = split(run, unwrapped, tmp_path / "shares", "--shares", 2, "--threshold", 2)
    assert run("records", "recover", unwrapped, *shares, "-o", raw).code == 0
    assert raw.read_bytes() == b"bcdyza01" * 4
    assert raw.stat().st_mode & 0o777 == 0o600
    key_file.unlink()  # what was wrapped, and with it all
    assert "put it back from a copy" in refused(run("serve", unwrapped))
    structlog.reset_defaults()
    said = refused(run("records", "recover", unwrapped, *shares))
    assert "tr gives the tenant key: write it to a file with -o FILE" in said
    assert not key_file.exists()
    result = run("records", "recover", unwrapped, *shares, "-o", tmp_path / "again")
    assert result.code == 0
    assert f"Destroy {tmp_path / 'again'}" in result.err
    # Another KMS wraps it anew; or none does any more.
    settings = (unwrapped / "records.toml").read_text()
    for command, content in (('["tr", "A", "b"]', b"Acdyza01" * 4), (None, raw.read_bytes())):
        line = f"tenant_key_command = {command}" if command else ""
        old = 'tenant_key_command = ["tr", "a-z", "b-za"]'
        assert old in settings
        (unwrapped / "records.toml").write_text(settings.replace(old, line))
        if command:
            tenant_key.create_tenant_key(key_file, content)
        else:
            key_file.unlink()
            assert run("records", "recover", unwrapped, *shares).code == 0
            assert key_file.read_bytes() == content
        assert own_records(unwrapped)[0]["type"] == "log.tenant_key_escrowed"


def test_shares_are_tried_while_the_key_is_there(run: Run, kept: Path, tmp_path: Path) -> None:
    shares = split(run, kept, tmp_path / "shares")
    key = (kept / "keys/tenant.key").read_bytes()
    for words in ((), ("-o", shares[0])):
        assert "exists: a key is never overwritten. Move it away first" in refused(
            run("records", "recover", kept, *shares[:3], *words)
        )
    assert run("records", "recover", kept, *shares[1:4], "-o", tmp_path / "tried").code == 0
    assert (tmp_path / "tried").read_bytes() == (kept / "keys/tenant.key").read_bytes() == key
    assert shares[0].read_text().startswith("tlog: one share")


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Path]]]:
    """A records log that has lost its key, and the shares of that: any three of five."""
    at = tmp_path_factory.mktemp("lost")
    log = records_log(at / "log")
    with pytest.raises(SystemExit) as ended:
        main(["records", "escrow", str(log), "-o", str(at / "shares")])
    assert not ended.value.code
    structlog.reset_defaults()
    (log / "keys/tenant.key").unlink()
    yield log, sorted((at / "shares").iterdir())
    assert not (log / "keys/tenant.key").exists()


def test_too_few_shares(run: Run, lost: tuple[Path, list[Path]]) -> None:
    log, shares = lost
    said = refused(run("records", "recover", log, shares[0], shares[1], shares[0]))
    assert "2 of the 3 shares that it takes: bring 1 more of set " in said
    assert run("records", "recover", log).code == 2
    assert run("records", "recover", log, log / "none.txt").code == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 words"),
        (bytes(range(256)), "word 1, "),
        (b"\xff\xfe" + "academic".encode("utf-16-le"), "word 1, "),
        (b"academic " * 33, "a word is wrong, or not in its place"),
        (b"academic " * 9999, "has more than 16384 bytes"),
        (b"tenant: other\nwords:\n", "0 words"),
        (None, "a share of the tenant other, not of acme"),
    ],
)
def test_a_share_that_is_none_is_named(
    run: Run, lost: tuple[Path, list[Path]], tmp_path: Path, content: bytes | None, said: str
) -> None:
    log, shares = lost
    if content is None:
        content = shares[1].read_bytes().replace(b"tenant: acme", b"tenant: other")
    (tmp_path / "bad.txt").write_bytes(content)
    line = refused(run("records", "recover", log, shares[0], tmp_path / "bad.txt", shares[2]))
    assert f"{tmp_path / 'bad.txt'}" in line
    assert said in line


def test_words_alone_in_whatever_file(
    run: Run, lost: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    log, shares = lost
    brought = []
    for number, share in enumerate(shares[:3]):
        words = share.read_text().split("words:\n")[1].upper()
        brought.append(tmp_path / f"{number}.txt")
        brought[-1].write_bytes(b"\xef\xbb\xbf" + words.replace("\n", "\r\n").encode())
        brought[-1].chmod(0o644)
    assert run("records", "recover", log, *brought, "-o", tmp_path / "key").code == 0
    assert len((tmp_path / "key").read_bytes()) == 32


def test_a_key_that_does_not_open_the_vault_is_not_put_there(
    run: Run, lost: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    log, _ = lost
    # The same tenant, the same log, and all else, as far as shares tell; made anew.
    other = split(run, records_log(tmp_path / "other"), tmp_path / "shares")
    for words in ((), ("-o", tmp_path / "key")):
        said = refused(run("records", "recover", log, *other, *words))
        assert f"{log / 'vault'}: a key does not unwrap: the tenant key is another one" in said
    assert not (tmp_path / "key").exists()
    foreign = split(run, records_log(tmp_path / "third", "example.com/3"), tmp_path / "foreign")
    said = refused(run("records", "recover", log, *foreign))
    assert f"{foreign[0]}: a share of the log example.com/3, not of example.com/log" in said


def test_what_is_no_records_log(run: Run, tmp_path: Path) -> None:
    create_log(tmp_path / "log", LogConfig(origin="example.com/log", name="log"))
    (tmp_path / "share").write_text("academic")
    for directory, said in (
        (tmp_path / "none", "holds no log"),
        (tmp_path / "log", "records init"),
    ):
        assert said in refused(run("records", "recover", directory, tmp_path / "share"))
        assert said in refused(run("records", "escrow", directory, "-o", tmp_path / "shares"))
    assert not (tmp_path / "shares").exists()


def test_escrows_that_are_refused_leave_nothing(run: Run, kept: Path, tmp_path: Path) -> None:
    output = tmp_path / "shares"

    def escrow(*words: object, code: int = 1) -> str:
        said = refused(run("records", "escrow", kept, *map(str, words)), code)
        assert not output.exists()
        return said

    said = escrow("-o", output, "--shares", 3, "--threshold", 4)
    assert "threshold: 4 of 3: a threshold is at least 2 and at most the number of shares" in said
    for option, number in (("--shares", 17), ("--shares", 1), ("--threshold", 1)):
        assert "2<=x<=16" in escrow("-o", output, option, number, code=2)
    assert "copy of that would hold vault and key" in escrow("-o", kept / "shares")
    assert "copy of that would hold vault and key" in escrow("-o", kept / "keys/../new/shares")
    (tmp_path / "there").mkdir()
    for there in (tmp_path / "there", kept):
        assert "exists: shares go into a directory of their own" in escrow("-o", there)
    assert list((tmp_path / "there").iterdir()) == []
    with running_server(kept):
        assert "another tlog server has it open" in escrow("-o", output)
        (tmp_path / "share").write_text("academic")
    (kept / "keys/tenant.key").write_bytes(bytes(32))
    assert "the tenant key is another one" in escrow("-o", output)


def test_a_kms_that_gives_another_key(run: Run, unwrapped: Path, tmp_path: Path) -> None:
    """Once, and as everybody else gets it the right one: no shares are made of the wrong one."""
    script = f"if test -e {tmp_path}/asked; then tr a-z b-za; else touch {tmp_path}/asked; "
    settings = (unwrapped / "records.toml").read_text()
    command = json.dumps(["/bin/sh", "-c", f"{script}printf %032d 0; fi"])
    settings = settings.replace('["tr", "a-z", "b-za"]', command)
    (unwrapped / "records.toml").write_text(settings)
    said = refused(run("records", "escrow", unwrapped, "-o", tmp_path / "shares"))
    assert "the tenant key is another one" in said
    assert not (tmp_path / "shares").exists()
    assert own_records(unwrapped) == []
    assert len(split(run, unwrapped, tmp_path / "shares")) == 5


@pytest.mark.parametrize("fault", ["full", "damaged"])
def test_shares_that_cannot_be_written_go_again(
    run: Run, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    write = tenant_key.write_private
    written: list[Path] = []

    def failing(path: Path, data: bytes, *, what: str) -> None:
        written.append(path)
        if len(written) == 3 and fault == "full":
            raise AuditError(f"{what} {path} not written: No space left on device")
        write(path, data if len(written) != 3 else data[:-9] + b"\n", what=what)

    with monkeypatch.context() as patch:
        patch.setattr(tenant_key, "write_private", failing)
        said = refused(run("records", "escrow", kept, "-o", tmp_path / "shares"))
    assert f"{written[2]}" in said
    assert not (tmp_path / "shares").exists()
    # The record came first: of shares that are somewhere the log always knows.
    assert [each["type"] for each in own_records(kept)] == ["log.tenant_key_escrowed"]
    assert len(split(run, kept, tmp_path / "shares")) == 5
