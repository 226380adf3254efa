"""The synchronous face: the same answers, from threads, without leaving anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.client.servers import ORIGIN
from tlog.client import Client, ClientError, MemoryState, Refused
from tlog.merkle import leaf_hash
from tlog.notes import verify_proof

SERVER = """
import asyncio, sys
from pathlib import Path
from tlog.log import Log, LogConfig, create_log
from tlog.serve import Logs, grpc_server

async def main():
    directory = Path(sys.argv[1])
    create_log(directory, LogConfig(origin=sys.argv[2], name="log", checkpoint_interval=0))
    async with Log.opened(directory) as log, grpc_server(Logs([log]), "127.0.0.1:0") as port:
        print(port, *log.vkeys, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

import structlog
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    directory = tmp_path_factory.mktemp("served") / "log"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(directory), ORIGIN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    port, *vkeys = process.stdout.readline().split()
    yield f"127.0.0.1:{port}", vkeys
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.fixture
def client(server: tuple[str, list[str]]) -> Iterator[Client]:
    target, vkeys = server
    with Client(target, vkeys=vkeys, state=MemoryState()) as made:
        yield made


def test_everything(client: Client) -> None:
    begin = client.checkpoint().size
    assert client.append(b"a").index == begin
    receipt = client.append(b"b", wait="published")
    assert receipt.proof is not None
    many = client.append_batch([b"%d" % number for number in range(600)], wait="published")
    assert [one.index for one in many] == list(range(begin + 2, begin + 602))
    assert client.entry(begin + 1) == b"b"
    assert list(client.entries(begin, begin + 3)) == [b"a", b"b", b"0"]
    assert client.inclusion_proof(begin).leaf_hash == leaf_hash(b"a")
    assert client.inclusion_proofs([leaf_hash(b"a")], indices=[begin])[0].index == begin
    old = client.checkpoint()
    client.append(b"c", wait="published")
    assert client.consistency_proof(old)[0].size == old.size + 1
    assert client.list_logs()[0].origin == ORIGIN
    heads = client.watch()
    assert next(heads).size == old.size + 1
    heads.close()  # type: ignore[attr-defined]
    with pytest.raises(Refused):
        client.entry(1 << 40)


def test_stream(client: Client) -> None:
    begin = client.checkpoint().size

    def source() -> Iterator[bytes]:
        for number in range(1000):
            if number % 250 == 0:
                time.sleep(0.005)
            yield b"%d" % number

    indices = list(client.append_stream(source()))
    assert len(indices) == 1000
    assert indices == list(range(indices[0], indices[0] + 1000))
    assert indices[0] >= begin

    def broken() -> Iterator[bytes]:
        yield b"one"
        raise KeyError("source")

    with pytest.raises(KeyError):
        list(client.append_stream(broken()))
    stream = client.append_stream(source())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    client.append(b"goes on", wait="published")


def test_several_threads(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda n: client.append(b"t%d" % n, wait="published"), range(100)))
    assert len({receipt.index for receipt in receipts}) == 100


def test_batcher(client: Client) -> None:
    with client.batcher(wait="published") as batcher:
        futures = [batcher.append(b"batched %d" % number) for number in range(500)]
        with pytest.raises(Refused):
            batcher.append(bytes(70_000))
        batcher.flush()
        assert all(future.done() for future in futures)
        last = batcher.append(b"last")
    appended = last.result(0)
    assert appended.proof is not None
    (log,) = client.list_logs()
    from tlog.notes import VerifierKey

    verify_proof(appended.proof, b"last", [VerifierKey.parse(vkey) for vkey in log.vkeys])
    assert len({future.result().index for future in futures}) == 500
    with pytest.raises(ClientError, match="closed"):
        batcher.append(b"late")


def test_batcher_of_many_threads_is_bounded(client: Client) -> None:
    with (
        client.batcher(max_entries=5, in_flight=2, linger=0) as batcher,
        ThreadPoolExecutor(8) as pool,
    ):
        futures = list(pool.map(lambda n: batcher.append(b"m%d" % n), range(500)))
        assert len({future.result(30).index for future in futures}) == 500


def test_close(server: tuple[str, list[str]]) -> None:
    client = Client(server[0], vkeys=server[1], state=MemoryState())
    batcher = client.batcher(linger=60)
    waiting = batcher.append(b"never sent")
    heads = client.watch()
    next(heads)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            for _ in heads:  # what the tests before this one appended may be published meanwhile
                pass
        except ClientError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    client.close()
    client.close()
    thread.join(10)
    assert len(caught) == 1
    with pytest.raises(ClientError, match="closed"):
        waiting.result(10)
    for call in (client.checkpoint, lambda: batcher.append(b"entry")):
        with pytest.raises(ClientError, match="closed"):
            call()


def test_calls_while_it_closes(server: tuple[str, list[str]]) -> None:
    """A call either ends or is refused, whatever the moment: none waits for ever."""
    for round_ in range(20):
        client = Client(server[0], vkeys=server[1], state=MemoryState())
        ended: list[str] = []

        def call(client: Client = client, ended: list[str] = ended) -> None:
            while True:
                try:
                    client.checkpoint()
                except ClientError as error:
                    ended.append(str(error))
                    return

        threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.002 * round_)
        client.close()
        for thread in threads:
            thread.join(10)
        assert len(ended) == 4
        assert [message for message in ended if "closed" not in message] == []


def test_fork(client: Client) -> None:
    client.checkpoint()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            client.checkpoint()
        except ClientError as error:
            code = 0 if "fork" in str(error) else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.checkpoint()


INTERRUPTED = """
import sys
from tlog import Client
client = Client(sys.argv[1], vkeys=sys.argv[2:])
heads = client.watch()
next(heads)
print("waiting", flush=True)
try:
    for head in heads:
        pass
except KeyboardInterrupt:
    print("size", client.checkpoint().size, flush=True)
    if "leave" not in sys.argv:
        client.close()
"""


def test_ctrl_c(server: tuple[str, list[str]], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, server[0], *server[1]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert out.startswith("size")
    assert err == ""
    assert process.returncode == 0
