"""The memory between runs: trust on first use, pinned keys, damage, and two processes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.servers import World
from tests.client.servers import world as running
from tlog.client import (
    AsyncClient,
    FileState,
    MemoryState,
    Record,
    StateError,
    TrustError,
    VerificationError,
    default_path,
)
from tlog.client import state as state_module
from tlog.notes import Algorithm, Signer


async def test_no_key_at_all(world: World) -> None:
    async with world.client(vkeys=None) as client:
        with pytest.raises(TrustError, match="vkeys.*trust_on_first_use"):
            await client.checkpoint()
        with pytest.raises(TrustError):
            await client.append(b"entry", wait="published")
        assert (await client.list_logs())[0].name == "log"
    assert world.log.sequencer.edge.size == 0


async def test_trust_on_first_use_is_kept(world: World, tmp_path: Path) -> None:
    head = await world.append([b"entry"])
    async with AsyncClient(world.target, trust_on_first_use=True) as client:
        assert await client.checkpoint() == head
    path = default_path(world.target, "")
    assert path.parent == tmp_path / "state" / "tlog"
    assert FileState(path).load() == Record(world.vkeys, head)
    assert path.stat().st_mode & 0o77 == 0
    async with AsyncClient(world.target) as client:
        assert await client.checkpoint() == head


async def test_another_log_under_the_same_address(world: World, tmp_path: Path) -> None:
    async with AsyncClient(world.target, trust_on_first_use=True, state=tmp_path / "s") as client:
        await client.checkpoint()
    before = (tmp_path / "s").read_bytes()
    async with running(tmp_path / "again") as other:
        target = other.target
        async with AsyncClient(target, trust_on_first_use=True, state=tmp_path / "s") as client:
            with pytest.raises(TrustError, match=f"remove {tmp_path / 's'}"):
                await client.checkpoint()
        async with AsyncClient(target, vkeys=other.vkeys, state=tmp_path / "s") as client:
            with pytest.raises(TrustError, match="not those that were pinned"):
                await client.checkpoint()
        async with AsyncClient(target, state=tmp_path / "s") as client:
            with pytest.raises(VerificationError, match="signature"):
                await client.checkpoint()
    assert (tmp_path / "s").read_bytes() == before


async def test_first_use_wants_a_name(world: World) -> None:
    async with world.client(vkeys=None, trust_on_first_use=True, log="nope") as client:
        with pytest.raises(TrustError, match="which log.*: log"):
            await client.checkpoint()


async def test_pinning_more_and_fewer_keys(world: World) -> None:
    state = MemoryState()
    for count, vkeys in ((1, world.vkeys[:1]), (2, world.vkeys), (1, world.vkeys[1:])):
        head = await world.append([b"entry"])
        async with world.client(state, vkeys=vkeys) as client:
            assert await client.checkpoint() == head
        assert state.load() == Record(vkeys, head)
        assert len(vkeys) == count


def test_bad_keys() -> None:
    key = Signer.generate("a", Algorithm.ED25519).vkey
    other = Signer.generate("b", Algorithm.ED25519).vkey
    witness = Signer.generate("w", Algorithm.ED25519_COSIGNATURE).vkey
    for vkeys in ([], ["nonsense"], [key, other], [str(witness)], [str(key)[:-1]]):
        with pytest.raises(TrustError):
            AsyncClient("127.0.0.1:1", vkeys=vkeys)


async def test_every_kind_of_damage(world: World, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    await world.append([b"entry"])
    async with AsyncClient(world.target, vkeys=world.vkeys, state=path) as client:
        await client.checkpoint()
    good = path.read_bytes()
    fields = json.loads(good)
    cases = [
        b"",
        b"garbage",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b" " * (2 << 20),
        good[:-10],
        json.dumps(fields | {"vkeys": []}).encode(),
        json.dumps(fields | {"vkeys": [1]}).encode(),
        json.dumps(fields | {"vkeys": "x"}).encode(),
        json.dumps(fields | {"head": 5}).encode(),
        json.dumps(fields | {"head": fields["head"].replace("\n1\n", "\n0\n")}).encode(),
        json.dumps(fields | {"format": "2"}).encode(),
        json.dumps({"format": fields["format"]}).encode(),
    ]
    note = good.index(b'"head"')
    cases += [
        good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        for place in range(note, len(good) - 4, 97)
    ]
    for case in cases:
        path.write_bytes(case)
        async with AsyncClient(world.target, vkeys=world.vkeys, state=path) as client:
            with pytest.raises(StateError, match="damaged.*restore it"):
                await client.checkpoint()
        assert path.read_bytes() == case
    path.unlink()
    path.mkdir()
    async with AsyncClient(world.target, vkeys=world.vkeys, state=path) as client:
        with pytest.raises(StateError, match="cannot be read"):
            await client.checkpoint()


async def test_a_rollback_is_found_after_a_restart_of_the_client(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "state.json"
    head = await world.append([b"entry"] * 10)
    async with AsyncClient(world.target, vkeys=world.vkeys, state=path) as client:
        await client.checkpoint()
    before = path.read_bytes()
    copied = tmp_path / "other"
    (copied / "keys").mkdir(parents=True)
    # The same keys over an emptied log: what an old backup looks like from outside.
    from tlog.log import LogConfig
    from tlog.notes import save_signer
    from tlog.store import RocksStore

    for signer, name in zip(world.signers, ("ed25519.key", "mldsa44.key"), strict=True):
        save_signer(copied / "keys" / name, signer, passphrase=None)
    RocksStore.create(copied).close()
    LogConfig(origin=world.log.origin, name="log", checkpoint_interval=0).save(copied)
    async with running(copied) as rolled_back:
        for count in (0, 5, 4, 1, 5):
            if count:
                await rolled_back.append([b"other"] * count)
            async with AsyncClient(
                rolled_back.target, vkeys=world.vkeys, state=path, timeout=3
            ) as client:
                size = rolled_back.log.published.size
                with pytest.raises(VerificationError) as caught:
                    await client.checkpoint()
                with pytest.raises(VerificationError):
                    await anext(client.watch())
            checks = {0: "rollback", 5: "rollback", 9: "rollback", 10: "fork", 15: "consistency"}
            assert caught.value.check == checks[size]
            assert caught.value.evidence[0] == head.note
    assert path.read_bytes() == before


async def test_two_clients_on_one_file(world: World, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with (
        AsyncClient(world.target, vkeys=world.vkeys, state=path) as one,
        AsyncClient(world.target, vkeys=world.vkeys, state=path) as two,
    ):
        for _ in range(10):
            head = await world.append([b"entry"])
            both = await asyncio.gather(one.checkpoint(), two.checkpoint())
            assert set(both) == {head}
            assert FileState(path).load() == Record(world.vkeys, head)


async def test_a_late_process_takes_over_what_another_saw(world: World) -> None:
    state = MemoryState()
    old = await world.append([b"entry"])
    async with world.client(state) as late:
        await late.checkpoint()
        middle = await world.append([b"entry"])
        newest = await world.append([b"entry"])
        async with world.client(state, honest=True) as fast:
            assert await fast.checkpoint() == newest

        def older(_: object, truth: object) -> object:
            truth.checkpoint.note = middle.note  # type: ignore[attr-defined]
            return truth

        world.lies["GetCheckpoint"] = older  # type: ignore[assignment]
        assert (await late.checkpoint()).size == newest.size
    assert old.size < middle.size
    assert state.load() == world.record(newest)


async def test_a_fork_between_two_processes(world: World) -> None:
    """Two processes were shown two histories: the second to write finds out."""
    state = MemoryState()
    await world.append([b"entry"])
    async with world.client(state) as client:
        await client.checkpoint()
        head = await world.append([b"entry"])
        from tlog.client import Head
        from tlog.client.verification import open_head

        forked: Head = open_head(world.sign(5, bytes(32)).note, world.vkeys)
        assert state.swap(state.load(), world.record(forked))
        with pytest.raises(VerificationError) as caught:
            await client.checkpoint()
        assert set(caught.value.evidence) == {forked.note, head.note}
    assert state.load() == world.record(forked)


RACE = """
import sys
from pathlib import Path
from tlog.client import FileState, Record
from tlog.client.verification import open_head, parse_vkeys
from tlog.notes import Algorithm, Checkpoint, Signer, sign_checkpoint
path, step = Path(sys.argv[1]), int(sys.argv[2])
signer = Signer.from_seed("race", Algorithm.ED25519, bytes(32))
state = FileState(path)
won = 0
while won < 40:
    old = state.load()
    size = 0 if old is None else old.head.size
    note = sign_checkpoint(Checkpoint("race", size + 1, bytes(32)), [signer], timestamp=1)
    won += state.swap(old, Record((signer.vkey,), open_head(note, [signer.vkey])))
"""


def test_processes_racing_on_one_file(tmp_path: Path) -> None:
    """Each adds one to the size, forty times: a lost update would show in the sum."""
    path = tmp_path / "state.json"
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(path), str(number)])
        for number in range(3)
    ]
    assert [racer.wait(60) for racer in racers] == [0, 0, 0]
    record = FileState(path).load()
    assert record is not None
    assert record.head is not None
    assert record.head.size == 120
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.json", "state.json.lock"]


def test_a_lock_that_is_never_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "LOCK_PATIENCE", 0.05)
    vkey = Signer.generate("a", Algorithm.ED25519).vkey
    with (tmp_path / "s.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="locked by another process"):
            FileState(tmp_path / "s").swap(None, Record((vkey,)))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    vkey = Signer.generate("a", Algorithm.ED25519).vkey
    with pytest.raises(StateError, match="cannot be written"):
        FileState(tmp_path / "file" / "s").swap(None, Record((vkey,)))


def test_default_paths_differ() -> None:
    names = [default_path(*pair) for pair in (("a:1", ""), ("a", ":1"), ("a:1", "b"), ("a_1", ""))]
    assert len(set(names)) == 4
    assert default_path("../../etc/passwd", "\0/").parent.name == "tlog"
