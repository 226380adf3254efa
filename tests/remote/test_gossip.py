"""Witnesses that gossip over gRPC: a split view is caught, whoever lies is not believed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tests.remote.witnesses import until
from tests.support import free_port
from tests.witness.support import SomeLog, flip, write_list
from tlog.log import Log, LogConfig, create_log
from tlog.notes import VerifierKey
from tlog.remote import (
    AddressError,
    RemoteError,
    RemoteRefusal,
    WitnessClient,
    gossip_connections,
)
from tlog.serve import Logs, grpc_server, http_server
from tlog.serve.handlers import generic_handler
from tlog.serve.witness_http import witness_http_server
from tlog.serve.witness_service import witness_grpc_server
from tlog.store.heads import HeadStore, Swap
from tlog.v1 import witness_pb2 as pb
from tlog.witness import (
    Conflict,
    ConflictKind,
    FreezeReason,
    Frozen,
    Node,
    Unprocessable,
    add_log,
    add_peer,
    create_witness,
    freeze,
    hash_origin,
    verify_conflict,
)
from tlog.witness.evidence import EvidenceStore
from tlog.witness.limits import MAX_RECEIVING

LOG, FORK = SomeLog(), SomeLog(forked_at=5)
VKEYS = [signer.vkey for signer in LOG.signers]


@dataclass
class Place:
    """A witness's directory, and where it is reached while it is served."""

    directory: Path
    port: int
    vkeys: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[Node]:
        async with (
            gossip_connections() as outward,
            Node.opened(self.directory, outward) as node,
            witness_grpc_server(node, f"127.0.0.1:{self.port}"),
        ):
            yield node

    def evidence(self) -> list[bytes]:
        return EvidenceStore(self.directory).files(LOG.origin)


def places(tmp_path: Path, count: int, *, interval: float = 3600) -> list[Place]:
    """Witnesses that know the log, and one another."""
    made = []
    for number in range(count):
        directory = tmp_path / f"w{number}"
        vkeys = create_witness(directory, name=f"witness.example/{number}")
        toml = directory / "witness.toml"
        toml.write_text(toml.read_text().replace("= 30.0", f"= {interval}"))
        write_list(directory, LOG)
        made.append(Place(directory, free_port(), tuple(map(str, vkeys))))
    for one in made:
        for number, other in enumerate(made):
            if other is not one:
                add_peer(one.directory, VerifierKey.parse(other.vkeys[number % 2]), other.url)
    return made


async def test_a_split_view_is_caught_and_no_witness_cosigns_the_log_again(tmp_path: Path) -> None:
    three = places(tmp_path, 3)
    async with contextlib.AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(place.served()) for place in three]
        await nodes[0].witness.add_checkpoint(*LOG.request(0, 9))
        await nodes[1].witness.add_checkpoint(*FORK.request(0, 9))
        for _ in range(2):
            for node in nodes:
                await node.gossip.round()
        for place, node in zip(three, nodes, strict=True):
            (data,) = node.evidence.listed()
            assert verify_conflict(data, VKEYS).kind is ConflictKind.SAME_SIZE
            assert place.evidence() == [data]
            assert node.gossip.silent == {}
            with pytest.raises(Frozen):
                await node.witness.add_checkpoint(*LOG.request(9, 10))
        client = WitnessClient(three[2].url)
        assert await client.conflicts() == nodes[2].evidence.listed()
        answer = await client.submit(LOG.note(10))
        assert answer.verdict == pb.HEAD_VERDICT_CONFLICT
        assert list(answer.conflicts) == nodes[2].evidence.listed()
        await client.aclose()
    # After a restart too; until the operator clears it, which a running witness sees.
    async with three[0].served() as node:
        with pytest.raises(Frozen):
            await node.witness.add_checkpoint(*LOG.request(9, 10))
        EvidenceStore(three[0].directory).clear(LOG.origin)
        node.witness.logs.refresh()
        assert await node.witness.add_checkpoint(*LOG.request(9, 10))
        assert node.evidence.listed() == []


