"""Calls outward: to witnesses, and to logs for what gossip needs to settle a question.

The ports are those of the rooms below (`tlog.log.Cosigner`, the log source of gossip); here they
are spoken over HTTP (tlog-witness, tlog-tiles) and gRPC (`tlog.v1`). No rules live here: answers
are bounded and read strictly, and verified by whoever asked. `connect` reaches a witness by the
URL in a policy, `connections` does so and closes what it opened; `RemoteLogs` reaches logs.
"""

from tlog.remote.addresses import AddressError
from tlog.remote.http import RemoteError
from tlog.remote.logs import RemoteLogs
from tlog.remote.witness import RemoteWitness, connect, connections

__all__ = [
    "AddressError",
    "RemoteError",
    "RemoteLogs",
    "RemoteWitness",
    "connect",
    "connections",
]
