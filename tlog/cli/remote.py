"""Where the client verbs connect to, and whom they trust."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tlog.cli.options import vkey_option
from tlog.cli.output import Output
from tlog.cli.trust import policy_options

if TYPE_CHECKING:
    from tlog.client import AsyncClient
    from tlog.notes import Policy, VerifierKey

DEFAULT_SERVER = "127.0.0.1:6962"


@dataclass(frozen=True, slots=True)
class Remote:
    """A log on a server, and the keys and the policy to verify it with, if any were given."""

    server: str
    log: str
    vkeys: tuple[VerifierKey, ...]
    policy: Policy | None

    @contextlib.asynccontextmanager
    async def client(self, out: Output) -> AsyncIterator[AsyncClient]:
        """Connect. Without keys, a server on this machine is believed once, and its keys pinned."""
        from tlog.client import AsyncClient, FileState, default_path

        state = FileState(default_path(self.server, self.log))
        first_use = not self.vkeys and self.policy is None and state.load() is None
        if first_use and not _is_loopback(self.server):
            raise click.UsageError(
                f"a --vkey or a --policy is needed: {self.server} is not this machine, and its "
                "keys are not known"
            )
        async with AsyncClient(
            self.server,
            vkeys=self.vkeys or None,
            policy=self.policy,
            log=self.log,
            state=state,
            trust_on_first_use=first_use,
        ) as client:
            yield client
            if first_use and state.load() is not None:
                out.hint(
                    f"Trusted {self.server} on first use: its keys are now pinned in {state}. "
                    "Give --vkey to rely on your own copy."
                )


@dataclass(frozen=True, slots=True)
class Server:
    """A log on a server whose word is taken."""

    target: str
    log: str


Asynchronous = Callable[..., Coroutine[None, None, Any]]

_server_option = click.option(
    "--server",
    default=DEFAULT_SERVER,
    envvar="TLOG_SERVER",
    metavar="HOST:PORT",
    help="gRPC address. [env: TLOG_SERVER; default: 127.0.0.1:6962]",
)
_log_option = click.option(
    "--log",
    default="",
    envvar="TLOG_LOG",
    metavar="NAME",
    help="Which log, if the server holds several. [env: TLOG_LOG]",
)


def server_options(verb: Asynchronous) -> Asynchronous:
    """`--server` and `--log`: given to the verb as one `server`."""

    @_server_option
    @_log_option
    @functools.wraps(verb)
    def call(*, server: str, log: str, **others: object) -> Coroutine[None, None, Any]:
        return verb(server=Server(server, log), **others)

    return call


def remote_options(verb: Asynchronous) -> Asynchronous:
    """`--server`, `--log`, `--vkey`, `--policy`, `--max-age`: given to the verb as one `remote`."""

    @_server_option
    @_log_option
    @vkey_option("Verifier key of the log; without one, a server on this machine is trusted once.")
    @policy_options
    @functools.wraps(verb)
    def call(
        *,
        server: str,
        log: str,
        vkeys: tuple[VerifierKey, ...],
        policy: Policy | None,
        **others: object,
    ) -> Coroutine[None, None, Any]:
        return verb(remote=Remote(server, log, vkeys, policy), **others)

    return call


def _is_loopback(server: str) -> bool:
    host = server.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