async def test_rounds_come_by_themselves(tmp_path: Path) -> None:
    first, second = places(tmp_path, 2, interval=0.2)
    async with first.served() as one, second.served() as two:
        await one.witness.add_checkpoint(*LOG.request(0, 9))
        await two.witness.add_checkpoint(*FORK.request(0, 9))
        await until(lambda: one.evidence.listed() and two.evidence.listed())
        # A peer that goes away is missed, and found again.
    async with first.served() as one:
        await until(lambda: one.gossip.silent)
        assert list(one.gossip.silent) == ["witness.example/1"]
        async with second.served():
            await until(lambda: not one.gossip.silent)


async def test_evidence_counts_after_a_crash_before_the_log_was_frozen(tmp_path: Path) -> None:
    (place,) = places(tmp_path, 1)
    EvidenceStore(place.directory).keep(Conflict.between(LOG.note(9), FORK.note(9)))
    async with place.served() as node:
        with pytest.raises(Frozen):
            await node.witness.add_checkpoint(*LOG.request(0, 9))


async def test_a_log_that_was_cleared_is_caught_again_at_once(tmp_path: Path) -> None:
    """Not in the next round, which is when what is cleared is usually looked for."""
    (place,) = places(tmp_path, 1)
    async with place.served() as node:
        for size in (9, 10):
            await node.witness.add_checkpoint(*LOG.request(0 if size == 9 else 9, size))
            with pytest.raises(Unprocessable):
                await node.witness.add_checkpoint(size, [], FORK.note(size))
            with pytest.raises(Frozen):
                await node.witness.add_checkpoint(*LOG.request(size, size + 1))
            EvidenceStore(place.directory).clear(LOG.origin)
            node.witness.logs.refresh()


async def test_a_damaged_head_does_not_end_the_gossip(tmp_path: Path) -> None:
    (place,) = places(tmp_path, 1)
    async with place.served() as node:
        await node.witness.add_checkpoint(*LOG.request(0, 9))
    store = HeadStore.open(place.directory)
    key = hash_origin(LOG.origin)
    store.swap([Swap(key, store.get(key), b"damaged")])
    store.sync()
    store.close()
    async with place.served() as node:
        client = WitnessClient(place.url)
        assert (await client.submit(LOG.note(9))).verdict == pb.HEAD_VERDICT_NEW
        assert node.failure is None
        await client.aclose()


async def test_what_the_witness_refuses_becomes_evidence(tmp_path: Path) -> None:
    """The second head is submitted for a cosignature to a witness that has cosigned the first."""
    (place,) = places(tmp_path, 1)
    async with place.served() as node:
        await node.witness.add_checkpoint(*LOG.request(0, 9))
        with pytest.raises(Unprocessable):
            await node.witness.add_checkpoint(9, [], FORK.note(9))
        (data,) = place.evidence()
        verify_conflict(data, VKEYS)
        with pytest.raises(Frozen):
            await node.witness.add_checkpoint(*LOG.request(9, 10))
        log = node.witness.logs.find(LOG.origin)
        assert log is not None
        assert log.frozen is FreezeReason.CONFLICT


async def test_a_restarted_witness_remembers_what_it_cosigned(tmp_path: Path) -> None:
    (place,) = places(tmp_path, 1)
    async with place.served() as node:
        await node.witness.add_checkpoint(*LOG.request(0, 9))
    async with place.served() as node:
        await until(lambda: node.gossip.latest(LOG.origin))
        client = WitnessClient(place.url)
        answer = await client.submit(FORK.note(9))
        assert answer.verdict == pb.HEAD_VERDICT_CONFLICT
        await client.aclose()


@pytest.mark.parametrize("scheme", ["grpc", "http"])
async def test_heads_of_two_sizes_are_settled_by_the_log(tmp_path: Path, scheme: str) -> None:
    """A real log, asked for the proof at the URL that the operator gives while the witness runs."""
    (place,) = places(tmp_path, 1)
    vkeys = create_log(
        tmp_path / "log", LogConfig(origin="log.example/real", name="real", checkpoint_interval=0)
    )
    async with contextlib.AsyncExitStack() as stack:
        log = await stack.enter_async_context(Log.opened(tmp_path / "log"))
        server: Any = {"grpc": grpc_server, "http": http_server}[scheme]
        port = await stack.enter_async_context(server(Logs([log]), "127.0.0.1:0"))
        node = await stack.enter_async_context(place.served())
        client = WitnessClient(place.url)
        stack.push_async_callback(client.aclose)
        heads = []
        for number in range(2):
            await log.append_published([b"entry %d" % number])
            heads.append(log.published.note)
        with pytest.raises(RemoteRefusal, match="NOT_FOUND no log"):
            await client.submit(heads[1])
        url = f"{scheme}://127.0.0.1:{port}/real"
        add_log(place.directory, vkeys, url=url)
        assert (await client.submit(heads[1])).verdict == pb.HEAD_VERDICT_NEW
        assert (await client.submit(heads[1])).verdict == pb.HEAD_VERDICT_KNOWN
        assert (await client.submit(heads[0])).verdict == pb.HEAD_VERDICT_CLAIMED
        await until(lambda: node.gossip.stats["proven"])
        assert (await client.submit(heads[0])).verdict == pb.HEAD_VERDICT_KNOWN
        assert node.gossip.unproven() == []
        status = await client.status()
        assert {(known.origin, known.url) for known in status.logs} >= {("log.example/real", url)}


