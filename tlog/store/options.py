"""How RocksDB is set up for a log: small machine, several logs, append-mostly."""

from typing import Final

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    SliceTransform,
    WriteBufferManager,
)

from tlog.merkle.hashing import HASH_SIZE

_MIB: Final = 1 << 20

# One of each for the process, however many logs it has open: the memory is bounded.
_CACHE: Final = Cache(64 * _MIB)
_WRITE_BUFFERS: Final = WriteBufferManager(256 * _MIB, False)


def database_options(*, create: bool) -> Options:
    """The options of the database as a whole."""
    options = Options(raw_mode=True)
    # rocksdict would create by default, even where a wrong path was given.
    options.create_if_missing(create)
    options.create_missing_column_families(create)
    options.set_error_if_exists(create)
    # The default, point_in_time, opens without a word with half of the keys after damage in the
    # middle of the log. A torn last record is what a crash leaves: only that is tolerated.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_paranoid_checks(True)
    options.set_max_background_jobs(2)
    options.set_max_open_files(256)
    options.set_write_buffer_manager(_WRITE_BUFFERS)
    options.set_max_total_wal_size(256 * _MIB)
    options.set_keep_log_file_num(4)
    options.set_max_log_file_size(4 * _MIB)
    return options


def column_family_options() -> dict[str, Options]:
    """The options of each column family."""
    return {
        "state": _family(4 * _MIB),
        "tiles": _family(16 * _MIB),
        "bundles": _bundles(),
        "tail": _family(16 * _MIB),
        "leaf_index": _leaf_index(),
    }


def _family(write_buffer: int, table: BlockBasedOptions | None = None) -> Options:
    options = Options(raw_mode=True)
    options.set_write_buffer_size(write_buffer)
    # Hashes do not compress.
    options.set_compression_type(DBCompressionType.none())
    options.set_block_based_table_factory(table or _table())
    return options


def _table() -> BlockBasedOptions:
    table = BlockBasedOptions()
    table.set_block_cache(_CACHE)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(10, False)
    return table


def _bundles() -> Options:
    options = _family(32 * _MIB)
    # Bundles never change: out of the tables, so that compaction does not copy them.
    options.set_enable_blob_files(True)
    options.set_min_blob_size(4096)
    return options


def _leaf_index() -> Options:
    options = _family(32 * _MIB)
    options.set_prefix_extractor(SliceTransform.create_fixed_prefix(HASH_SIZE))
    options.set_memtable_prefix_bloom_ratio(0.1)
    return options
