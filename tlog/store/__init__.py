"""Where the bytes of one log live: tiles, entry bundles, leaf index, named state.

`LogStore` is the port, with its promises written as MUSTs on the methods that carry them;
`RocksStore` is the driver over RocksDB, and the only place that knows RocksDB and its traps.
The room knows nothing of signatures: the texts that it keeps as state are opaque to it.
"""

from tlog.store.errors import (
    SchemaError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreMissing,
)
from tlog.store.port import Commit, LogStore
from tlog.store.rocksdb import RocksStore, StoreView

__all__ = [
    "Commit",
    "LogStore",
    "RocksStore",
    "SchemaError",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreMissing",
    "StoreView",
]
