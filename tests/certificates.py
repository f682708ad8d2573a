"""Certificates for tests, each its own authority."""

from __future__ import annotations

import datetime as dt
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOUR = dt.timedelta(hours=1)


class Certificate:
    """A certificate for 127.0.0.1 and localhost that is its own authority, and its key."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        begins: dt.timedelta = -24 * HOUR,
        ends: dt.timedelta = 24 * HOUR,
        passphrase: bytes | None = None,
        usage: x509.ObjectIdentifier | None = None,
    ) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost"), x509.DNSName("engine.example")]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        self.public = certificate.public_bytes(serialization.Encoding.PEM)
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        self.private = self.key_as(serialization.PrivateFormat.PKCS8, encryption)
        self.both = self._write(folder / f"{name}.pem", self.private + self.public)
        self.cert = self._write(folder / f"{name}.crt", self.public)
        self.key = self._write(folder / f"{name}.key", self.private)

    def key_as(self, kind: serialization.PrivateFormat, encryption: serialization.KeySerializationEncryption) -> bytes:
        return self._key.private_bytes(serialization.Encoding.PEM, kind, encryption)

    @staticmethod
    def _write(path: Path, content: bytes) -> Path:
        path.write_bytes(content)
        path.chmod(0o600)
        return path
