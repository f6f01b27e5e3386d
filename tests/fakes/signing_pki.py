"""A small real PKI: roots, intermediates and signers, of every good and bad kind."""

import datetime
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
UNKNOWN_OID = ObjectIdentifier("1.3.6.1.4.1.55555.1")
DAY = datetime.timedelta(days=1)
# All tests judge at this time unless they say otherwise.
NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@functools.cache
def key(kind: str = "p256", number: int = 0) -> Any:
    """A private key; making one takes long for RSA, so that each is made once."""
    curves: dict[str, ec.EllipticCurve] = {
        "p256": ec.SECP256R1(),
        "p384": ec.SECP384R1(),
        "p521": ec.SECP521R1(),
        "p224": ec.SECP224R1(),
        "k256": ec.SECP256K1(),
    }
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


def usage(*granted: str) -> x509.KeyUsage:
    """A keyUsage with these bits."""
    return x509.KeyUsage(**{name: name in granted for name in _USAGES})


@dataclass(frozen=True)
class Holder:
    """A certificate with its private key, and the certificates from its issuer up to below the root."""

    certificate: x509.Certificate
    key: Any
    between: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificate and what is between it and the root."""
        return (self.certificate, *self.between)

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key in PEM, without a password."""
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write key and certificate; returns both paths."""
        (folder / f"{name}.key").write_bytes(self.key_pem)
        (folder / f"{name}.pem").write_bytes(self.pem)
        return folder / f"{name}.key", folder / f"{name}.pem"


def root(name: str = "root", kind: str = "p256", *, number: int = 0, **more: Any) -> Holder:
    """A self-signed CA."""
    private = key(kind, number)
    return Holder(_issue(name, name, private, private, private, _ca_extensions(more), **more), private)


def intermediate(
    issuer: Holder, name: str = "intermediate", kind: str = "p256", *, number: int = 1, **more: Any
) -> Holder:
    """A CA below another."""
    private = key(kind, number)
    made = _issue(name, _name_of(issuer), private, issuer.key, issuer.key, _ca_extensions(more), **more)
    return Holder(made, private, _above(issuer))


def signer(
    issuer: Holder,
    name: str = "signer",
    kind: str = "p256",
    *,
    number: int = 2,
    usages: Sequence[str] | None = ("digital_signature",),
    purposes: Sequence[ObjectIdentifier] | None = (CODE_SIGNING,),
    ca: bool | None = False,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    **more: Any,
) -> Holder:
    """A certificate to sign models with; None leaves an extension out."""
    private = key(kind, number)
    extensions: list[tuple[x509.ExtensionType, bool]] = list(extra)
    if ca is not None:
        extensions.append((x509.BasicConstraints(ca, None), True))
    if usages is not None:
        extensions.append((usage(*usages), True))
    if purposes is not None:
        extensions.append((x509.ExtendedKeyUsage(purposes), False))
    made = _issue(name, _name_of(issuer), private, issuer.key, issuer.key, extensions, **more)
    return Holder(made, private, _above(issuer))


def trust_folder(path: Path, *roots: Holder) -> Path:
    """A folder of trusted roots as the agent wants it."""
    path.mkdir()
    for position, holder in enumerate(roots):
        file = path / f"root-{position}.pem"
        file.write_bytes(holder.pem)
        file.chmod(0o444)
    return path


def _above(issuer: Holder) -> tuple[x509.Certificate, ...]:
    return () if issuer.certificate.issuer == issuer.certificate.subject else issuer.chain


def _name_of(holder: Holder) -> str:
    return str(holder.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _ca_extensions(more: dict[str, Any]) -> list[tuple[x509.ExtensionType, bool]]:
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(more.pop("ca", True), more.pop("path_length", None)), True),
        (usage(*more.pop("usages", ("key_cert_sign", "crl_sign"))), True),
    ]
    if purposes := more.pop("purposes", None):
        extensions.append((x509.ExtendedKeyUsage(purposes), False))
    return extensions


def _issue(
    name: str,
    issuer: str,
    private: Any,
    issuer_key: Any,
    authority: Any,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    *,
    since: datetime.datetime = NOW - 30 * DAY,
    until: datetime.datetime = NOW + 300 * DAY,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    digest: Any = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    if isinstance(issuer_key, ec.EllipticCurvePrivateKey) and issuer_key.curve.key_size > 256:
        digest = hashes.SHA384() if issuer_key.curve.key_size == 384 else hashes.SHA512()
    return builder.sign(issuer_key, digest)