async def test_a_head_that_nobody_proves_is_unproven_and_no_conflict(tmp_path: Path) -> None:
    (place,) = places(tmp_path, 1)
    async with place.served() as node:
        client = WitnessClient(place.url)
        await client.submit(LOG.note(9))
        await client.submit(FORK.note(12))
        await until(node.gossip.unproven)
        status = await client.status()
        (unproven,) = status.unproven
        assert (unproven.origin, unproven.tree_size, unproven.latest_size) == (LOG.origin, 12, 9)
        assert "nobody said where" in unproven.reason
        assert node.evidence.listed() == []
        await client.aclose()


async def test_refused_heads_say_why(tmp_path: Path) -> None:
    (place,) = places(tmp_path, 1)
    async with place.served():
        client = WitnessClient(place.url)
        for note, code in (
            (b"", grpc.StatusCode.INVALID_ARGUMENT),
            (b"garbage\n", grpc.StatusCode.INVALID_ARGUMENT),
            (flip(LOG.note(9)), grpc.StatusCode.PERMISSION_DENIED),
            (SomeLog("other.example").note(9), grpc.StatusCode.NOT_FOUND),
        ):
            with pytest.raises(RemoteRefusal) as caught:
                await client.submit(note)
            assert caught.value.code is code
        with pytest.raises(RemoteRefusal) as caught:
            await client.gossip([b"x" * 300_000], [])
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        heads, conflicts = await client.gossip([b"garbage", LOG.note(9)], [b"garbage"])
        assert (heads, conflicts) == ([], [])
        assert (await client.gossip([], []))[0] == [LOG.note(9)]
        await client.aclose()


async def test_status(tmp_path: Path) -> None:
    first, second = places(tmp_path, 2)
    async with first.served() as node:
        client = WitnessClient(first.url)
        await node.witness.add_checkpoint(*LOG.request(0, 9))
        add_log(first.directory, [s.vkey for s in SomeLog("b.example").signers])
        freeze(first.directory, "b.example")
        await node.gossip.round()
        status = await client.status()
        known = [(log.origin, log.tree_size, log.frozen) for log in status.logs]
        assert known == [(LOG.origin, 9, ""), ("b.example", 0, "operator")]
        assert not status.logs[1].HasField("tree_size")
        assert status.name == "witness.example/0"
        (peer,) = status.peers
        assert peer.name == "witness.example/1"
        assert "UNAVAILABLE" in peer.problem
        assert status.problem == ""
        async with second.served(), witness_http_server(node, "127.0.0.1:0") as port:
            while node.gossip.silent:  # until gRPC connects again
                await node.gossip.round()
            assert (await client.status()).peers[0].problem == ""
            async with httpx.AsyncClient(trust_env=False) as http:
                page = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        for line in (
            'tlog_witness_peer_answering{peer="witness.example/1"} 1.0',
            f'tlog_witness_gossip_total{{event="rounds"}} {node.gossip.stats["rounds"]}.0',
            'tlog_witness_gossip_total{event="conflicts_found"} 0.0',
            "tlog_witness_conflicting_logs 0.0",
            "tlog_witness_unproven_heads 0.0",
        ):
            assert line in page
        await client.aclose()


