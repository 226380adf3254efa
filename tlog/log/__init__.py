"""One log: entries are put in order, made durable, signed, published, read and proven.

`Log` puts the parts of this room together: the sequencer (write path), the publisher (signs and
shows heads) and the reader (entries and proofs). Nothing here knows gRPC or HTTP; the rooms above
translate. The rules that keep a log append-only live in `publisher.HeadSigner` and `startup`.
"""

from tlog.log.config import LogConfig
from tlog.log.cosigners import CosignerStatus
from tlog.log.errors import (
    EntryNotFound,
    InvalidRequest,
    LogError,
    OutOfRange,
    Overloaded,
    Reserved,
    ShuttingDown,
    StateRefused,
    Unavailable,
)
from tlog.log.fsck import FsckReport, fsck
from tlog.log.head import Head
from tlog.log.log import Connect, Log, Receipt, create_log, load_signers
from tlog.log.reader import Reader
from tlog.log.sequencer import Accepted

__all__ = [
    "Accepted",
    "Connect",
    "CosignerStatus",
    "EntryNotFound",
    "FsckReport",
    "Head",
    "InvalidRequest",
    "Log",
    "LogConfig",
    "LogError",
    "OutOfRange",
    "Overloaded",
    "Reader",
    "Receipt",
    "Reserved",
    "ShuttingDown",
    "StateRefused",
    "Unavailable",
    "create_log",
    "fsck",
    "load_signers",
]
