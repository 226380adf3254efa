"""Who calls, as the kernel knows it."""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tlog.audit import EventRefused
from tlog.audit.reading import Access, Caller
from tlog.serve import callers
from tlog.serve.callers import caller_of, owner_of

ME = Caller(pwd.getpwuid(os.getuid()).pw_name, "local_user")


def context(peer: str) -> Any:
    return SimpleNamespace(peer=lambda: peer)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_local_user(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
    ):
        peer, port = client.getsockname()[:2]
        if family == socket.AF_INET:
            assert caller_of(context(f"ipv4:{peer}:{port}")) == ME
        else:
            assert caller_of(context(f"ipv6:%5B{peer}%5D:{port}")) == ME
            assert caller_of(context(f"ipv6:[{peer}]:{port}")) == ME


def test_a_socket_of_ipv6_that_speaks_ipv4() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as client,
    ):
        client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        port = client.getsockname()[1]
        assert caller_of(context(f"ipv4:127.0.0.1:{port}")) == ME
        assert caller_of(context(f"ipv6:%5B::ffff:127.0.0.1%5D:{port}")) == ME


def test_a_socket_that_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert owner_of(ipaddress.ip_address("127.0.0.1"), port) is None
    assert caller_of(context(f"ipv4:127.0.0.1:{port}")) == Caller("this machine", "unknown")


@pytest.mark.parametrize(
    ("peer", "where"),
    [
        ("ipv4:10.1.2.3:1", "this network"),
        ("ipv4:8.8.8.8:1", "the internet"),
        ("ipv6:%5B2a00::1%5D:1", "the internet"),
        ("ipv4:999.1.1.1:1", "nowhere"),
        ("unix:/tmp/socket", "nowhere"),
        ("", "nowhere"),
        ("ipv4:127.0.0.1:99999999", "nowhere"),
    ],
)
def test_who_is_not_known(peer: str, where: str) -> None:
    assert caller_of(context(peer)) == Caller(where, "unknown")


def test_no_table_and_a_table_of_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tcp").write_text("sl local\n x\n0: 0100007F:0001 0 01 0 0 0 nobody\n")
    tables = (tmp_path / "tcp", tmp_path / "gone")
    monkeypatch.setattr(callers, "_TABLES", tables)
    assert caller_of(context("ipv4:127.0.0.1:1")) == Caller("this machine", "unknown")


HEADER = "sl local_address rem_address st queues tr retrnsmt uid timeout\n"


def row(uid: object, state: str = "01", port: int = 1) -> str:
    return f"0: 0100007F:{port:04X} 00000000:0000 {state} 0:0 0:0 0 {uid} 0\n"


@pytest.mark.parametrize(
    ("rows", "who"),
    [
        ([row(4000000001)], Caller("uid 4000000001", "local_user")),
        # Left of a connection before, from the same port: its owner is said to be 0.
        ([row(0, "06"), row(4000000001)], Caller("uid 4000000001", "local_user")),
        ([row(0, "06")], Caller("this machine", "unknown")),
        ([row(0, "0A"), row(4000000001)], Caller("uid 4000000001", "local_user")),
        ([row(4000000001), row(4000000001)], Caller("uid 4000000001", "local_user")),
        # Somebody else's connection to another server, from the same port.
        ([row(4000000001), row(4000000002)], Caller("this machine", "unknown")),
        ([row(4000000001), row("x")], Caller("this machine", "unknown")),
        ([row(4000000001, port=2)], Caller("this machine", "unknown")),
    ],
)
def test_whose_connection_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str], who: Caller
) -> None:
    for order in (rows, rows[::-1]):
        (tmp_path / "tcp").write_text(HEADER + "".join(order))
        monkeypatch.setattr(callers, "_TABLES", (tmp_path / "tcp", tmp_path / "tcp"))
        assert caller_of(context("ipv4:127.0.0.1:1")) == who


@pytest.mark.parametrize("purpose", ["", " ", "x" * 257, "for bob@example.com", "a\nb"])
def test_a_purpose_that_is_none(purpose: str) -> None:
    with pytest.raises(EventRefused) as caught:
        Access(ME, purpose)
    assert caught.value.field == "purpose"