async def test_gossip_that_stops_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place,) = places(tmp_path, 1)

    async def broken(self: object, cosigned: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("tlog.witness.gossip.Gossip.run", broken)
    async with place.served() as node:
        await until(lambda: node.failure)
        client = WitnessClient(place.url)
        assert "gossip has stopped" in (await client.status()).problem
        assert await node.witness.add_checkpoint(*LOG.request(0, 9))
        await client.aclose()


# ---- peers that are not what they should be


async def test_somebody_else_at_a_peers_address_is_not_gossiped_with(tmp_path: Path) -> None:
    first, second, third = places(tmp_path, 3)
    async with first.served() as one, replace(third, port=second.port).served():
        await one.witness.add_checkpoint(*LOG.request(0, 9))
        await one.gossip.round()
        assert "is not witness.example/1" in one.gossip.silent["witness.example/1"]


async def test_who_claims_a_peers_key_but_does_not_hold_it_is_not_gossiped_with(
    tmp_path: Path,
) -> None:
    first, second, third = places(tmp_path, 3)
    asked: list[str] = []

    class Impostor:
        """Says whatever the true witness says, but for what only its key can say."""

        def __getattr__(self, name: str) -> object:
            async def answer(request: object, context: object) -> object:
                asked.append(name)
                if name != "GetWitness":
                    return pb.GossipResponse(checkpoints=[LOG.note(12)])
                proof = await WitnessClient(third.url)._peer.call(
                    "GetWitness",
                    pb.GetWitnessRequest(vkey=third.vkeys[0], challenge=request.challenge),  # type: ignore[attr-defined]
                    pb.GetWitnessResponse,
                )
                return pb.GetWitnessResponse(
                    name="witness.example/1", vkeys=second.vkeys, proof=proof.proof
                )

            return answer

    service = pb.DESCRIPTOR.services_by_name["WitnessService"]
    impostor = grpc.aio.server()
    impostor.add_generic_rpc_handlers((generic_handler(service, Impostor()),))
    impostor.add_insecure_port(f"127.0.0.1:{second.port}")
    await impostor.start()
    async with first.served() as one, third.served():
        await one.witness.add_checkpoint(*LOG.request(0, 9))
        await one.gossip.round()
        assert "is not witness.example/1" in one.gossip.silent["witness.example/1"]
        assert one.gossip.latest(LOG.origin) == LOG.note(9)
    await impostor.stop(None)
    assert set(asked) == {"GetWitness"}


async def test_peers_that_hang_hang_up_or_talk_nonsense_are_silence(tmp_path: Path) -> None:
    first, second = places(tmp_path, 2)

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(10)
            writer.write(b"\0" * 100_000)
            await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(nonsense, "127.0.0.1", second.port),
        first.served() as one,
    ):
        await one.witness.add_checkpoint(*LOG.request(0, 9))
        await one.gossip.round()
        assert list(one.gossip.silent) == ["witness.example/1"]
        assert one.gossip.latest(LOG.origin) == LOG.note(9)


async def test_only_some_messages_are_judged_at_once(tmp_path: Path) -> None:
    (place,) = places(tmp_path, 1)
    async with place.served():
        client = WitnessClient(place.url)
        # Of logs that nobody knows: each is looked at, and lets others go first now and then.
        flood = [SomeLog(f"{number}.example").note(1) for number in range(300)]
        asked = [client.gossip(flood, []) for _ in range(3 * MAX_RECEIVING)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, RemoteRefusal)]
        assert len(answers) - len(refused) >= MAX_RECEIVING
        assert {refusal.code for refusal in refused} <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert (await client.gossip([], [])) == ([], [])
        await client.aclose()


def test_bad_peers_are_refused(tmp_path: Path) -> None:
    first, second = places(tmp_path, 2)
    for url in ("nonsense", "http://127.0.0.1:1", "grpc://127.0.0.1", "grpc://127.0.0.1:1/x"):
        with pytest.raises(AddressError):
            WitnessClient(url)
    toml = first.directory / "witness.toml"
    toml.write_text(toml.read_text().replace(second.url, "http://127.0.0.1:1"))

    async def serve() -> None:
        async with first.served():
            pass

    with pytest.raises(AddressError, match="grpc://HOST:PORT"):
        asyncio.run(serve())


async def test_nobody_there(tmp_path: Path) -> None:
    client = WitnessClient(f"grpc://127.0.0.1:{free_port()}")
    for ask in (lambda: client.identify(VKEYS[0]), client.status, client.conflicts):
        with pytest.raises(RemoteError, match="UNAVAILABLE"):
            await ask()
    await client.aclose()
