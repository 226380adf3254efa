"""The log against witnesses that do whatever they like, through the port that it defines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tlog.log import Log, LogConfig, create_log
from tlog.log.cosigners import FAILURES_UNTIL_AWAY, CosignerConflict, CosignerError
from tlog.merkle import verify_consistency
from tlog.notes import (
    Algorithm,
    Checkpoint,
    Policy,
    Signer,
    cosign,
    open_checkpoint,
    parse_policy,
    parse_unverified,
)
from tlog.store import StoreError

KEYS = [
    Signer.from_seed(f"w{n}.example", algorithm, bytes([n]) * 32)
    for n, algorithm in enumerate(
        (Algorithm.ED25519_COSIGNATURE, Algorithm.MLDSA44, Algorithm.ED25519_COSIGNATURE)
    )
]

Answer = Callable[[int, Sequence[bytes], bytes], Awaitable[bytes]]


class Scripted:
    """A witness that keeps the rules, until it is told to do something else.

    Attributes:
        asked: old size and note of every request.
        answer: what it does instead; None to keep the rules.
        clock: the time in its cosignatures.
    """

    def __init__(self, key: Signer) -> None:
        self.key = key
        self.asked: list[tuple[int, bytes]] = []
        self.answer: Answer | None = None
        self.clock = 1000
        self.head: Checkpoint | None = None

    async def add_checkpoint(self, old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
        self.asked.append((old_size, note))
        if self.answer is not None:
            return await self.answer(old_size, proof, note)
        return self.cosign(old_size, proof, note)

    def cosign(self, old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
        head = parse_unverified(note).checkpoint
        have = 0 if self.head is None else self.head.size
        if old_size != have:
            raise CosignerConflict(have)
        if self.head is not None:
            verify_consistency(
                old_size=old_size,
                new_size=head.size,
                old_root=self.head.root_hash,
                new_root=head.root_hash,
                proof=proof,
            )
        self.head = head
        return cosign(head, self.key, timestamp=self.clock).encode()


class Scene:
    """A log with a policy of two of three scripted witnesses, one of which has two keys."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.witnesses = [Scripted(key) for key in KEYS]
        lines = [f"witness w{n} {key.vkey} https://w{n}/" for n, key in enumerate(KEYS)]
        text = "".join(f"{line}\n" for line in [*lines, "group g 2 w0 w1 w2", "quorum g"])
        defaults = {"checkpoint_interval": 0, "quorum_timeout": 0.3}
        create_log(
            directory,
            LogConfig(origin="log.example/c", name="c", **{**defaults, **settings}),
            policy=text.encode(),
        )
        self.policy: Policy = parse_policy((directory / "policy").read_bytes())

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Log]:
        by_url = {f"https://w{n}/": witness for n, witness in enumerate(self.witnesses)}
        async with Log.opened(self.directory, connect=by_url.__getitem__) as log:
            yield log

    def times(self, log: Log) -> dict[str, int | None]:
        """Who cosigned the published head, and when."""
        signed_by = dict(self.policy.open(log.published.note).verified.signed_by)
        return {
            one.name: signed_by[one.vkey] for one in self.policy.witnesses if one.vkey in signed_by
        }


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "log")


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def raising(error: Exception) -> Answer:
    async def answer(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
        raise error

    return answer


async def silent(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def test_witnesses_are_asked_in_parallel(scene: Scene) -> None:
    everybody = asyncio.Barrier(3)

    def together(witness: Scripted) -> Answer:
        async def answer(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
            await everybody.wait()
            return witness.cosign(old_size, proof, note)

        return answer

    for witness in scene.witnesses:
        witness.answer = together(witness)
    async with scene.opened() as log:
        await until(lambda: log.publisher.latest is not None)
        await until(lambda: len(scene.times(log)) == 3)


async def test_witnesses_are_sent_the_signatures_of_the_log_alone(scene: Scene) -> None:
    async with scene.opened() as log:
        await log.append_published([b"one"])
        await log.publisher.refresh()
    async with scene.opened() as log:
        await log.append_published([b"two"])
    for witness in scene.witnesses:
        assert len(witness.asked) >= 4
        for _, note in witness.asked:
            signed = open_checkpoint(note, log.vkeys)
            assert len(signed.note.signatures) == len(log.vkeys) == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (raising(CosignerError("no")), "no"),
        (raising(CosignerConflict(1000)), "1000"),
        (raising(CosignerConflict(0)), "changing its mind"),
        (raising(ZeroDivisionError()), "internal error"),
        (raising(StoreError("a tile cannot be read")), "internal error"),
        (silent, "no answer in 0.3 s"),
    ],
)
async def test_one_that_fails_is_known_to_be_away(scene: Scene, answer: Answer, says: str) -> None:
    bad = scene.witnesses[1]
    bad.answer = answer
    async with scene.opened() as log:
        assert log.cosigners is not None
        await log.append_published([b"one"])
        cosigners = log.cosigners
        await until(lambda: cosigners.status()[1].away)
        await log.append_published([b"two"])
        status = cosigners.status()
        assert [one.away for one in status] == [False, True, False]
        assert says in status[1].last_error
        assert status[1].failures >= FAILURES_UNTIL_AWAY
        assert scene.times(log).keys() == {"w0", "w2"}
        bad.answer = None
        await until(lambda: scene.times(log).keys() == {"w0", "w1", "w2"}, 20)
        assert cosigners.status()[1].last_error == ""
        assert not cosigners.status()[1].away


async def test_one_that_is_away_is_asked_less_and_less(scene: Scene) -> None:
    scene.witnesses[1].answer = raising(CosignerError("no"))
    async with scene.opened() as log:
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            await log.append_published([b"more"])
        heads = log.published.size
    assert heads > 20
    # Pauses of 0.25 to 0.5, 0.5 to 1 and 1 to 2 seconds, not one attempt for each head.
    assert 2 <= len(scene.witnesses[1].asked) <= 4


@pytest.mark.parametrize("change", ["key", "tree", "time", "bit", "nothing", "lines"])
async def test_answers_that_do_not_verify(scene: Scene, change: str) -> None:
    bad = scene.witnesses[1]
    stranger = Signer.from_seed("w1.example", Algorithm.MLDSA44, bytes(32))

    async def answer(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
        head = parse_unverified(note).checkpoint
        good = cosign(head, bad.key, timestamp=7).encode()
        other = Checkpoint(head.origin, head.size + 1, head.root_hash)
        match change:
            case "key":
                return cosign(head, stranger, timestamp=7).encode()
            case "tree":
                return cosign(other, bad.key, timestamp=7).encode()
            case "time":
                from tlog.notes import Subtree, cosign_subtree

                tree = Subtree(head.origin, 0, head.size, head.root_hash)
                return cosign_subtree(tree, bad.key, timestamp=0).encode()
            case "bit":
                return good[:-10] + bytes([good[-10] ^ 1]) + good[-9:]
            case "nothing":
                return b""
        return b"not a signature line\n" + good

    bad.answer = answer
    async with scene.opened() as log:
        await log.append_published([b"one"])
        assert log.cosigners is not None
        cosigners = log.cosigners
        await until(lambda: cosigners.status()[1].failures)
        assert cosigners.status()[1].last_error
        assert scene.times(log).keys() == {"w0", "w2"}
        # SPEC tlog-witness: "The client MUST ignore any cosignatures from unknown keys."

        async def with_strangers(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
            head = parse_unverified(note).checkpoint
            own = bad.cosign(old_size, proof, note)
            return cosign(head, stranger, timestamp=7).encode() + own

        bad.answer = with_strangers
        await until(lambda: scene.times(log).keys() == {"w0", "w1", "w2"}, 20)
        assert b"w1.example" in log.published.note
        assert scene.policy.open(log.published.note).verified.note.signatures[-2].key_id == (
            bad.key.vkey.key_id
        )


async def test_cosignatures_are_kept_fresh_and_none_is_lost(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "log", refresh_interval=0.2)
    first, second, third = scene.witnesses
    async with scene.opened() as log:
        await log.append_published([b"one"])
        await until(lambda: len(scene.times(log)) == 3)
        third.answer = silent
        first.clock = second.clock = 2000
        # The old cosignature of one that is away is better than none.
        await until(lambda: scene.times(log) == {"w0": 2000, "w1": 2000, "w2": 1000})
        # Of one alone no new quorum is made: what is shown stays as it is, and whole.
        second.answer = silent
        first.clock = 3000
        asked = len(first.asked)
        await until(lambda: len(first.asked) > asked + 1)
        assert scene.times(log)["w1"] == 2000
        second.answer = third.answer = None
        third.clock = second.clock = 4000
        await until(lambda: set(scene.times(log).values()) == {3000, 4000}, 20)
        assert log.published.size == 1


async def test_a_log_that_starts_asks_for_new_cosignatures(scene: Scene) -> None:
    async with scene.opened() as log:
        await log.append_published([b"one"])
        await until(lambda: len(scene.times(log)) == 3)
    scene.witnesses[2].answer = silent
    for witness in scene.witnesses:
        witness.clock = 2000
    async with scene.opened() as log:
        await until(lambda: scene.times(log) == {"w0": 2000, "w1": 2000, "w2": 1000})
        assert log.cosigners is not None
        assert [one.cosigned_size for one in log.cosigners.status()] == [1, 1, 0]


async def test_a_policy_that_came_later_is_met_at_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "log")
    (tmp_path / "log" / "policy").rename(tmp_path / "policy")
    async with scene.opened() as log:
        await log.append_published([b"one"])
        assert log.cosigners is None
    (tmp_path / "policy").rename(tmp_path / "log" / "policy")
    async with scene.opened() as log:
        await until(lambda: scene.policy.evaluate(log.published.note).satisfied)
        assert log.published.size == 1


async def test_fail_open_publishes_without_a_quorum(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "log", fail_open=True)
    for witness in scene.witnesses[1:]:
        witness.answer = silent
    async with scene.opened() as log:
        await log.append_published([b"one"])
        verdict = scene.policy.evaluate(log.published.note)
        assert (verdict.satisfied, verdict.cosigned_by) == (False, ("w0",))


async def test_the_head_is_durable_before_the_first_entry_waits_for_its_quorum(
    scene: Scene,
) -> None:
    for witness in scene.witnesses:
        witness.answer = silent
    async with scene.opened() as log:
        # Else a crash now would leave entries that no head was ever signed for.
        assert open_checkpoint((scene.directory / "HEAD").read_bytes(), log.vkeys)
        await log.submit([b"durable"])
        assert log.publisher.latest is None
    async with scene.opened() as log:
        assert log.sequencer.edge.size == 1


async def test_a_log_that_closes_waits_for_witnesses_that_answer_and_for_no_others(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path / "log", quorum_timeout=5.0)

    def slow(witness: Scripted) -> Answer:
        async def answer(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
            await asyncio.sleep(0.2)
            return witness.cosign(old_size, proof, note)

        return answer

    for witness in scene.witnesses:
        witness.answer = slow(witness)
    async with scene.opened() as log:
        await log.submit([b"one"])
    assert log.published.size == 1
    for witness in scene.witnesses[1:]:
        witness.answer = raising(CosignerError("away"))
    async with scene.opened() as log:
        await log.submit([b"two"])
        cosigners = log.cosigners
        assert cosigners is not None
        await until(lambda: all(one.failures for one in cosigners.status()[1:]))
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert log.published.size == 1


@pytest.mark.parametrize(
    "answer",
    [raising(CosignerError("403: no")), raising(CosignerConflict(0))],
    ids=["refused", "conflict"],
)
async def test_a_log_without_an_interval_waits_between_its_tries(
    scene: Scene, answer: Answer
) -> None:
    """Witnesses that refuse at once cost no more than those that do not answer."""
    async with scene.opened() as log:
        assert log.cosigners is not None
        for witness in scene.witnesses:
            witness.answer = answer
        tries, cosign_once = 0, log.cosigners.cosign

        async def counted(head: Any) -> Any:
            nonlocal tries
            tries += 1
            return await cosign_once(head)

        log.cosigners.cosign = counted  # type: ignore[method-assign]
        before = sum(len(witness.asked) for witness in scene.witnesses)
        started = time.monotonic()
        await log.submit([b"x"])
        await until(lambda: tries >= 3)
        took = time.monotonic() - started
        assert took >= 2 * 0.3 - 0.05  # the timeout of a quorum lies between two of them
        asked = sum(len(witness.asked) for witness in scene.witnesses) - before
        assert asked <= 3 * 3 * 4  # three witnesses, three looks at a size, and a pause
