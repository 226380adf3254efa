"""One witness: it cosigns a head only when that is proven to follow from the last it cosigned.

`Witness` is the state machine of c2sp.org/tlog-witness; `rules` has its checks, `commits` makes
its record durable before anything is answered, `logs` is the list of logs that it trusts, edited
while it runs. `requests` reads and writes the bodies of the protocol's HTTP face. Each refusal is
a typed error with the specification's status. Nothing here knows gRPC or HTTP; who keeps evidence
of a log's misbehaviour is handed in as `OnInconsistent`.
"""

from tlog.witness.config import WitnessConfig, create_witness
from tlog.witness.errors import (
    BadRequest,
    BadSignature,
    Conflict,
    Frozen,
    Refusal,
    TooManyRequests,
    Unavailable,
    UnknownOrigin,
    Unprocessable,
    WitnessError,
)
from tlog.witness.head import Inconsistency, OnInconsistent, contradicts
from tlog.witness.logs import (
    FreezeReason,
    LogList,
    TrustedLog,
    add_log,
    freeze,
    rekey,
    remove,
    unfreeze,
)
from tlog.witness.requests import (
    MAX_BODY_SIZE,
    AddCheckpoint,
    SignSubtree,
    parse_add_checkpoint,
    parse_sign_subtree,
)
from tlog.witness.witness import Witness, hash_origin

__all__ = [
    "MAX_BODY_SIZE",
    "AddCheckpoint",
    "BadRequest",
    "BadSignature",
    "Conflict",
    "FreezeReason",
    "Frozen",
    "Inconsistency",
    "LogList",
    "OnInconsistent",
    "Refusal",
    "SignSubtree",
    "TooManyRequests",
    "TrustedLog",
    "Unavailable",
    "UnknownOrigin",
    "Unprocessable",
    "Witness",
    "WitnessConfig",
    "WitnessError",
    "add_log",
    "contradicts",
    "create_witness",
    "freeze",
    "hash_origin",
    "parse_add_checkpoint",
    "parse_sign_subtree",
    "rekey",
    "remove",
    "unfreeze",
]
