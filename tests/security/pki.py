"""An authority of the test's own, and certificates that it signs."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACKS = ("127.0.0.1", "127.0.0.2")
WEEK = timedelta(days=7)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """cert: the PEM file by which it is trusted."""

    def __init__(self, folder: Path, name: str = "plant authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._name = folder, _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        limits = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = self._begun(self._name, self._key.public_key())
        made = made.add_extension(limits, critical=True).add_extension(usage, critical=True)
        self.cert = folder / "ca.pem"
        self.cert.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(
        self, common: str, *, hosts: tuple[str, ...] = LOOPBACKS, password: str = "", ended: bool = False
    ) -> tuple[Path, Path]:
        """PEM files of a certificate and of its key, for a server and a client alike.

        password: encrypts the key. ended: a certificate that was good until yesterday.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(host)) for host in hosts]
        made = self._begun(_name(common), key.public_key(), ended=ended)
        made = made.add_extension(x509.SubjectAlternativeName([*names, x509.DNSName("localhost")]), critical=False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        signed = made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        cert, key_file = self.folder / f"{common}.pem", self.folder / f"{common}.key"
        secret = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        cert.write_bytes(signed)
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, secret))
        key_file.chmod(0o600)
        return cert, key_file

    def _begun(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ended: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        until = now - timedelta(days=1) if ended else now + WEEK
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - WEEK)
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )
