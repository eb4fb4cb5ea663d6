"""Certificates for tests of TLS on loopback, made when a test runs: nothing to expire, nothing secret to keep."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Certificates:
    """
    PEM files of one authority and of what it signed.

    Attributes:
        authority: the authority's certificate: what a client is to trust.
        server: the certificate of `localhost` and the loopback addresses.
        server_key: its private key.
        client: a client's certificate, for mutual TLS.
        client_key: its private key.
    """

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """
    Make a new authority and a server's and a client's certificate, valid for a day.

    Args:
        folder: where to write the files; one call a folder.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("otel-sysexit test authority", authority_key, None, authority_key)
    paths = Certificates(
        *(folder / f"{name}.pem" for name in ("authority", "server", "server-key", "client", "client-key"))
    )
    _write(paths.authority, authority)
    for name, path, key_path in (
        ("localhost", paths.server, paths.server_key),
        ("otel-sysexit test client", paths.client, paths.client_key),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        _write(path, _certificate(name, key, authority.subject, authority_key))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return paths


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """Make a certificate; one without an issuer is an authority's own."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
        x509.IPAddress(ipaddress.IPv6Address("::1")),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))  # clocks of containers may be behind
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .sign(issuer_key, hashes.SHA256())
    )


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
