"""`tlog evidence`: from a server in a process of its own to a file that verifies."""

from __future__ import annotations

import asyncio
import json
import os
import pty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.audit.producer import received, signed, signer_of
from tests.cli.conftest import Run
from tests.client.audit_server import until
from tests.support import running_server
from tlog.audit import Draft
from tlog.audit.evidence_file import read_package
from tlog.audit.tenancy import recording
from tlog.client import Client, MemoryState, VerificationError
from tlog.log import Log, LogConfig, create_log

SHOP = signer_of("shop", 1)


@dataclass(frozen=True, slots=True)
class Kept:
    """A records log that is served, and what its verifier knows."""

    directory: Path
    service: str
    policy: Path


async def _fill(directory: Path) -> None:
    about = {"about_producer": "shop", "vkey": str(SHOP.vkey), "roles": ["recorder"]}
    async with (
        Log.opened(directory) as log,
        recording(directory, log, passphrase=None) as records,
    ):
        await records.record(Draft("producer.registered", about, {}))
        done = Draft("request.fulfilled", {"request_id": "R-1"}, {"actor": "eve"})
        await records.accept([signed(received()), signed(done, 2)])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kept, str]]:
    """A server with a request of two records."""
    from tlog.audit.tenancy import RecordsConfig, create_records

    directory = tmp_path_factory.mktemp("kept") / "records"
    config = LogConfig(origin="example.com/records", name="records", checkpoint_interval=0.05)
    vkeys = create_log(directory, config)
    service = create_records(directory, RecordsConfig(tenant="acme"), passphrase=None)
    asyncio.run(_fill(directory))
    policy = directory.parent / "policy"
    policy.write_text("".join(f"log {vkey}\n" for vkey in vkeys) + "quorum none\n")
    with running_server(directory) as server:
        yield Kept(directory, str(service), policy), server.target


@pytest.fixture
def served(kept: tuple[Kept, str], monkeypatch: pytest.MonkeyPatch) -> Kept:
    """As the environment of the command says."""
    monkeypatch.setenv("TLOG_SERVER", kept[1])
    monkeypatch.setenv("TLOG_POLICY", str(kept[0].policy))
    return kept[0]


def test_a_case_from_the_server_to_the_verdict(run: Run, served: Kept, tmp_path: Path) -> None:
    file = tmp_path / "case.zip"
    words = ("--request", "R-1", "--disclose", "actor", "--disclose", "subject.id")
    more = ("--recipient", "Agency", "--purpose", "complaint 7")
    result = run("evidence", *words, *more, "-o", file)
    assert (result.code, result.out.startswith(f"{file}: 2 records, 3 claims dis".encode())) == (
        0, True,
    ), result.err  # fmt: skip
    assert result.err == f"Verify it with: tlog verify {file} --policy POLICY\n"
    assert file.stat().st_mode & 0o777 == 0o600
    verdict = run("verify", "--service-key", served.service, file)
    assert verdict.code == 0, verdict.err
    text = verdict.out.decode()
    assert 'disclosed of all subjects: actor: {"id": "eve", "ip": "192.0.2.1"}' in text
    assert "disclosed of subject 1: id: alice@example.com" in text
    assert "hidden of subject 1: at most 1 claims" in text
    assert "verified: 2 records of example.com/records" in text


def test_a_client_holds_a_package_against_what_it_has_seen(
    run: Run, served: Kept, kept: tuple[Kept, str], tmp_path: Path
) -> None:
    file = tmp_path / "case.zip"
    words = ("evidence", "--entry", 1, "--purpose", "audit", "-o", file)
    assert run(*words).code == 0
    old = file.read_bytes()
    policy = served.policy.read_bytes()
    with Client(kept[1], policy=policy, state=MemoryState()) as client:
        size = read_package(old).contents.tree_size
        until(lambda: client.checkpoint().size > size)
        # It has seen a later head, and has the server prove that the old one came before.
        assert run(*words, "--force").code == 0
        new = client.evidence(file.read_bytes(), service=served.service)
        assert client.evidence(old).head.checkpoint.size < new.head.checkpoint.size
        assert (new.service_known, len(new.chosen())) == (True, 1)
        with pytest.raises(VerificationError, match="evidence check failed"):
            client.evidence(old[:-1])


