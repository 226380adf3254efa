"""Whatever a server makes up, the client refuses it, names the check, and remembers nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from tests.client.lies import (
    ENTRIES,
    OTHER,
    Change,
    drop,
    flip,
    flipping,
    followed,
    refused,
    showing,
    telling,
)
from tests.client.servers import World
from tlog.client import AsyncClient, MemoryState, VerificationError
from tlog.client.verification import open_head
from tlog.merkle import leaf_hash
from tlog.notes import Signer
from tlog.v1 import log_pb2 as pb

# ---- heads ----


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"no protobuf at all", b"\x0a\xff"])
async def test_garbage(world: World, data: bytes) -> None:
    state, _ = await followed(world)
    world.lies["GetCheckpoint"] = telling(lambda _: data)
    await refused(world, state, lambda client: client.checkpoint(), "message")


async def test_no_checkpoint(world: World) -> None:
    state, _ = await followed(world)
    world.lies["GetCheckpoint"] = telling(lambda _: b"")
    await refused(world, state, lambda client: client.checkpoint(), "message")


def others(world: World, *, name: str | None = None) -> list[Signer]:
    return [
        Signer.generate(name or signer.vkey.name, signer.vkey.algorithm) for signer in world.signers
    ]


@pytest.mark.parametrize("which", ["other keys", "other origin", "first key", "second key"])
async def test_signed_by_others(world: World, which: str) -> None:
    state, head = await followed(world)
    signers = {
        "other keys": others(world),
        "other origin": others(world, name="example.com/other"),
        "first key": world.signers[:1],
        "second key": world.signers[1:],
    }[which]
    forged = world.sign(head.size, head.root_hash, signers=signers)
    world.lies["GetCheckpoint"] = telling(lambda truth: truth.checkpoint.CopyFrom(forged))
    await refused(world, state, lambda client: client.checkpoint(), "signature")


async def test_every_flipped_bit_of_a_note(world: World) -> None:
    state, head = await followed(world)
    before = state.load()
    note = head.note
    for place in range(len(note)):
        with pytest.raises(VerificationError, match="signature"):
            open_head(flip(note, place, 1 << place % 8), world.vkeys)
    async with world.client(state) as client:
        for place in range(0, len(note), 61):
            world.lies["GetCheckpoint"] = showing(flip(note, place))
            with pytest.raises(VerificationError, match="signature"):
                await client.checkpoint()
    assert state.load() is before


async def test_fields_beside_the_note_do_not_count(world: World) -> None:
    state, head = await followed(world)

    def change(truth: Any) -> None:
        truth.checkpoint.tree_size, truth.checkpoint.root_hash = 1, OTHER

    world.lies["GetCheckpoint"] = telling(change)
    async with world.client(state) as client:
        assert await client.checkpoint() == head


async def test_fork_of_equal_size(world: World) -> None:
    state, head = await followed(world)
    forked = world.sign(head.size, OTHER)
    world.lies["GetCheckpoint"] = telling(lambda truth: truth.checkpoint.CopyFrom(forked))
    error = await refused(world, state, lambda client: client.checkpoint(), "fork")
    assert error.evidence == (head.note, forked.note)


@pytest.mark.parametrize(("size", "check"), [(701, "consistency"), (300, "rollback")])
async def test_fork_without_a_proof(world: World, size: int, check: str) -> None:
    state, head = await followed(world)
    # Served from another tree, in which the last head seen is not known.
    forked = world.sign(size, OTHER)
    world.lies["GetCheckpoint"] = telling(lambda truth: truth.checkpoint.CopyFrom(forked))
    if size < head.size:

        def refuse(request: Any, truth: Any) -> bytes:
            raise ConnectionError("this tree has no such size")

        world.lies["GetConsistencyProof"] = refuse
    error = await refused(world, state, lambda client: client.checkpoint(), check)
    assert error.evidence == (head.note, forked.note)


async def test_fork_with_a_proof_of_the_true_tree(world: World) -> None:
    state, _ = await followed(world)
    for size in (1, 256, 699):
        forked = world.sign(size, OTHER)
        world.lies["GetCheckpoint"] = showing(forked.note)
        await refused(world, state, lambda client: client.checkpoint(), "consistency")


async def test_size_zero_with_a_root(world: World) -> None:
    # Signers refuse to sign such a head, so it is put together by hand.
    signed = world.sign(10, OTHER, signers=world.signers[:1])
    body = signed.note.replace(b"\n10\n", b"\n0\n").split(b"\n\n")[0] + b"\n"
    signer = world.signers[0]
    from tlog.notes import Note, NoteSignature

    signature = NoteSignature(signer.vkey.name, signer.vkey.key_id, signer.sign(body))
    note = Note(body.decode(), (signature,)).encode()
    world.lies["GetCheckpoint"] = telling(lambda truth: setattr(truth.checkpoint, "note", note))
    async with world.client(vkeys=[signer.vkey]) as client:
        with pytest.raises(VerificationError, match="empty tree"):
            await client.checkpoint()


async def test_an_older_head_that_is_proven_is_only_late(world: World) -> None:
    old = await world.append(ENTRIES[:10])
    state, head = await followed(world)
    world.lies["GetCheckpoint"] = telling(lambda truth: setattr(truth.checkpoint, "note", old.note))
    async with world.client(state) as client:
        assert await client.checkpoint() == head
    assert state.load() == world.record(head)


async def test_growth_with_every_flipped_byte_of_the_proof(world: World) -> None:
    state, head = await followed(world)
    newer = await world.append([b"more"] * 77)
    seen: list[int] = []

    def count(truth: Any) -> None:
        seen.append(len(truth.hashes))

    world.lies["GetConsistencyProof"] = telling(count)
    async with world.client(MemoryState(), honest=False) as client:
        await client.consistency_proof(head)
    hashes = seen[-1]
    assert hashes > 3
    before = state.load()
    async with world.client(state) as client:
        for which in range(hashes):
            for place in range(32):
                world.lies["GetConsistencyProof"] = flipping("hashes", which, place)
                with pytest.raises(VerificationError, match="consistency check"):
                    await client.checkpoint()
    assert state.load() is before
    changes: dict[str, Change] = {
        "shorter": lambda truth: drop(truth.hashes),
        "longer": lambda truth: truth.hashes.append(OTHER),
        "crippled": lambda truth: truth.hashes.append(b"short"),
        "none": lambda truth: truth.ClearField("hashes"),
        "huge": lambda truth: truth.hashes.extend([OTHER] * 100_000),
    }
    for change in changes.values():
        world.lies["GetConsistencyProof"] = telling(change)
        await refused(world, state, lambda client: client.checkpoint(), "consistency")
    world.lies["GetConsistencyProof"] = telling(lambda truth: setattr(truth, "old_size", 3))
    await refused(world, state, lambda client: client.checkpoint(), "echo")
    world.lies.clear()
    async with world.client(state) as client:
        assert await client.checkpoint() == newer


# ---- proofs ----

PROOF_LIES: dict[str, tuple[Change, str]] = {
    "index": (lambda truth: setattr(truth.proof, "index", 8), "echo"),
    "size": (lambda truth: setattr(truth.proof, "tree_size", 699), "echo"),
    "shorter": (lambda truth: drop(truth.proof.hashes), "inclusion"),
    "longer": (lambda truth: truth.proof.hashes.append(OTHER), "inclusion"),
    "huge": (lambda truth: truth.proof.hashes.extend([OTHER] * 100_000), "inclusion"),
    "crippled": (lambda truth: truth.proof.hashes.__setitem__(0, b"x"), "inclusion"),
    "swapped": (lambda truth: truth.proof.hashes.reverse(), "inclusion"),
    "none": (lambda truth: truth.ClearField("proof"), "echo"),
    "unsigned": (lambda truth: truth.ClearField("checkpoint"), "message"),
    "garbage": (lambda _: b"\xff", "message"),
}


@pytest.mark.parametrize("lie", PROOF_LIES)
@pytest.mark.parametrize("method", ["GetInclusionProof", "GetEntry"])
async def test_inclusion_proof(world: World, method: str, lie: str) -> None:
    state, _ = await followed(world)
    change, check = PROOF_LIES[lie]
    world.lies[method] = telling(change)
    leaf = leaf_hash(ENTRIES[7]) if method == "GetInclusionProof" else None
    await refused(world, state, lambda client: client.inclusion_proof(7, leaf_hash=leaf), check)


async def test_swapped_index_of_a_leaf_hash(world: World) -> None:
    state, _ = await followed(world)
    world.lies["GetInclusionProof"] = telling(lambda truth: setattr(truth.proof, "index", 8))
    leaf = leaf_hash(ENTRIES[7])
    await refused(world, state, lambda client: client.inclusion_proof(leaf_hash=leaf), "inclusion")
    world.lies["GetInclusionProof"] = telling(lambda truth: setattr(truth.proof, "index", 1 << 63))
    await refused(world, state, lambda client: client.inclusion_proof(leaf_hash=leaf), "inclusion")


async def test_other_entry(world: World) -> None:
    state, _ = await followed(world)
    world.lies["GetEntry"] = telling(lambda truth: setattr(truth, "entry", ENTRIES[8]))
    await refused(world, state, lambda client: client.entry(7), "inclusion")


@pytest.mark.parametrize("tree_size", [None, 500])
async def test_every_flipped_byte_of_an_inclusion_proof(
    world: World, tree_size: int | None
) -> None:
    state, _ = await followed(world)
    before = state.load()
    leaf = leaf_hash(ENTRIES[7])
    async with world.client(state) as client:
        proven = await client.inclusion_proof(7, leaf_hash=leaf, tree_size=tree_size)
        assert proven.tree_size == tree_size or tree_size is None
        for which in range(len(proven.hashes)):
            for place in range(32):
                world.lies["GetInclusionProof"] = flipping("proof.hashes", which, place)
                with pytest.raises(VerificationError, match="inclusion|consistency"):
                    await client.inclusion_proof(7, leaf_hash=leaf, tree_size=tree_size)
    assert state.load() is before


async def test_batch_of_proofs(world: World) -> None:
    state, _ = await followed(world)
    leaves = [leaf_hash(entry) for entry in ENTRIES[:5]]
    lies: list[tuple[Change, str]] = [
        (lambda truth: drop(truth.proofs), "echo"),
        (lambda truth: truth.proofs.append(truth.proofs[0]), "echo"),
        (lambda truth: setattr(truth.proofs[3], "tree_size", 3), "echo"),
        (lambda truth: truth.proofs[3].hashes.reverse(), "inclusion"),
    ]
    for change, check in lies:
        world.lies["BatchGetInclusionProofs"] = telling(change)
        await refused(world, state, lambda client: client.inclusion_proofs(leaves), check)
    # At an older size, one false root among true ones.
    await refused(
        world, state, lambda client: client.inclusion_proofs(leaves, tree_size=600), "consistency"
    )
    world.lies["BatchGetInclusionProofs"] = telling(lambda truth: truth.proofs.reverse())
    order = range(5)
    await refused(
        world, state, lambda client: client.inclusion_proofs(leaves, indices=order), "echo"
    )


# ---- appends ----


async def test_false_receipts(world: World) -> None:
    state, _ = await followed(world)

    def swap(truth: Any) -> None:
        truth.index = 7

    world.lies["Append"] = telling(swap)
    async with world.client(state) as client:
        with pytest.raises(VerificationError, match="echo"):
            await client.append(b"mine", wait="published")
        receipt = world.log.append_published
        world.lies.clear()
        true = await client.append(b"mine", wait="published")
        assert true.proof is not None
        other = (await receipt([b"another"]))[0]
        answer = pb.AppendResponse(index=other.index, tlog_proof=other.tlog_proof())
        world.lies["Append"] = telling(lambda _: answer)
        with pytest.raises(VerificationError, match="inclusion"):
            await client.append(b"mine", wait="published")
        world.lies["Append"] = telling(lambda truth: setattr(truth, "tlog_proof", b"garbage"))
        with pytest.raises(VerificationError, match="message"):
            await client.append(b"mine", wait="published")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda truth: drop(truth.indices), "echo"),
        (lambda truth: truth.indices.append(9), "echo"),
        (lambda truth: drop(truth.proofs), "echo"),
        (lambda truth: truth.indices.__setitem__(0, 3), "echo"),
        (lambda truth: truth.proofs[0].hashes.reverse(), "inclusion"),
        (lambda truth: truth.ClearField("checkpoint"), "message"),
    ],
)
async def test_false_batch_receipts(world: World, change: Change, check: str) -> None:
    await world.append(ENTRIES)
    world.lies["AppendBatch"] = telling(change)
    async with world.client() as client:
        with pytest.raises(VerificationError) as caught:
            await client.append_batch([b"a", b"b", b"c"], wait="published")
        assert caught.value.check == check


async def test_false_acknowledgements(world: World) -> None:
    async def too_many(_: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Message]:
        async for request in requests:
            yield pb.AppendStreamResponse(indices=range(len(request.entries) + 1))

    async def none(_: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Message]:
        async for _request in requests:
            yield pb.AppendStreamResponse()

    async def too_few(_: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Message]:
        async for _request in requests:
            pass
        yield pb.AppendStreamResponse(indices=[0])

    for lie in (too_many, none, too_few):
        world.stream_lies["AppendStream"] = lie
        async with world.client() as client:
            with pytest.raises(VerificationError, match="echo"):
                _ = [index async for index in client.append_stream([b"a", b"b"])]


# ---- streams ----


def bundles(change: Callable[[list[Any]], list[Message | bytes]]) -> Any:
    async def lie(_: Any, truth: AsyncIterator[Any]) -> AsyncIterator[Message | bytes]:
        for message in change([message async for message in truth]):
            yield message

    return lie


def edited(number: int, edit: Callable[[Any], None]) -> Callable[[list[Any]], list[Any]]:
    def change(messages: list[Any]) -> list[Any]:
        edit(messages[number])
        return messages

    return change


def renumbered(messages: list[Any]) -> list[Any]:
    messages[0].first_index, messages[1].first_index = 256, 0
    return [messages[1], messages[0], messages[2]]


STREAM_LIES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "missing first": lambda messages: messages[1:],
    "missing middle": lambda messages: [messages[0], messages[2]],
    "missing last": lambda messages: messages[:-1],
    "nothing": lambda messages: [],
    "repeated": lambda messages: [messages[0], *messages],
    "reordered": lambda messages: [messages[1], messages[0], messages[2]],
    "renumbered": renumbered,
    "short": edited(1, lambda message: drop(message.entries)),
    "long": edited(1, lambda message: message.entries.append(b"more")),
    "empty": edited(1, lambda message: message.ClearField("entries")),
    "swapped entries": edited(1, lambda message: message.entries.reverse()),
    "changed entry": edited(2, lambda message: message.entries.__setitem__(3, b"changed")),
    "too long entry": edited(0, lambda message: message.entries.__setitem__(0, bytes(70_000))),
    "no proof": edited(0, lambda message: message.ClearField("subtree_proof")),
    "longer proof": edited(0, lambda message: message.subtree_proof.append(OTHER)),
    "surplus": lambda messages: [*messages, messages[-1]],
    "surplus nothing": lambda messages: [*messages, b""],
}


async def read(client: AsyncClient) -> list[bytes]:
    return [entry async for entry in client.entries()]


@pytest.mark.parametrize("lie", STREAM_LIES)
async def test_entries(world: World, lie: str) -> None:
    state, _ = await followed(world)
    world.stream_lies["StreamEntries"] = bundles(STREAM_LIES[lie])
    await refused(world, state, read, "bundle")


async def test_entries_in_garbage(world: World) -> None:
    state, _ = await followed(world)
    world.stream_lies["StreamEntries"] = bundles(lambda _: [b"\xff\xff"])
    await refused(world, state, read, "message")


async def test_every_flipped_byte_of_a_bundle_proof(world: World) -> None:
    state, _ = await followed(world)
    async with world.client(state) as client:
        for place in range(64):

            def edit(message: Any, place: int = place) -> None:
                which, byte = divmod(place, 32)
                message.subtree_proof[which] = flip(message.subtree_proof[which], byte)

            world.stream_lies["StreamEntries"] = bundles(edited(0, edit))
            with pytest.raises(VerificationError, match="bundle"):
                await read(client)


async def test_an_endless_stream_ends(world: World) -> None:
    state, _ = await followed(world)

    async def endless(_: Any, truth: AsyncIterator[Any]) -> AsyncIterator[Message]:
        message = await anext(truth)
        while True:
            yield message
            message.first_index += 256

    world.stream_lies["StreamEntries"] = endless
    await refused(world, state, read, "bundle")


async def watched(client: AsyncClient) -> None:
    count = 0
    async for _ in client.watch():
        count += 1
        assert count < 3


async def test_false_steps(world: World) -> None:
    state, head = await followed(world)
    await world.append([b"more"])

    async def first(request: Any, truth: AsyncIterator[Any]) -> pb.WatchCheckpointsResponse:
        assert request.old_size == head.size
        message = await anext(truth)
        assert isinstance(message, pb.WatchCheckpointsResponse)
        return message

    async def unproven(request: Any, truth: AsyncIterator[Any]) -> AsyncIterator[Message]:
        step = await first(request, truth)
        step.ClearField("consistency_proof")
        yield step

    async def misproven(request: Any, truth: AsyncIterator[Any]) -> AsyncIterator[Message]:
        step = await first(request, truth)
        step.consistency_proof[0] = OTHER
        yield step

    async def forked(request: Any, truth: AsyncIterator[Any]) -> AsyncIterator[Message]:
        step = await first(request, truth)
        step.checkpoint.CopyFrom(world.sign(701, OTHER))
        yield step

    async def backwards(request: Any, truth: AsyncIterator[Any]) -> AsyncIterator[Message]:
        yield pb.WatchCheckpointsResponse(checkpoint=pb.Checkpoint(note=head.note))
        yield pb.WatchCheckpointsResponse(checkpoint=pb.Checkpoint(note=head.note))

    for lie, check in (
        (unproven, "consistency"),
        (misproven, "consistency"),
        (forked, "consistency"),
        (backwards, "echo"),
    ):
        world.stream_lies["WatchCheckpoints"] = lie
        await refused(world, state, watched, check)
