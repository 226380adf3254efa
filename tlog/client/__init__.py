"""What users import: clients of a log that believe nothing they cannot verify.

`AsyncClient` for asyncio, `Client` for threads: one implementation. `verification` has the rules,
pure; `Verifier` applies them where there is no connection; `heads` follows a log from head to head,
and `state` remembers the last one between runs; `transport` knows gRPC, its deadlines and retries;
`batcher` makes many single appends fast. An answer that breaks a rule raises `VerificationError`,
and nothing of it is remembered. `Auditor` holds a whole log against its head (`walk`, `opinion`)
and its past (`progress`). `Monitor` follows logs for years: `watch` has one of them, `watchfile`
what is remembered of it, and `rules` what is looked for in entries. `Producer` records at the point
of action: `spool` keeps the records on the local disk, and `drain` brings them to the server;
`heartbeat` gives signs of life, and `hooks` records from frameworks. What goes on without a caller
is told through `logging`, of which the application has the say.
"""

from tlog.audit import bytes_of
from tlog.client.aio import AsyncClient
from tlog.client.auditor import Audit, Auditor
from tlog.client.batcher import Batcher
from tlog.client.drain import Declined, EventSink, Recorded, Refusal
from tlog.client.errors import (
    ClientError,
    Refused,
    SpoolDamaged,
    SpoolError,
    SpoolFull,
    StateError,
    TimedOut,
    TrustError,
    Unreachable,
    VerificationError,
    Violation,
)
from tlog.client.monitor import DeliveryError, Monitor, Sink
from tlog.client.operation import Operation
from tlog.client.producer import Kept, Producer
from tlog.client.progress import AuditFile, AuditState, MemoryAudit, Progress
from tlog.client.recording import AuditServiceSink
from tlog.client.rules import Rule, RuleError
from tlog.client.state import FileState, MemoryState, Record, State, default_path
from tlog.client.status import LogStatus, WitnessStatus
from tlog.client.sync import Client, SyncBatcher
from tlog.client.values import Appended, LogInfo, Wait
from tlog.client.verification import Head, Inclusion
from tlog.client.verifier import Receipt, Verifier
from tlog.client.watch import Watch
from tlog.client.watchfile import WatchFile

__all__ = [
    "Appended",
    "AsyncClient",
    "Audit",
    "AuditFile",
    "AuditServiceSink",
    "AuditState",
    "Auditor",
    "Batcher",
    "Client",
    "ClientError",
    "Declined",
    "DeliveryError",
    "EventSink",
    "FileState",
    "Head",
    "Inclusion",
    "Kept",
    "LogInfo",
    "LogStatus",
    "MemoryAudit",
    "MemoryState",
    "Monitor",
    "Operation",
    "Producer",
    "Progress",
    "Receipt",
    "Record",
    "Recorded",
    "Refusal",
    "Refused",
    "Rule",
    "RuleError",
    "Sink",
    "SpoolDamaged",
    "SpoolError",
    "SpoolFull",
    "State",
    "StateError",
    "SyncBatcher",
    "TimedOut",
    "TrustError",
    "Unreachable",
    "VerificationError",
    "Verifier",
    "Violation",
    "Wait",
    "Watch",
    "WatchFile",
    "WitnessStatus",
    "bytes_of",
    "default_path",
]
