"""A tenant in the directory of its log, which makes that a records log.

    DIR/records.toml        the tenant's name, and its settings
    DIR/keys/service.key    signs the log's own records
    DIR/keys/tenant.key     wraps all keys of the vault; or what a KMS wrapped (see `tenant_key`)
    DIR/vault/              the vault

The log in DIR gave the directory; here its records are made and opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tomllib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tlog.audit.alerter import alerting
from tlog.audit.alerts import AlertSink
from tlog.audit.catalogue import default_catalogue, load_catalogue
from tlog.audit.claims import check_producer_name
from tlog.audit.errors import AuditError, EventRefused
from tlog.audit.expiry import expiring
from tlog.audit.indexer import indexing
from tlog.audit.orders import DEFAULT_LIMITS, Limits
from tlog.audit.records import Records
from tlog.audit.tenant_key import create_tenant_key, load_tenant_key, unwrap_tenant_key
from tlog.audit.terms import load_terms
from tlog.audit.vault import Vault
from tlog.audit.verifying import Verifiers
from tlog.log import Log, LogConfig
from tlog.notes import Algorithm, NoteError, Signer, VerifierKey, load_signer, save_signer
from tlog.store import RocksStore

FILE_NAME: Final = "records.toml"
SERVICE: Final = "log"
"""What the log is called as the producer of its own records."""
VAULT: Final = "vault"
SERVICE_KEY: Final = "keys/service.key"
TENANT_KEY: Final = "keys/tenant.key"
MAX_FILE_SIZE: Final = 64 * 1024

Ways = Callable[[str, Sequence[str]], Sequence[AlertSink]]
"""The ways to a webhook and to a command, as far as they are not empty."""


_TEMPLATE: Final = """
# Settings, which count from the next start on. Files are looked for in this directory.
#
# catalogue = "catalogue.toml"      # event types of your own; give it to your producers, too
# calendar = "calendar.toml"        # time_zone, country, subdivision, ignored, closed,
#                                   # at_risk_days, roll_over: see tlog requests
# tenant_key_command = ["kms", "unwrap"]  # gets keys/tenant.key on its standard input
#
# deadline_webhook = "https://office.example/deadlines"  # is told what comes near, or is late
# deadline_command = ["notify", "--deadline"]            # the same, on its standard input
# warn_days_before = [7, 1]
#
# erasures_per_hour = 100
# backup_days = 30                  # how long copies of vault/ are kept
# expiry_interval = 3600            # seconds
"""


class RecordsConfig(BaseModel):
    """What `tlog records init` decides, and what an operator may change between two starts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: str
    """Stands in every event; never changes."""
    tenant_key_command: tuple[str, ...] = ()
    """A program and its arguments that unwraps the tenant key; see `tenant_key`."""
    catalogue: Path | None = None
    """A file with event types of the tenant's own, relative to the directory; see `catalogue`."""
    calendar: Path | None = None
    """A file that says how deadlines are reckoned, relative to the directory; see `terms`."""
    root: str = ""
    """The first verifier key of the log's own records, once it has been rotated."""
    deadline_command: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """A program and its arguments that gets each alert on its standard input; see `alerts`."""
    deadline_webhook: Annotated[str, Field(max_length=2048)] = ""
    """A URL that each alert is posted to."""
    warn_days_before: Annotated[
        tuple[Annotated[int, Field(ge=0, le=3660)], ...], Field(max_length=16)
    ] = (7, 1)
    """On how many days before the last one alerts are sent; late ones always are."""
    erasures_per_hour: Annotated[int, Field(ge=1, le=1_000_000)] = DEFAULT_LIMITS.erasures_per_hour
    """More are refused, and raised: see `orders.Limits`."""
    backup_days: Annotated[int, Field(ge=0, le=3660)] = DEFAULT_LIMITS.backup_days
    """How long copies of DIR/vault are kept: receipts of erasures promise it."""
    expiry_interval: Annotated[float, Field(gt=0, le=366 * 86_400)] = 3600.0
    """Seconds between two looks for what is past its time; see `expiry`."""

    @field_validator("tenant")
    @classmethod
    def _name(cls, value: str) -> str:
        try:
            check_producer_name("tenant", value)
        except EventRefused as error:
            raise ValueError(str(error).removeprefix("tenant: ")) from None
        return value

    @field_validator("root")
    @classmethod
    def _key(cls, value: str) -> str:
        try:
            if not value or VerifierKey.parse(value).name == SERVICE:
                return value
        except NoteError as error:
            raise ValueError(str(error)) from None
        raise ValueError(f"a verifier key with the name {SERVICE}")

    @field_validator("deadline_webhook")
    @classmethod
    def _url(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError("an http:// or https:// URL")
        return value

    @classmethod
    def load(cls, directory: Path) -> RecordsConfig:
        """Read `records.toml`.

        Raises:
            AuditError: there is none, or it says something that is not understood.
        """
        path = directory / FILE_NAME
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_SIZE + 1)
        except FileNotFoundError:
            raise AuditError(
                f"{path} is missing, but there is a vault: put it back. If `tlog records init` was "
                f"cut short, remove {VAULT}, {SERVICE_KEY} and {TENANT_KEY}, and run it again"
            ) from None
        if len(data) > MAX_FILE_SIZE:
            raise AuditError(f"{path} is longer than {MAX_FILE_SIZE} bytes")
        try:
            return cls.model_validate(tomllib.loads(data.decode()))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise AuditError(f"{path}: {field}: {first['msg']}") from None
        except (ValueError, RecursionError) as error:  # the latter for brackets in brackets
            raise AuditError(f"{path}: {error}") from None


