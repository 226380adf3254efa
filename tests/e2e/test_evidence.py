"""A case from the application to the regulator, and through an erasure, with real processes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx

from tests.audit.approvers import CISO, DPO
from tests.audit.authority import Station, settings_of
from tests.audit.producer import ALICE, SHOP, TENANT
from tests.audit.tenant import registration
from tests.e2e.processes import ROOT, Served, Terminal
from tests.e2e.test_witnessed import scene
from tlog.audit.tenancy import RecordsConfig, create_records, recording
from tlog.client import Producer
from tlog.log import Log
from tlog.notes import save_signer
from tlog.remote import connections

REQUEST: dict[str, Any] = {"request_id": "R-1", "request_type": "delete", "channel": "webform"}


async def run(terminal: Terminal, *words: str | Path) -> str:
    done = await asyncio.to_thread(terminal.run, *words)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def register(at: Path) -> None:
    """A shop that may record, and two approvers."""
    async with (
        connections() as connect,
        Log.opened(at / "mylog", connect=connect) as log,
        recording(at / "mylog", log, passphrase=None) as records,
    ):
        for signer, role in ((SHOP, "recorder"), (DPO, "approver"), (CISO, "approver")):
            save_signer(at / f"{signer.vkey.name}.key", signer, passphrase=None)
            await records.record(registration(signer, role))


def record(at: Path, server: Served) -> None:
    """What an application does."""
    with Producer(server.grpc, key=at / "shop.key", tenant=TENANT, spool=at / "spool") as shop:
        note: dict[str, Any] = {"details": {"note": "by post"}, "actor": "mallory"}
        shop.record("request.received", subject=ALICE, **REQUEST, **note)
        shop.record("access.export", subject=ALICE, purpose="R-1", request_id="R-1", actor="bob")
        shop.record("request.fulfilled", request_id="R-1", response="sent")
        assert shop.flush(20), shop.problem


async def stamped(server: Served, size: int) -> None:
    """Until both authorities have stamped a head of that size."""
    name = re.compile(r'tlog_stamp_stamped_size{authority="(one|two)",log="mylog"} (.+)')
    async with asyncio.timeout(30), httpx.AsyncClient() as client:
        while True:
            text = (await client.get(f"{server.http}/metrics")).text
            found = [float(size) for _, size in name.findall(text)]
            if len(found) == 2 and min(found) >= size:
                return
            await asyncio.sleep(0.05)


async def test_a_case_goes_to_the_regulator_and_its_subject_is_erased(terminal: Terminal) -> None:
    at = terminal.directory
    one, two = (Station(at / name, name=name) for name in ("one", "two"))
    async with scene(terminal) as it, one.serving(), two.serving():
        service = create_records(at / "mylog", RecordsConfig(tenant=TENANT), passphrase=None)
        await register(at)
        (at / "mylog" / "timestamps.toml").write_text(settings_of(one, two, interval=0.1))
        policy = ("--policy", "mylog/policy")
        async with it.serving() as server:
            await asyncio.to_thread(record, at, server)
            await stamped(server, 6)
            more = ("--recipient", "Agency", "--purpose", "complaint 7")
            words = ("--request", "R-1", "--disclose", "actor", *more)
            said = await run(terminal, "evidence", *words, "-o", "case.zip", "--json", *policy)
            assert json.loads(said).items() >= {"records": 3, "disclosed": ["actor"]}.items()
            order = ("--subject", ALICE, "--request", "R-1", "--reason", "asked")
            keys = ("--key", "dpo.key", "--key", "ciso.key")
            erased = json.loads(await run(terminal, "erase", *order, *keys, "--json"))["index"]
            words = ("--request", "R-1", "--disclose", "all", *more)
            await run(terminal, "evidence", *words, "-o", "after.zip", *policy)
    # Offline: whoever verifies has the policy, the key and the root from where he trusts them.
    for variable in ("TLOG_SERVER", "TLOG_VKEY"):
        terminal.environment.pop(variable, None)
    roots = ("--tsa-root", "one/root.pem", "--tsa-root", "two/root.pem")
    trust = (*policy, "--service-key", str(service), *roots)
    case = await run(terminal, "verify", *trust, "case.zip")
    assert case.count("proven: in the tree; signed with the key shop+") == 3
    assert case.count("below a root of yours") == 6
    assert "disclosed of all subjects: actor: mallory" in case
    assert case.count(" at 20") >= 2  # cosigned by two witnesses
    assert "NOT proven: completeness" in case
    after = await run(terminal, "verify", *trust, "after.zip", "--json")
    records = {each["entry"]: each for each in map(json.loads, after.splitlines()[:-1])}
    # The request's own record of who was given what; and its erasure is one of its records, too.
    types = [each["type"] for each in records.values()]
    assert types == [
        "request.received", "access.export", "request.fulfilled", "log.exported",
        "subject.key_destroyed",
    ]  # fmt: skip
    for each in list(records.values())[:2]:
        assert [part["erased_at"] for part in each["parts"]] == [erased] * 2
        assert [part["erased_under"] for part in each["parts"]] == ["R-1"] * 2
        assert [part["ordered_by"] for part in each["parts"]] == [["ciso", "dpo"]] * 2
    members = ZipFile(BytesIO((at / "after.zip").read_bytes()))
    for name in members.namelist():
        data = members.read(name)
        assert not [word for word in (b"alice", b"by post", b"mallory") if word in data]
    _by_other_means(at, members, "one/root.pem")


def _by_other_means(at: Path, members: ZipFile, root: str) -> None:
    """openssl, and the verifier of a few hundred lines."""
    members.extractall(at / "unpacked")
    stamp = next((at / "unpacked/timestamps/one").glob("*.tsr"))
    command: list[str | Path] = [
        "openssl",
        "ts",
        "-verify",
        "-data",
        stamp.with_suffix(".note"),
        "-in",
        stamp,
    ]
    certificates = at / "unpacked/timestamps/one/certificates.pem"
    command += ["-CAfile", at / root, "-untrusted", certificates]
    done = subprocess.run(command, capture_output=True, check=False)
    assert b"Verification: OK" in done.stdout + done.stderr
    for proof in (at / "unpacked").rglob("proof.tlog-proof"):
        words: list[str | Path] = [
            "--policy",
            at / "mylog/policy",
            proof,
            proof.with_name("leaf.json"),
        ]
        done = subprocess.run(
            ["python3", ROOT / "tools/verify.py", *words], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