def test_json_and_what_is_not_there(run: Run, served: Kept, tmp_path: Path) -> None:
    file = tmp_path / "case.zip"
    words = ("--entry", 1, "--disclose", "nickname", "--recipient", "Us", "--purpose", "audit")
    told = json.loads(run("evidence", *words, "--json", "-o", file).out)
    assert (told["records"], told["disclosed"], told["claims_disclosed"]) == (1, [], 0)
    assert told["bytes"] == file.stat().st_size
    result = run("evidence", *words, "--force", "-o", file)
    assert "Nothing called nickname is disclosed: there is none, or it is gone." in result.err
    whose = ("--subject", "alice@example.com", "--disclose", "all", "--recipient", "Us")
    more = ("--purpose", "audit", "-o", tmp_path / "alice.zip", "--json")
    everything = run("evidence", *whose, *more)
    told = json.loads(everything.out)
    assert {"actor", "details", "subject.id", "subject.name"} <= set(told["disclosed"])


def test_no_file_is_written_over_or_half_written(
    run: Run, served: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "case.zip"
    file.write_bytes(b"precious")
    words = ("evidence", "--request", "R-1", "--purpose", "audit", "-o", file)
    result = run(*words)
    assert (result.code, result.out) == (1, b"")
    assert "is there already" in result.err
    for wrong in (("--request", "R-9"), ("--recipient", "dan@example.com")):
        assert run(*words, *wrong, "--force").code == 1
        assert file.read_bytes() == b"precious"
    # A server that is not the log's is not believed.
    other = signer_of("example.com/records", 5).vkey
    monkeypatch.delenv("TLOG_POLICY")
    result = run(*words, "--force", "--vkey", other)
    assert result.code == 3
    assert file.read_bytes() == b"precious"
    assert [each.name for each in tmp_path.iterdir() if each.name != "state"] == ["case.zip"]


def test_usage(run: Run, served: Kept, tmp_path: Path) -> None:
    file = ("-o", tmp_path / "case.zip")
    purpose = ("--purpose", "audit")
    assert "evidence of what?" in run("evidence", *purpose, *file).err
    both = run("evidence", *purpose, *file, "--subject", "a", "--entry", 1)
    assert (both.code, "not both" in both.err) == (2, True)
    none = run("evidence", *purpose, *file, "--entry", 1, "--disclose", "none", "--disclose", "a")
    assert (none.code, "and something else" in none.err) == (2, True)
    for shown in ("actor", "all"):
        unnamed = run("evidence", *purpose, *file, "--entry", 1, "--disclose", shown)
        assert (unnamed.code, "who gets it? Give --recipient" in unnamed.err) == (2, True)
    result = run("evidence", "--request", "R-1", *purpose)
    assert (result.code, "-o" in result.err) == (2, True)
    assert not list(tmp_path.glob("*.zip"))


def test_a_purpose_from_the_environment_or_asked_for(
    run: Run, served: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evidence", "--request", "R-1", "-o", tmp_path / "case.zip", "--force")
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        result = run(*words)
        assert (result.code, "what for? Give --purpose" in result.err) == (2, True)
        monkeypatch.setenv("TLOG_PURPOSE", "audit")
        assert run(*words).code == 0
    monkeypatch.delenv("TLOG_PURPOSE")
    master, slave = pty.openpty()
    with os.fdopen(master, "w") as keys, os.fdopen(slave) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        keys.write("complaint 8\n")
        keys.flush()
        result = run(*words)
    assert (result.code, "What for" in result.err) == (0, True)
