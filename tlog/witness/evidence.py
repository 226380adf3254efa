"""Where a witness keeps conflicts: `DIR/conflicts/<digest>.conflict`, a file each.

Nothing here verifies: what is kept was verified by whoever keeps it. A log is *in conflict* as
long as there is a file of it. The operator's `clear` renames its files to `<digest>.cleared`, and
the same conflict is not taken again; another one of the same log is.
"""

import os
import re
from itertools import zip_longest
from pathlib import Path
from typing import Final

import structlog

from tlog.notes.codec import shown
from tlog.store.disk import sync_directory
from tlog.witness.conflict import MAX_CONFLICT_SIZE, Conflict, ConflictError, parse_conflict
from tlog.witness.errors import WitnessError
from tlog.witness.exchange import MAX_MESSAGE_SIZE, fit
from tlog.witness.logs import unfreeze

DIRECTORY: Final = "conflicts"
MAX_PER_ORIGIN: Final = 8
"""Conflicts kept of one log: one is enough, and a log can make any number."""

_KEPT: Final = ".conflict"
_CLEARED: Final = ".cleared"
_NAME: Final = re.compile(rf"([0-9a-f]{{32}})({re.escape(_KEPT)}|{re.escape(_CLEARED)})")
_logger = structlog.get_logger(__name__)


class EvidenceStore:
    """The conflicts of one witness, up to date with the directory after `refresh`.

    Args:
        directory: of the witness.

    Raises:
        WitnessError: it cannot be read or made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / DIRECTORY
        self._names: frozenset[str] = frozenset()
        self._kept: dict[str, dict[str, bytes]] = {}  # origin -> digest -> file
        self._seen: set[str] = set()
        self.refresh()

    def __contains__(self, origin: str) -> bool:
        return origin in self._kept

    def knows(self, digest: str) -> bool:
        """Whether this conflict is kept, or was cleared."""
        return digest in self._seen

    def has_room(self, origin: str) -> bool:
        """Whether another conflict of the log would be kept."""
        return len(self._kept.get(origin, ())) < MAX_PER_ORIGIN

    def origins(self) -> list[str]:
        """The logs in conflict, sorted."""
        return sorted(self._kept)

    def files(self, origin: str) -> list[bytes]:
        """The conflicts of a log, oldest first as far as this process knows."""
        return list(self._kept.get(origin, {}).values())

    def listed(self, origin: str | None = None) -> list[bytes]:
        """What one message may hold of the conflicts of a log, or of all: of each log some.

        Raises:
            WitnessError: see `refresh`.
        """
        self.refresh()
        origins = self.origins() if origin is None else [origin]
        rows = zip_longest(*map(self.files, origins))
        return fit((data for row in rows for data in row if data is not None), MAX_MESSAGE_SIZE)

    def path_of(self, digest: str) -> Path:
        """The file of a conflict that is kept."""
        return self._path / (digest + _KEPT)

    def keep(self, conflict: Conflict) -> bool:
        """Write down a verified conflict; durable on return.

        Returns:
            Whether it is new: False for one that is known, and when the log has enough of them.

        Raises:
            WitnessError: the disk refuses.
        """
        origin, digest = conflict.origin, conflict.digest
        if self.knows(digest) or not self.has_room(origin):
            return False
        data = conflict.encode()
        path = self.path_of(digest)
        try:
            # One name for each conflict: what a crash leaves behind is overwritten or harmless.
            temporary = path.with_suffix(".new")
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(self._path)
        except OSError as error:
            raise WitnessError(f"{path}: evidence not kept: {error}") from None
        self._seen.add(digest)
        self._names |= {path.name}
        self._kept.setdefault(origin, {})[digest] = data
        return True

    def clear(self, origin: str) -> list[Path]:
        """The operator has seen to it: keep the files under other names, cosign the log again.

        Returns:
            The files as they are called now.

        Raises:
            WitnessError: the log is neither in conflict nor frozen, or the disk refuses.
        """
        self.refresh()
        cleared = []
        try:
            for digest in self._kept.pop(origin, {}):
                path = self.path_of(digest)
                cleared.append(path.rename(path.with_suffix(_CLEARED)))
            sync_directory(self._path)
        except OSError as error:
            raise WitnessError(f"{self._path}: not cleared: {error}") from None
        self.refresh()
        unfreeze(self._directory, origin)
        return cleared

    def refresh(self) -> None:
        """See what another process has done to the directory.

        Raises:
            WitnessError: it cannot be read or made.
        """
        try:
            self._path.mkdir(exist_ok=True)
            names = frozenset(filter(_NAME.fullmatch, os.listdir(self._path)))
            if names == self._names:
                return
            kept: dict[str, dict[str, bytes]] = {}
            paths = [self._path / name for name in names if name.endswith(_KEPT)]
            for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name)):
                with path.open("rb") as file:
                    data = file.read(MAX_CONFLICT_SIZE + 1)
                try:
                    conflict = parse_conflict(data)
                except ConflictError as error:
                    # One damaged file must not keep a witness from starting.
                    _logger.error("a conflict cannot be read", path=str(path), problem=str(error))
                    continue
                kept.setdefault(conflict.origin, {})[path.stem] = data
        except OSError as error:
            raise WitnessError(f"{self._path}: conflicts not read: {error}") from None
        for origin in self._kept.keys() - kept.keys():
            _logger.warning("a conflict was cleared", origin=shown(origin))
        self._names, self._kept = names, kept
        self._seen = {name.partition(".")[0] for name in names}
