"""The gRPC server of logs, and of the records in them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from tlog.serve.audit_service import AUDIT_REFUSALS, AuditService, audit_status
from tlog.serve.evidence_service import EVIDENCE_REFUSALS, EvidenceService, evidence_status
from tlog.serve.grpc_listener import grpc_listener
from tlog.serve.handlers import generic_handler
from tlog.serve.log_service import LogService
from tlog.serve.logs import Logs
from tlog.serve.order_service import ORDER_REFUSALS, OrderService, order_status
from tlog.serve.report_service import REPORT_REFUSALS, ReportService, report_status
from tlog.serve.tenants import Tenants
from tlog.v1 import audit_pb2, evidence_pb2, log_pb2, orders_pb2, reports_pb2

if TYPE_CHECKING:
    from tlog.audit.records import Records
    from tlog.audit.stamper import Stamper

# A batch of 16,384 entries of 2 KiB.
MAX_MESSAGE_BYTES = 32 << 20

_LOGS = log_pb2.DESCRIPTOR.services_by_name["LogService"]
_EVIDENCE = evidence_pb2.DESCRIPTOR.services_by_name["EvidenceService"]
_ORDERS = orders_pb2.DESCRIPTOR.services_by_name["OrderService"]
_RECORDS = audit_pb2.DESCRIPTOR.services_by_name["AuditService"]
_REPORTS = reports_pb2.DESCRIPTOR.services_by_name["ReportService"]


def grpc_server(
    logs: Logs,
    address: str,
    *,
    records: Mapping[str, Records] | None = None,
    stampers: Mapping[str, Stamper] | None = None,
) -> AbstractAsyncContextManager[int]:
    """Serve the logs over gRPC: see `grpc_listener`. On leaving, endless calls are ended.

    Args:
        logs: the logs.
        address: HOST:PORT.
        records: those of the records logs among them, by the log's name.
        stampers: what has their time-stamps, of those that have some.
    """
    service = LogService(logs)
    tenants = Tenants(logs, records or {}, {} if stampers is None else stampers)
    audit, orders = AuditService(tenants), OrderService(tenants)
    evidence = EvidenceService(tenants)
    return grpc_listener(
        {
            _LOGS.full_name: generic_handler(_LOGS, service),
            _RECORDS.full_name: generic_handler(
                _RECORDS, audit, refusals=AUDIT_REFUSALS, status_of=audit_status
            ),
            _REPORTS.full_name: generic_handler(
                _REPORTS,
                ReportService(tenants),
                refusals=REPORT_REFUSALS,
                status_of=report_status,
            ),
            _ORDERS.full_name: generic_handler(
                _ORDERS, orders, refusals=ORDER_REFUSALS, status_of=order_status
            ),
            _EVIDENCE.full_name: generic_handler(
                _EVIDENCE, evidence, refusals=EVIDENCE_REFUSALS, status_of=evidence_status
            ),
        },
        address,
        max_message_bytes=MAX_MESSAGE_BYTES,
        drain=service.drain,
    )