def holds_records(directory: Path) -> bool:
    """Whether a log's directory is a records log's; it is, too, if half of that is lost."""
    return any((directory / name).exists() for name in (FILE_NAME, VAULT))


def create_records(
    directory: Path, config: RecordsConfig, *, passphrase: bytes | None, wrapped: bytes = b""
) -> VerifierKey:
    """Make a log's directory, which is not being served, that of a records log.

    Last comes `records.toml`.

    Args:
        directory: of a log without entries.
        config: the tenant.
        passphrase: seals the service's key; the tenant key is never sealed by it.
        wrapped: what the tenant key's command unwraps, if the tenant has one.

    Returns:
        The verifier key of the log's own records.

    Raises:
        AuditError, NoteError: it has records, or entries, or a file cannot be written.
        LogError, StoreError: it is no log, or is being served.
    """
    LogConfig.load(directory)
    if holds_records(directory):
        raise AuditError(f"{directory} is a records log already")
    command = config.tenant_key_command
    # Before anything is written: a command that is of no use would lose all that is sealed.
    if command and unwrap_tenant_key(wrapped, command) != unwrap_tenant_key(wrapped, command):
        raise AuditError(f"tenant key: {command[0]} gives another key each time")
    with contextlib.closing(RocksStore.open(directory)) as store:
        if size := store.tree_size():
            raise AuditError(
                f"{directory} has {size} entries: a records log begins without any. Make a new "
                "log with tlog init"
            )
        service = Signer.generate(SERVICE, Algorithm.ED25519)
        create_tenant_key(directory / TENANT_KEY, wrapped if command else None)
        save_signer(directory / SERVICE_KEY, service, passphrase=passphrase)
        tenant_key = load_tenant_key(directory / TENANT_KEY, command=command)
        Vault.create(directory / VAULT, tenant_key).close()
        with (directory / FILE_NAME).open("x", encoding="utf-8") as file:
            file.write("# The records of a tenant, whose name never changes.\n")
            file.write(f"tenant = {json.dumps(config.tenant)}\n")
            if command:
                file.write(f"tenant_key_command = {json.dumps(command, ensure_ascii=False)}\n")
            file.write(_TEMPLATE)
    return service.vkey


def check_tenant_key(directory: Path, key: bytes) -> None:
    """Refuse a key that is not the one of the vault, which nobody has open.

    Raises:
        VaultDamaged, StoreError: see `Vault.open`.
    """
    Vault.open(directory / VAULT, key).close()


@contextlib.asynccontextmanager
async def recording(
    directory: Path,
    log: Log,
    *,
    passphrase: bytes | None,
    verifiers: Verifiers | None = None,
    serving: bool = False,
    ways: Ways | None = None,
) -> AsyncIterator[Records]:
    """The records of a records log that is open, while inside; see `Records.opened`.

    While it is `serving`, what is past its time goes, and the search index follows the log; see
    `expiry` and `indexer`. With `ways`, whom the settings name is told of deadlines; see `alerter`.

    Raises:
        AuditError, NoteError, StoreError: they cannot be opened; the message says why.
        LogError: the log takes no entries.
    """
    config = RecordsConfig.load(directory)
    catalogue = default_catalogue()
    if config.catalogue is not None:
        catalogue = load_catalogue(directory / config.catalogue)
    sinks = ways(config.deadline_webhook, config.deadline_command) if ways else ()
    service = load_signer(directory / SERVICE_KEY, passphrase=passphrase)
    tenant_key = await asyncio.to_thread(
        load_tenant_key, directory / TENANT_KEY, command=config.tenant_key_command
    )
    terms = None if config.calendar is None else load_terms(directory / config.calendar)
    vault = Vault.open(directory / VAULT, tenant_key)
    try:
        async with (
            Records.opened(
                log,
                vault,
                service,
                tenant=config.tenant,
                catalogue=catalogue,
                root=VerifierKey.parse(config.root) if config.root else None,
                verifiers=verifiers,
                terms=terms,
                limits=Limits(config.erasures_per_hour, config.backup_days),
            ) as records,
            contextlib.AsyncExitStack() as stack,
        ):
            if serving:
                await stack.enter_async_context(indexing(directory, records))
                seconds = config.expiry_interval
                await stack.enter_async_context(expiring(records, interval=seconds))
            warn = config.warn_days_before
            await stack.enter_async_context(alerting(directory, records, sinks, warn=warn))
            yield records
    finally:
        vault.close()
