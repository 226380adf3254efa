"""Witnesses over TLS: who cannot show a certificate that is trusted is not there."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.serve.witness.transcripts import LOG
from tlog.log.cosigners import CosignerError
from tlog.remote import connect
from tlog.remote.addresses import parse_address

NOTE = LOG.note(5)


@pytest.fixture
def nobody(tmp_path: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that it signed itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "pem").write_bytes(secret + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    return context


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
async def test_a_certificate_is_verified_however_the_url_is_spelt(
    nobody: ssl.SSLContext, scheme: str
) -> None:
    heard = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=nobody) as server:
        port = server.sockets[0].getsockname()[1]
        witness = connect(f"{scheme}://127.0.0.1:{port}/prefix")
        with pytest.raises(CosignerError, match=r"(?i)certificate"):
            await witness.add_checkpoint(0, [], NOTE)
        await witness.aclose()
    assert heard in ([], [b""])


def test_a_scheme_has_one_spelling() -> None:
    assert parse_address("HTTPS://Host.example/Prefix/").url == "https://Host.example/Prefix"
    assert parse_address("GRPC://host:1").grpc
