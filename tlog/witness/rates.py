"""How often, per log: a token bucket for each key that is in use, and nothing for the others."""

from collections.abc import Callable


class Rates:
    """Token buckets, each kept as the one time at which it will be full again.

    Args:
        rate: tokens per second.
        burst: tokens of a full bucket.
        clock: seconds, from any beginning.
    """

    def __init__(self, *, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._interval = 1 / rate
        self._slack = (burst - 1) / rate
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._prune_at = 1024

    def take(self, key: str) -> float:
        """Take a token; 0 if there was one, else the seconds until there is one again."""
        now = self._clock()
        full_at = max(self._full_at.get(key, now), now)
        if (wait := full_at - now - self._slack) > 0:
            return wait
        if len(self._full_at) >= self._prune_at:
            # A full bucket is the same as none.
            self._full_at = {k: at for k, at in self._full_at.items() if at > now}
            self._prune_at = max(1024, 2 * len(self._full_at))
        self._full_at[key] = full_at + self._interval
        return 0.0
