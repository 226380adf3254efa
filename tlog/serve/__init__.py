"""Calls inward: gRPC and HTTP, translated for the rooms below and back.

Thin adapters. What a log may do is decided in `tlog.log`; here requests are bounded and parsed,
and refusals become codes. `Logs` holds what a server serves; `grpc_server` and `http_server` serve
it until they are left, `witness_grpc_server` and `witness_http_server` a witness, and
`mirror_http_server` a mirror.
"""

from tlog.serve.addresses import check_address
from tlog.serve.grpc import grpc_server
from tlog.serve.http import http_server
from tlog.serve.logs import Logs, UnknownLog
from tlog.serve.mirror_http import mirror_http_server
from tlog.serve.witness_http import witness_http_server
from tlog.serve.witness_service import witness_grpc_server

__all__ = [
    "Logs",
    "UnknownLog",
    "check_address",
    "grpc_server",
    "http_server",
    "mirror_http_server",
    "witness_grpc_server",
    "witness_http_server",
]
