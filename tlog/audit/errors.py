"""What the records layer refuses, and why. Messages tell the caller what to do."""

from __future__ import annotations


class AuditError(Exception):
    """Anything the records layer refuses.

    Attributes:
        field: which claim or setting was wrong, as a dotted path; empty if none.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class EventRefused(AuditError, ValueError):
    """An event that can never be recorded as it is."""


class OrderRefused(AuditError, ValueError):
    """An order that is not carried out: it is not what two approvers may sign, or not any more."""


class Held(AuditError):
    """What an order would destroy is under a legal hold."""


class CatalogueError(AuditError, ValueError):
    """A catalogue of event types that cannot be used."""


class AlertError(AuditError):
    """An alert did not reach whom it was for, or is not remembered. The message says why."""
