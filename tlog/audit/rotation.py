"""Another key for a producer, or for the log's own records; and an end to one that is lost.

What a key signed before stays as it is: its validity is judged when an event comes in.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Final

from tlog.audit.errors import AuditError
from tlog.audit.event import Draft
from tlog.audit.producers import ProducerKey, Registry
from tlog.audit.records import Records
from tlog.audit.tenancy import FILE_NAME, SERVICE, SERVICE_KEY, RecordsConfig
from tlog.audit.times import format_time
from tlog.notes import Algorithm, Signer, VerifierKey, load_signer, save_signer

NEXT_KEY: Final = f"{SERVICE_KEY}.new"
"""Where the new key of the log's own records lies until the old one is replaced."""


async def rotate_key(
    records: Records, name: str, vkey: VerifierKey, *, old: str, until: datetime
) -> int:
    """Give a producer another key beside the one that it has, which ends then.

    Args:
        records: whose producer it is.
        name: of the producer.
        vkey: the new key.
        old: the label of the old one; empty for the one that is valid now.
        until: when the old one ends.

    Returns:
        The index of the record.

    Raises:
        AuditError: no such producer or key, or none of several is named; EventRefused.
        Overloaded, Unavailable: see `Records.record`.
    """
    async with records.alone() as state:
        key = _key_of(state.registry, name, old, records.clock())
    claims = {
        "about_producer": name,
        "vkey": str(vkey),
        "old_vkey": str(key),
        "old_valid_until": format_time(until),
    }
    return (await records.record(Draft("producer.key_rotated", claims, {}))).index


async def revoke_key(
    records: Records, name: str, *, old: str, reason: str
) -> tuple[VerifierKey, int]:
    """Take nothing more that a key signs, from now on.

    Raises:
        AuditError, Overloaded, Unavailable: as `rotate_key`; or it signs the log's own records.
    """
    async with records.alone() as state:
        key = _key_of(state.registry, name, old, records.clock())
    if key == records.vkey:
        raise AuditError(f"{key.label} signs the log's own records: rotate it first")
    claims = {"about_producer": name, "old_vkey": str(key), "reason": reason}
    return key, (await records.record(Draft("producer.key_revoked", claims, {}))).index


def _key_of(registry: Registry, name: str, label: str, now: datetime) -> VerifierKey:
    if name not in registry.producers:
        known = ", ".join(sorted(registry.producers))
        raise AuditError(f"no producer is called {name}: it is one of {known}")
    keys = [key for key in registry.keys.values() if key.vkey.name == name]
    if label:
        keys = [key for key in keys if label in (key.vkey.label, str(key.vkey))]
    else:
        keys = [key for key in keys if _good(key, now)]
    if len(keys) == 1:
        return keys[0].vkey
    labels = ", ".join(key.vkey.label for key in keys)
    raise AuditError(
        f"{name} has several keys: name one of {labels}"
        if keys
        else f"{name} has no such key: name an old one, if all were revoked"
    )


def _good(key: ProducerKey, now: datetime) -> bool:
    return not key.revoked and (key.valid_until is None or now < key.valid_until)


def next_service_key(directory: Path, *, passphrase: bytes | None) -> Signer:
    """The new key of the log's own records; the same again if a rotation was cut short."""
    path = directory / NEXT_KEY
    if path.exists():
        return load_signer(path, passphrase=passphrase)
    signer = Signer.generate(SERVICE, Algorithm.ED25519)
    save_signer(path, signer, passphrase=passphrase)
    return signer


def replace_service_key(directory: Path, old: VerifierKey) -> None:
    """Let the log sign with its new key, once that is recorded: the last step of a rotation.

    The first key of all becomes a setting: what is recorded is verified from it on.

    Raises:
        OSError: a file cannot be written.
    """
    if not RecordsConfig.load(directory).root:
        with (directory / FILE_NAME).open("a", encoding="utf-8") as file:
            file.write(f'\n# The first key of the log\'s own records.\nroot = "{old}"\n')
            file.flush()
            os.fsync(file.fileno())
    (directory / NEXT_KEY).replace(directory / SERVICE_KEY)
    descriptor = os.open((directory / SERVICE_KEY).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
