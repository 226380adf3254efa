"""Recording at the point of action.

    with Producer("127.0.0.1:6962", key="shop.key", tenant="acme", spool="spool") as producer:
        producer.record("request.received", subject="alice@example.com",
                        request_id="R-1", request_type="delete", channel="webform")

What the type of an event declares public stands in the clear; every other claim is personal, and
nothing that a caller writes can change that.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast

from tlog.audit import Catalogue, Draft, EventRefused, default_catalogue, sign_event
from tlog.audit.event import new_event_id
from tlog.audit.sdjwt import check_decoys
from tlog.client.drain import Drain, EventSink, Refusal
from tlog.client.errors import SpoolError, SpoolFull
from tlog.client.heartbeat import Heartbeat, check_seconds
from tlog.client.operation import Operation
from tlog.client.recording import AuditServiceSink
from tlog.client.spool import DEFAULT_BYTES, Spool
from tlog.notes import Algorithm, load_signer

P = ParamSpec("P")
R = TypeVar("R")

Subject = str | Mapping[str, Any]
"""A data subject: its identifier, or its claims, of which `id` is the identifier."""

# What an event says of itself; a caller's claim of the same name would be lost.
_OWN = frozenset(
    {"type", "schema_version", "tenant", "producer_id", "producer_seq", "_sd_alg", "_sd"}
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that is on the disk.

    Attributes:
        seq: its place in the producer's sequence.
    """

    seq: int
    event_id: str


