"""Calls outward: to witnesses, to gossip peers, and to logs for what gossip needs to settle.

The ports are those of the rooms below (`tlog.log.Cosigner`, `tlog.witness.Outward`,
`tlog.merkle.TileSource`); here they are spoken over HTTP (tlog-witness, tlog-tiles) and gRPC
(`tlog.v1`). No rules live here: answers are bounded and read strictly, and verified by whoever
asked. `connect` reaches a witness by the URL in a policy, `connections` does so and closes what it
opened, and `time_stampers` does it for time-stamp authorities; `open_source` reads the tiles and
entries of a log, `RemoteLogs` asks what gossip needs; `WitnessClient` brings heads to a witness and
asks it for evidence; `gossip_connections` has the ways out of a witness.
"""

from tlog.remote.addresses import AddressError, parse_address
from tlog.remote.grpc import RemoteRefusal
from tlog.remote.http import RemoteError
from tlog.remote.logs import RemoteLogs
from tlog.remote.peers import WitnessClient, check_peer_url, gossip_connections
from tlog.remote.sources import open_source
from tlog.remote.timestamps import time_stampers
from tlog.remote.witness import RemoteWitness, connect, connections

__all__ = [
    "AddressError",
    "RemoteError",
    "RemoteLogs",
    "RemoteRefusal",
    "RemoteWitness",
    "WitnessClient",
    "check_peer_url",
    "connect",
    "connections",
    "gossip_connections",
    "open_source",
    "parse_address",
    "time_stampers",
]
