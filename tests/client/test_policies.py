"""Clients with a policy: every checkpoint they accept has its quorum, and that is fresh."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.servers import ORIGIN, World
from tests.client.test_verifier import POLICY, head
from tests.notes.keyring import TIME, W_ED, W_PQ, signer
from tlog.client import (
    AsyncClient,
    Client,
    FileState,
    MemoryState,
    TrustError,
    VerificationError,
    Verifier,
)
from tlog.notes import Algorithm, NoteError, Policy, cosign, parse_policy, parse_unverified
from tlog.v1 import log_pb2 as pb

HOUR = 3600.0


class Witnesses:
    """Cosign what the liar in front of the log shows."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.times = {"one": time.time(), "two": time.time()}
        lines = [f"log {vkey}" for vkey in world.vkeys]
        lines += [f"witness one {W_ED.vkey}", f"witness two {W_PQ.vkey}"]
        lines += ["group both all one two", "quorum both"]
        self.policy = parse_policy("".join(f"{line}\n" for line in lines).encode())
        for method in ("GetCheckpoint", "GetEntry", "GetInclusionProof"):
            world.lies[method] = self._cosigned

    def _cosigned(self, request: Any, answer: Any) -> Any:
        if answer.HasField("checkpoint"):
            answer.checkpoint.note = self.cosign(answer.checkpoint.note)
        return answer

    def cosign(self, note: bytes) -> bytes:
        checkpoint = parse_unverified(note).checkpoint
        for name, at in self.times.items():
            key = {"one": W_ED, "two": W_PQ}[name]
            note += cosign(checkpoint, key, timestamp=int(at)).encode()
        return note

    def client(self, state: Any = None, **more: Any) -> AsyncClient:
        return self.world.client(state, vkeys=None, policy=self.policy, **more)


@contextlib.contextmanager
def refused(check: str) -> Iterator[None]:
    with pytest.raises(VerificationError) as caught:
        yield
    assert caught.value.check == check


async def test_every_checkpoint_needs_its_quorum(world: World) -> None:
    await world.append([b"one", b"two"])
    witnesses = Witnesses(world)
    async with witnesses.client() as client:
        assert (await client.checkpoint()).size == 2
        assert await client.entry(1) == b"two"
        await world.append([b"three"])
        del witnesses.times["two"]
        with refused("quorum"):
            await client.checkpoint()
        with refused("quorum"):
            await client.entry(2)
        witnesses.times["two"] = time.time()
        assert (await client.checkpoint()).size == 3


async def test_a_log_alone_does_not_do(world: World) -> None:
    await world.append([b"one"])
    async with Witnesses(world).client(honest=True) as client:
        for call in (client.checkpoint(), client.entry(0), client.append(b"x", wait="published")):
            with refused("quorum"):
                await call


async def test_a_head_that_grew_old_is_refused_and_renewed(world: World) -> None:
    await world.append([b"one", b"two"])
    witnesses = Witnesses(world)
    async with witnesses.client(max_age=HOUR) as client:
        assert (await client.checkpoint()).size == 2
    witnesses.times["one"] -= 2 * HOUR
    async with witnesses.client(max_age=HOUR) as client:
        with refused("freshness"):
            await client.checkpoint()
        witnesses.times["one"] = time.time() + 600
        with refused("freshness"):
            await client.checkpoint()
        witnesses.times["one"] = time.time()
        assert (await client.checkpoint()).size == 2
    async with witnesses.client() as client:
        witnesses.times["one"] -= 1000 * HOUR
        assert (await client.checkpoint()).size == 2


async def test_what_was_accepted_once_grows_old_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.append([b"one", b"two"])
    now = [time.time()]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    witnesses = Witnesses(world)
    async with witnesses.client(max_age=HOUR) as client:
        verifier = await client._session.heads.trust()
        monkeypatch.setattr(verifier, "_clock", clock)
        await client.checkpoint()
        assert client._session.heads.last is not None
        now[0] += 2 * HOUR
        assert client._session.heads.last is None
        with refused("freshness"):
            await client.checkpoint()
        # At a size that was asked for, the head is asked for anew.
        with refused("freshness"):
            await client.inclusion_proof(0, tree_size=1)
        for name in witnesses.times:
            witnesses.times[name] = now[0]
        assert (await client.inclusion_proof(0, tree_size=1)).index == 0


async def test_what_was_seen_without_a_policy_still_holds_the_log_to_its_past(
    world: World, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    await world.append([b"one", b"two"])
    async with world.client(FileState(state), honest=True) as plain:
        assert (await plain.checkpoint()).size == 2
    witnesses = Witnesses(world)
    async with witnesses.client(FileState(state)) as client:
        assert (await client.checkpoint()).size == 2
        world.lies["GetCheckpoint"] = lambda request, answer: pb.GetCheckpointResponse(
            checkpoint=pb.Checkpoint(note=witnesses.cosign(world.sign(2, bytes(32)).note))
        )
        with refused("fork"):
            await client.checkpoint()
    async with world.client(FileState(state), vkeys=None, honest=True) as plain:
        assert (await plain.checkpoint()).size == 2


async def test_keys_beside_a_policy_must_all_have_signed(world: World) -> None:
    await world.append([b"one"])
    witnesses = Witnesses(world)
    first = witnesses.policy.logs[:1]
    policy = Policy(first, witnesses.policy.witnesses, witnesses.policy.groups, "both")
    async with world.client(policy=policy) as client:
        assert {vkey for vkey, _ in (await client.checkpoint()).signed_by} == {
            *world.vkeys,
            W_ED.vkey,
            W_PQ.vkey,
        }
    other = signer(ORIGIN, Algorithm.ED25519, 7).vkey
    async with world.client(policy=policy, vkeys=[other]) as client:
        with refused("signature"):
            await client.checkpoint()


def test_policies_that_no_client_takes(world: World) -> None:
    witnesses = Witnesses(world)
    for wrong, error in (
        ({"policy": POLICY.replace(b"\nquorum both", b"")}, NoteError),
        ({"policy": POLICY, "max_age": -1.0}, NoteError),
        ({"policy": b"quorum none\n"}, TrustError),
        ({"max_age": 1.0, "vkeys": world.vkeys}, TrustError),
        ({"max_age": 1.0}, TrustError),
        (
            {"policy": POLICY + f"log {witnesses.policy.logs[1].vkey}\n".encode()},
            TrustError,
        ),
    ):
        for kind in (AsyncClient, Client):
            with pytest.raises(error):
                kind(world.target, state=MemoryState(), **wrong)


def test_a_verifier_tells_too_old_from_too_few() -> None:
    now = [TIME + 1 + HOUR]
    verifier = Verifier(POLICY, max_age=HOUR, clock=lambda: now[0])
    good = verifier.checkpoint(head(11, "one", "two"))
    now[0] += 1
    with refused("freshness"):
        verifier.checkpoint(head(11, "one", "two"))
    with refused("freshness"):
        verifier.check_quorum(good)
    with refused("quorum"):
        verifier.checkpoint(head(11, "one"))
    Verifier(POLICY).check_quorum(good)
