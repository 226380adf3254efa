"""A lost log's directory, made again from its copy: entries, tiles, head. The keys are not here.

Every entry is hashed again on its way, and the tree held against the head that the log has signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tlog.log import Head, LogConfig
from tlog.log.config import FILE_NAME as LOG_FILE
from tlog.log.publisher import SIGNED
from tlog.merkle import TILE_WIDTH, MerkleError, RightEdge, leaf_hashes, split_bundle
from tlog.mirror.config import MirrorConfig, copy_directory
from tlog.mirror.errors import MirrorError
from tlog.notes import Checkpoint, Note, VerifierKey, open_checkpoint
from tlog.notes.codec import shown
from tlog.store import Commit, LogStore, RocksStore, StoreMissing
from tlog.store.heads import HeadStore
from tlog.witness import LogList, hash_origin
from tlog.witness.head import CosignedHead
from tlog.witness.rules import verified_signatures

# Bundles of one commit, of at most 16 MiB each.
_BUNDLES = 8


def restore(
    directory: Path,
    origin: str,
    target: Path,
    *,
    newest: bytes | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Head:
    """Make the directory of a log from a mirror that is not running.

    What is in `target` besides `db` and `HEAD` stays: keys, policy, log.toml. A log.toml that is
    missing is made. The log goes on with the head that is returned, which its own keys have signed.

    Args:
        directory: of the mirror.
        origin: of the log.
        target: where the log shall be.
        newest: the newest checkpoint of the log that anybody has, a witness for one. What the log
            has signed after the mirror's last look at it, the mirror cannot know.
        progress: told how many entries are done, and of how many.

    Raises:
        MirrorError: the mirror has no copy of the log, or not all that the log has signed; or
            the copy, or the directory, does not fit.
        WitnessError, NoteError, LogError, StoreError: the mirror or a store cannot be opened.
    """
    MirrorConfig.load(directory)
    if (log := LogList(directory).find(origin)) is None:
        raise MirrorError(f"{directory} does not mirror the log {shown(origin)}")
    _check_config(target, origin)
    # Held open, so that no mirror writes to the copy meanwhile.
    heads = HeadStore.open(directory)
    try:
        pending = heads.get(hash_origin(origin))
        copy = _open_copy(directory, origin)
        try:
            head = _head_of(copy, origin, log.vkeys)
            signed = [head.checkpoint]
            if pending is not None:
                signed.append(CosignedHead.decode(pending).checkpoint)
            if newest is not None:
                signed.append(open_checkpoint(newest, log.vkeys, origin=origin).checkpoint)
            _check_complete(head, max(checkpoint.size for checkpoint in signed))
            _rebuild(copy, head, signed, target, progress)
        finally:
            copy.close()
    finally:
        heads.close()
    if not (target / LOG_FILE).exists():
        LogConfig(origin=origin, name=target.resolve().name).save(target)
    return head


def _check_config(target: Path, origin: str) -> None:
    """Refuse the directory of another log before anything is written."""
    if (target / LOG_FILE).exists():
        if (config := LogConfig.load(target)).origin != origin:
            raise MirrorError(f"{target} is the directory of {config.origin}, not of {origin}")
        return
    try:
        LogConfig(origin=origin, name=target.resolve().name)
    except ValueError:
        raise MirrorError(
            f"{target}: a log cannot have this name, or this origin: put its log.toml there first"
        ) from None


def _open_copy(directory: Path, origin: str) -> RocksStore:
    try:
        return RocksStore.open(copy_directory(directory, origin), read_only=True)
    except StoreMissing:
        raise MirrorError(f"{directory} has no copy of {shown(origin)} yet") from None


def _head_of(copy: LogStore, origin: str, vkeys: Sequence[VerifierKey]) -> Head:
    """The mirror checkpoint, as its log has signed it, without the mirror's cosignatures."""
    if (note := copy.get_state(SIGNED)) is None:
        raise MirrorError(f"the copy of {shown(origin)} has no checkpoint yet: it is not complete")
    verified = open_checkpoint(note, vkeys, origin=origin)
    signatures = tuple(verified_signatures(verified))
    return Head(verified.checkpoint, Note(verified.checkpoint.body(), signatures).encode())


def _check_complete(head: Head, signed_size: int) -> None:
    if signed_size > head.size:
        raise MirrorError(
            f"the mirror holds {head.size} entries, but the log has signed a head of {signed_size}:"
            " served again it would fork. Let the mirror have the rest first, from another copy"
        )


def _rebuild(
    copy: LogStore,
    head: Head,
    signed: Sequence[Checkpoint],
    target: Path,
    progress: Callable[[int, int], None],
) -> None:
    store = RocksStore.create(target)
    try:
        edge = RightEdge()
        while edge.size < head.size:
            entries: list[bytes] = []
            while len(entries) < _BUNDLES * TILE_WIDTH and edge.size + len(entries) < head.size:
                start = edge.size + len(entries)
                width = min(TILE_WIDTH, head.size - start)
                entries += _entries(copy, start // TILE_WIDTH, width)
            hashes = leaf_hashes(entries)
            begin = edge.size
            edge, tiles = edge.extend(hashes)
            store.commit(
                Commit(
                    begin=begin, size=edge.size, tiles=tiles, entries=entries, leaf_hashes=hashes
                )
            )
            progress(edge.size, head.size)
        for checkpoint in signed:
            root = RightEdge.load(checkpoint.size, store.read_tile).root()
            if root != checkpoint.root_hash:
                raise MirrorError(
                    f"the copy is damaged, or the log has forked: its first {checkpoint.size} "
                    f"entries have the root hash {root.hex()}, but the log has signed "
                    f"{checkpoint.root_hash.hex()}. {target}/db is not the log: remove it"
                )
        store.put_state({SIGNED: head.note})
        store.sync()
        store.write_marker(head.note)
    finally:
        store.close()


def _entries(copy: LogStore, bundle: int, width: int) -> list[bytes]:
    try:
        return split_bundle(copy.read_bundle(bundle, width))
    except MerkleError as error:
        raise MirrorError(f"the copy is damaged: bundle {bundle}: {error}") from None
