"""The logs of one server, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tlog.log import Log, LogError


class UnknownLog(LogError, LookupError):
    """No log of this server has the name that was asked for."""


class Logs:
    """All logs that a server holds. A server with one log may be addressed without its name."""

    def __init__(self, logs: Iterable[Log]) -> None:
        self._by_name: dict[str, Log] = {}
        for log in logs:
            if log.name in self._by_name:
                raise LogError(f"two logs are named {log.name!r}: give one another name")
            self._by_name[log.name] = log
        if not self._by_name:
            raise LogError("no logs to serve")

    def __iter__(self) -> Iterator[Log]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Log:
        """The log of that name; the only one when the name is empty.

        Raises:
            UnknownLog: there is none; the message says which there are.
        """
        if not name and len(self._by_name) == 1:
            return next(iter(self._by_name.values()))
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(self._by_name)[:10])
            what = f"no log is named {name[:80]!r}" if name else "this server holds several logs"
            raise UnknownLog(f"{what}: name one of {known}", field="log") from None


def readable(name: str) -> str:
    """A name of a policy, whose octets need not be UTF-8, as text that can be sent."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
