"""Real time-stamp authorities: certificates made here, tokens by `openssl ts`, over HTTP.

A stranger's authority, a wrong certificate or a rejection is made by the same means.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tlog.audit.stamps import Authority

NOW = datetime.now(UTC)
SERIAL = 4711
_CONFIG = """\
[tsa]
serial = {0}/serial
signer_cert = {0}/tsa.pem
signer_key = {0}/tsa.key
signer_digest = sha256
crypto_device = builtin
default_policy = 1.3.6.1.4.1.99999.1
digests = sha256, sha384, sha512
ordering = yes
ess_cert_id_alg = sha256
{1}
"""
# openssl counts in a file.
_TURNS = threading.Lock()


@dataclass(frozen=True, slots=True)
class Root:
    """A certificate authority."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def make_root(name: str = "Root") -> Root:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name), _name(name), key.public_key(), 1)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    # Longer than any leaf: certificates in a token are sorted, and openssl does not sort them.
    label = x509.SubjectAlternativeName([x509.DNSName("root." * 30 + "example")])
    builder = builder.add_extension(label, critical=False)
    return Root(key, builder.sign(key, hashes.SHA256()))


def make_leaf(
    root: Root,
    key: ec.EllipticCurvePrivateKey,
    *,
    stamping: bool = True,
    critical: bool = True,
    until: datetime = NOW + timedelta(days=1),
) -> x509.Certificate:
    """A certificate to sign stamps with; all have one name and serial number."""
    builder = _builder(
        _name("TSA"), root.certificate.subject, key.public_key(), SERIAL, until=until
    )
    usage = ExtendedKeyUsageOID.TIME_STAMPING if stamping else ExtendedKeyUsageOID.CODE_SIGNING
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=critical)
    return builder.sign(root.key, hashes.SHA256())


class Station:
    """An authority: what it signs with, and its certificates in files.

    Args:
        directory: for its files, made if need be.
        root: who vouches for it.
        embedded: further certificates that its answers carry.
        accuracy: as in the configuration of openssl.
        until: when its certificate expires.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "one",
        root: Root | None = None,
        embedded: x509.Certificate | None = None,
        accuracy: str = "accuracy = secs:1, millisecs:500",
        until: datetime = NOW + timedelta(days=1),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.name = name
        self.root = root or make_root(f"Root of {name}")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.leaf = make_leaf(self.root, self.key, until=until)
        more = accuracy
        if embedded is not None:
            (directory / "more.pem").write_bytes(embedded.public_bytes(Encoding.PEM))
            more += f"\ncerts = {directory}/more.pem"
        (directory / "serial").write_text("01\n")
        (directory / "tsa.pem").write_bytes(self.leaf.public_bytes(Encoding.PEM))
        (directory / "root.pem").write_bytes(self.root.certificate.public_bytes(Encoding.PEM))
        (directory / "tsa.key").write_bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        (directory / "tsa.cnf").write_text(_CONFIG.format(directory, more))
        self.url = f"http://127.0.0.1:9/{name}"
        self.asked: list[bytes] = []
        self.away = False

    @property
    def authority(self) -> Authority:
        """What whoever trusts it is told."""
        return Authority(self.name, self.url, (self.leaf,), (self.root.certificate,))

    def reply(self, request: bytes) -> bytes:
        """Answer a request (DER)."""
        query, answer = self.directory / "q.tsq", self.directory / "r.tsr"
        with _TURNS:
            query.write_bytes(request)
            subprocess.run(
                [
                    *("openssl", "ts", "-reply", "-config", self.directory / "tsa.cnf"),
                    *("-section", "tsa", "-queryfile", query, "-out", answer),
                ],
                check=True,
                capture_output=True,
            )
            return answer.read_bytes()

    async def stamp(self, request: bytes) -> bytes:
        """The port, without a network between."""
        return await asyncio.to_thread(self.reply, request)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Station]:
        """Answer over HTTP; while `away`, hang up on whoever asks."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/tsr"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(
                    int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                )
                self.asked.append(body)
                if self.away:
                    break
                assert b"content-type: application/timestamp-query\r\n" in head
                answer = await self.stamp(body)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/timestamp-reply\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer)
                )
                await writer.drain()
        writer.close()


def settings_of(*stations: Station, interval: float) -> str:
    """`timestamps.toml` with these authorities."""
    lines = [f"interval = {interval}\n"]
    for station in stations:
        lines.append(
            f'[[authority]]\nname = "{station.name}"\nurl = "{station.url}"\n'
            f'signers = ["{station.directory}/tsa.pem"]\n'
            f'issuers = ["{station.directory}/root.pem"]\n'
        )
    return "".join(lines)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    *,
    until: datetime = NOW + timedelta(days=2),
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(issuer, subject, key, serial, NOW - timedelta(days=2), until)