class Producer:
    """Records what an application does, signed with its key, by way of a spool on the disk.

    Any number of threads may use it; a child of a fork makes its own, with another key and spool.

    Args:
        target: address of the server, `host:port`, or another sink.
        key: the producer's key file, whose name is the producer's id.
        tenant: as in the claims of its events.
        spool: directory of the spool.
        log: name of the log; empty when the server holds only one.
        catalogue: the types of events; those of tlog, if not given.
        passphrase: of a key file that is sealed.
        max_bytes: of the spool.
        on_refused: told of each event that the server refuses for good, on a thread of its own.
        abandon_damaged: see `Spool`.
        decoys: how many personal claims a part of an event has stands in the log for ever, as the
            number of its digests; decoys fill that up to a multiple of this, at most 32.
        heartbeat: record `log.heartbeat` when nothing else was recorded for so many seconds.

    Raises:
        EventRefused: too many decoys.
        NoteError: the key file.
        SpoolError, StateError: the spool cannot be used; see `Spool`. Or see `check_seconds`.
    """

    def __init__(
        self,
        target: str | EventSink,
        *,
        key: str | Path,
        tenant: str,
        spool: str | Path,
        log: str = "",
        catalogue: Catalogue | None = None,
        passphrase: bytes | None = None,
        max_bytes: int = DEFAULT_BYTES,
        on_refused: Callable[[Refusal], None] | None = None,
        abandon_damaged: bool = False,
        decoys: int = 0,
        heartbeat: float | None = None,
    ) -> None:
        check_decoys(decoys)
        if heartbeat is not None:
            check_seconds(heartbeat)
        self._decoys = decoys
        self._signer = load_signer(key, passphrase=passphrase)
        if self._signer.vkey.algorithm is not Algorithm.ED25519:
            raise SpoolError(f"{key}: events are signed with Ed25519: make the producer such a key")
        self._tenant = tenant
        self._catalogue = catalogue or default_catalogue()
        self.spool = Spool(
            spool,
            owner=f"{tenant}/{self._signer.vkey.name}",
            max_bytes=max_bytes,
            abandon_damaged=abandon_damaged,
        )
        try:
            sink = AuditServiceSink(target, log=log) if isinstance(target, str) else target
            self._drain = Drain(
                self.spool, sink, kid=self._signer.vkey.label, on_refused=on_refused
            )
        except BaseException:
            self.spool.close()
            raise
        self._heartbeat: Heartbeat | None = None
        if heartbeat is not None:
            beat = functools.partial(self._beat, math.ceil(heartbeat))
            self._heartbeat = Heartbeat(beat, heartbeat)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def problem(self) -> str:
        """Why nothing reaches the server at the moment; empty while all is well."""
        return self._drain.problem

    def check(self) -> None:
        """Raise SpoolError if nothing can be recorded at the moment."""
        self.spool.check()

    def record(
        self,
        type_name: str,
        /,
        *,
        subject: Subject | None = None,
        subjects: Sequence[Subject] = (),
        occurred_at: datetime | None = None,
        event_id: str = "",
        **claims: Any,
    ) -> Kept:
        """Record an event; it is on the disk, and will be in the log, when this returns.

        Args:
            type_name: its type, of which the newest version is signed.
            subject: whom it is about.
            subjects: the same, of several.
            occurred_at: when it happened, with a time zone; now, if not given.
            event_id: a UUID of version 7; a new one, if not given.
            claims: what it says. Those that the type does not declare public are personal. Bytes
                in a personal one are kept verbatim, 32 KiB at most: `tlog.client.bytes_of` has
                them back from what is read.

        Raises:
            EventRefused: a claim is wrong or missing, or looks personal and would be public. The
                message names it; nothing was recorded, and no number is missing.
            SpoolFull, SpoolError: it could not be kept.
        """
        draft = self._draft(
            type_name,
            [*([] if subject is None else [subject]), *subjects],
            occurred_at,
            event_id or new_event_id(),
            claims,
        )

        def sign(seq: int) -> bytes:
            return sign_event(
                draft, self._signer, tenant=self._tenant, seq=seq, catalogue=self._catalogue
            ).encode("ascii")

        kept = Kept(self.spool.append(sign), draft.event_id)
        if self._heartbeat is not None:
            self._heartbeat.note()
        return kept

    def _beat(self, seconds: int) -> None:
        if self.spool.used_bytes > self.spool.max_bytes // 2:
            raise SpoolFull(f"{self.spool.waiting} records wait: what room is left is for others")
        self.record("log.heartbeat", interval_seconds=seconds)

    def _draft(
        self,
        type_name: str,
        subjects: Sequence[Subject],
        occurred_at: datetime | None,
        event_id: str,
        claims: Mapping[str, Any],
    ) -> Draft:
        kind = self._catalogue.newest_of(type_name)
        if taken := _OWN & claims.keys():
            raise EventRefused("an event says it of itself: leave it out", field=min(taken))
        public = {name: value for name, value in claims.items() if name in kind.public}
        return Draft(
            type_name,
            public,
            {name: value for name, value in claims.items() if name not in public},
            [{"id": each} if isinstance(each, str) else each for each in subjects],
            occurred_at,
            event_id,
            kind.version,
            self._decoys,
        )

    def operation(
        self,
        type_name: str,
        /,
        *,
        subject: Subject | None = None,
        subjects: Sequence[Subject] = (),
        **claims: Any,
    ) -> Operation:
        """Record an operation when it ends, with its outcome: use it in a `with` block.

        See `Operation`; the other arguments are those of `record`.
        """
        self._catalogue.newest_of(type_name)
        about = [*([] if subject is None else [subject]), *subjects]
        return Operation(self, type_name, subjects=about, claims=claims)

    def recorded(
        self, type_name: str, /, **claims: Any
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function, plain or async: each call of it is an `operation`.

        It must be done when it returns: TypeError if it gives back a coroutine or a generator.
        A claim, or the subject, that is a function gets the arguments of the call:

            @producer.recorded("access.read", subject=lambda customer: customer, purpose="support")
            def show(customer: str) -> Page: ...
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"{function.__qualname__} is a generator: use `operation` in it")

            def operation(*args: P.args, **kwargs: P.kwargs) -> Operation:
                said = {n: v(*args, **kwargs) if callable(v) else v for n, v in claims.items()}
                return self.operation(type_name, **said)

            if inspect.iscoroutinefunction(function):

                @functools.wraps(function)
                async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                    async with operation(*args, **kwargs):
                        return await function(*args, **kwargs)

                return cast(Callable[P, R], call_async)

            @functools.wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                with operation(*args, **kwargs):
                    return _done(function(*args, **kwargs))

            return call

        return decorate

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the server has all that was recorded before this call; whether it has."""
        return self.spool.wait_delivered(timeout)

    def close(self, *, timeout: float = 0.0) -> None:
        """Give the server this many seconds, and stop; what it does not have stays in the spool.

        By default there is no wait: nothing is lost, and a service ends at once when its server is
        away. A script whose records are to be there when it ends calls `flush` first.
        """
        if self.spool.forked:
            return
        if self._heartbeat is not None:
            self._heartbeat.close()
        if timeout:
            self.flush(timeout)
        self._drain.close()
        self.spool.close()


def _done(result: R) -> R:
    """What a function gave back, if nothing of it is yet to run."""
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"a {type(result).__name__} is yet to run: decorate the async function itself, or use "
            "`operation`"
        )
    return result
