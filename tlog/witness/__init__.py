"""One witness: it cosigns a head only when that is proven to follow from the last it cosigned.

`Witness` is the state machine of c2sp.org/tlog-witness; `rules` has its checks, `commits` signs
heads and makes them durable before anything is answered, `logs` is the list of logs that it
trusts, edited while it runs. `requests` reads and writes the bodies of the protocol's HTTP face.
Each refusal is a typed error with the specification's status.

`Gossip` compares heads with other witnesses, asks logs for proofs, and makes a `Conflict` of what
a log cannot have signed honestly: a file that `verify_conflict` judges offline. `Node` is both
together, as they are served. Nothing here knows gRPC or HTTP: peers and logs are ports.

Gossip, measured (`tests/witness/simulation.py`): a log shows another history to one of n
witnesses; 30 % of them lie, each message is lost with 20 % and late by 2 s on average, a round has
30 s and two peers. Rounds until every honest witness holds the evidence, median and worst:

    n      peers of each    log2 n    median    worst    runs
    25     8                4.6       5         8        20
    50     8                5.6       6         8        40
    50     all              5.6       3         5        40
    100    8                6.6       6         10       10
    200    8                7.6       9         11       5
"""

from tlog.witness.config import PeerConfig, WitnessConfig, add_peer, create_witness
from tlog.witness.conflict import (
    MAX_CONFLICT_SIZE,
    Conflict,
    ConflictError,
    ConflictKind,
    parse_conflict,
    verify_conflict,
)
from tlog.witness.errors import (
    BadRequest,
    BadSignature,
    Frozen,
    Refusal,
    SizeConflict,
    TooManyRequests,
    Unavailable,
    UnknownOrigin,
    Unprocessable,
    WitnessError,
)
from tlog.witness.evidence import EvidenceStore
from tlog.witness.exchange import MAX_MESSAGE_SIZE, Peer
from tlog.witness.gossip import Gossip
from tlog.witness.head import Inconsistency, OnInconsistent, contradicts
from tlog.witness.identity import CHALLENGE_SIZE, proves_identity
from tlog.witness.limits import GossipLimits
from tlog.witness.logs import (
    FreezeReason,
    LogList,
    TrustedLog,
    add_log,
    freeze,
    rekey,
    remove,
    set_url,
    unfreeze,
)
from tlog.witness.node import Node, Outward
from tlog.witness.proving import LogSource
from tlog.witness.requests import (
    MAX_BODY_SIZE,
    AddCheckpoint,
    SignSubtree,
    parse_add_checkpoint,
    parse_sign_subtree,
)
from tlog.witness.sightings import Head, Unproven, Verdict
from tlog.witness.witness import Witness, hash_origin

__all__ = [
    "CHALLENGE_SIZE",
    "MAX_BODY_SIZE",
    "MAX_CONFLICT_SIZE",
    "MAX_MESSAGE_SIZE",
    "AddCheckpoint",
    "BadRequest",
    "BadSignature",
    "Conflict",
    "ConflictError",
    "ConflictKind",
    "EvidenceStore",
    "FreezeReason",
    "Frozen",
    "Gossip",
    "GossipLimits",
    "Head",
    "Inconsistency",
    "LogList",
    "LogSource",
    "Node",
    "OnInconsistent",
    "Outward",
    "Peer",
    "PeerConfig",
    "Refusal",
    "SignSubtree",
    "SizeConflict",
    "TooManyRequests",
    "TrustedLog",
    "Unavailable",
    "UnknownOrigin",
    "Unprocessable",
    "Unproven",
    "Verdict",
    "Witness",
    "WitnessConfig",
    "WitnessError",
    "add_log",
    "add_peer",
    "contradicts",
    "create_witness",
    "freeze",
    "hash_origin",
    "parse_add_checkpoint",
    "parse_conflict",
    "parse_sign_subtree",
    "proves_identity",
    "rekey",
    "remove",
    "set_url",
    "unfreeze",
    "verify_conflict",
]
