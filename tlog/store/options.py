"""How RocksDB is set up for a log: small machine, several logs, append-mostly."""

import contextlib
import ctypes
from typing import Final

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompactionStyle,
    DBCompressionType,
    DBRecoveryMode,
    Env,
    MemtableFactory,
    Options,
    SliceTransform,
    UniversalCompactOptions,
    WriteBufferManager,
)

from tlog.merkle.hashing import HASH_SIZE

_MIB: Final = 1 << 20

# One of each for the process, however many logs it has open: the memory is bounded. Bundles have
# a cache of their own, so that reading entries does not push out the tiles that proofs need.
_CACHE: Final = Cache(16 * _MIB)
_BUNDLE_CACHE: Final = Cache(8 * _MIB)
_WRITE_BUFFERS: Final = WriteBufferManager(256 * _MIB, False)

# glibc gives a thread a heap of its own, and what RocksDB frees in one thread is then of no use to
# the others: half as much again is held as is used. Where there is no glibc, there is no need.
_M_ARENA_MAX: Final = -8
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)

# Compaction can wait, an append cannot: its threads run when nobody else wants the processor.
_ENV: Final = Env()
_ENV.lower_thread_pool_cpu_priority()


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
    # The unsorted memtable of `leaf_index` can have no more than one writer at a time.
    options.set_allow_concurrent_memtable_write(False)
    options.set_max_background_jobs(2)
    options.set_env(_ENV)
    # For each file that is merged; the default is 2 MiB, for up to 32 files at once.
    options.set_compaction_readahead_size(64 << 10)
    options.set_max_open_files(256)
    options.set_write_buffer_manager(_WRITE_BUFFERS)
    options.set_max_total_wal_size(256 * _MIB)
    options.set_keep_log_file_num(4)
    options.set_max_log_file_size(4 * _MIB)
    return options


def uncached_options() -> tuple[Options, dict[str, Options]]:
    """The options of a secondary: each read comes from the disk, none is kept.

    Neither this process nor the kernel then hides that a byte on the disk has changed.
    """
    options = database_options(create=False)
    options.set_use_direct_reads(True)
    # A table that the writer removes meanwhile stays readable for whoever has it open.
    options.set_max_open_files(-1)
    none = Cache(1)
    return options, column_family_options(none, none)


def column_family_options(
    cache: Cache = _CACHE, bundle_cache: Cache = _BUNDLE_CACHE
) -> dict[str, Options]:
    """The options of each column family."""
    return {
        "state": _family(_table(cache), write_buffer=4 * _MIB),
        "tiles": _family(_table(cache), write_buffer=8 * _MIB),
        # Keys that only grow are moved by compaction, not copied: with blob files as much was
        # written, and a read took three times as long (their crc32c is done in software here).
        "bundles": _family(_table(bundle_cache), write_buffer=16 * _MIB),
        "tail": _family(_table(cache), write_buffer=8 * _MIB),
        "leaf_index": _leaf_index(cache),
    }


def _family(table: BlockBasedOptions, *, write_buffer: int) -> Options:
    options = Options(raw_mode=True)
    options.set_write_buffer_size(write_buffer)
    # With the default of 2, a writer waits as soon as one buffer is full while another is flushed.
    options.set_max_write_buffer_number(4)
    # Hashes do not compress, and a bundle is read too often for what it would save.
    options.set_compression_type(DBCompressionType.none())
    options.set_block_based_table_factory(table)
    return options


def _table(cache: Cache) -> BlockBasedOptions:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(10, False)
    # A filter in one piece outgrows a shard of the cache (1 MiB) at some 800,000 keys, and is
    # then read from the disk by every look-up: 0.3 ms instead of microseconds.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    return table


def _leaf_index(cache: Cache) -> Options:
    table = _table(cache)
    # A look-up asks a filter of each run: with few large parts half the time of many small ones.
    table.set_metadata_block_size(64 << 10)
    # A fifth less work than blocks of 4 KiB in flushing and compaction; look-ups take no longer.
    table.set_block_size(16 << 10)
    options = _family(table, write_buffer=16 * _MIB)
    options.set_prefix_extractor(SliceTransform.create_fixed_prefix(HASH_SIZE))
    # A run is written at once, flushed, and not read before: to sort it once is cheapest.
    options.set_memtable_factory(MemtableFactory.vector())
    # What compaction works on are random keys: each is copied once per sixteenfold growth.
    options.set_compaction_style(DBCompactionStyle.universal())
    compaction = UniversalCompactOptions()
    compaction.min_merge_width = 16
    # No key is ever overwritten: to merge all for the sake of space would free none.
    compaction.max_size_amplification_percent = 1 << 30
    options.set_universal_compaction_options(compaction)
    options.set_level_zero_file_num_compaction_trigger(32)
    # Being behind with compaction is no reason to let an append wait.
    options.set_level_zero_slowdown_writes_trigger(64)
    options.set_level_zero_stop_writes_trigger(128)
    # The filters of a file are in memory until it is complete: eight bytes for three keys.
    options.set_target_file_size_base(128 * _MIB)
    return options
