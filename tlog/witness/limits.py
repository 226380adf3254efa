"""How much a witness gossips, what that may cost, and what is counted of it."""

from dataclasses import dataclass
from typing import Final

MAX_REFUSED: Final = 16
"""Bad signatures and false conflicts of one message, after which the rest of it is ignored."""
MAX_RECEIVING: Final = 8
"""Messages that are judged at once."""
EVENTS: Final = (
    *("rounds", "peer_failures", "unknown_origins", "refused"),
    *("claims", "proof_requests", "proven", "unproven"),
    *("conflicts_found", "conflicts_received"),
)
"""What is counted."""


@dataclass(frozen=True, slots=True)
class GossipLimits:
    """How often, and how long; seconds, and proofs per second."""

    interval: float = 30.0
    """Between rounds, on average."""
    fanout: int = 2
    """Peers of a round."""
    peer_timeout: float = 10.0
    proof_timeout: float = 10.0
    """After which a head is unproven."""
    proof_rate: float = 0.1
    """Proofs asked of one log, in the long run."""
    proof_burst: int = 4
    all_proofs_rate: float = 50.0
    """Proofs asked of all logs."""
    all_proofs_burst: int = 200
    parallel_proofs: int = 16
    first_retry: float = 10.0
    last_retry: float = 3600.0
