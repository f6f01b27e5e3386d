"""Who signs models: keys and certificates from PEM files, and a throw-away CA for trying things out."""

import datetime
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge import durable
from edge.errors import PackageError
from edge.package.certificates import BAD_CERTIFICATE, check_signer

DEMO_ROOT_NAME = "DEMO ROOT - for trying things out, trust it nowhere else"
DEMO_SIGNER_NAME = "DEMO SIGNER - for trying things out"
DEMO_DAYS = 365
CLOCK_SLACK = datetime.timedelta(hours=1)
MAX_PEM_BYTES = 1024 * 1024  # of a file with a key or certificates, which is read whole
KEY_MODE, CERTIFICATE_MODE, ROOT_MODE, FOLDER_MODE = 0o600, 0o644, 0o444, 0o755

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """A signer: the private key, and the certificates from its own towards the root."""

    key: PrivateKey
    chain: tuple[x509.Certificate, ...]


@dataclass(frozen=True)
class DemoFiles:
    """What `make_demo_ca` made: the folder of trusted roots, the signing key and its certificate."""

    roots: Path
    key: Path
    certificate: Path


def load_identity(key: Path, certificate: Path, chain: Path | None, password: bytes | None = None) -> Identity:
    """A signer from PEM files; `certificate` may be followed by intermediates, as `chain` may hold them.

    Raises:
        PackageError: a file cannot be read, or is not what it must be.
        TrustError: the certificate may not sign models.
    """
    try:
        private = serialization.load_pem_private_key(_read(key), password)
    except BAD_CERTIFICATE as error:  # a wrong or missing password is a ValueError or TypeError
        raise PackageError(f"{key} is not a private key in PEM, or its password is missing or wrong") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PackageError(f"{key} has a key that is not supported; use ECDSA P-256, P-384, P-521, or RSA")
    certificates = _certificates(certificate) + (_certificates(chain) if chain else [])
    if check_signer(certificates[0]) != private.public_key():
        raise PackageError(f"the key {key} is not that of the certificate {certificate}")
    # A root named twice, or a leaf repeated in the chain file, says nothing new.
    return Identity(private, tuple(dict.fromkeys(certificates)))


def make_demo_ca(folder: Path, now: datetime.datetime, days: int = DEMO_DAYS) -> DemoFiles:
    """Make a throw-away CA with one signing certificate in a new folder; the CA's own key is not kept.

    Both certificates expire after `days`.

    Raises:
        PackageError: the folder exists, or cannot be made.
    """
    files = DemoFiles(folder / "roots", folder / "signing.key", folder / "signing.pem")
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = (
        _builder(DEMO_ROOT_NAME, DEMO_ROOT_NAME, root_key, now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _builder(DEMO_SIGNER_NAME, DEMO_ROOT_NAME, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        folder.mkdir(FOLDER_MODE, parents=True)
        files.roots.mkdir(FOLDER_MODE)
        write_new(files.key, private, KEY_MODE)
        write_new(files.certificate, leaf.public_bytes(serialization.Encoding.PEM), CERTIFICATE_MODE)
        write_new(files.roots / "demo-root.pem", root.public_bytes(serialization.Encoding.PEM), ROOT_MODE)
        for made in (files.roots, folder, folder.absolute().parent):
            durable.fsync_folder(made)
    except FileExistsError as error:
        if all(one.exists() for one in (files.roots, files.key, files.certificate)):
            raise PackageError(
                f"{folder} exists already and has a CA, which can be used: --key {files.key} --cert {files.certificate}, "
                f"and {files.roots} for the agent; or name a new folder"
            ) from error
        raise PackageError(f"{error.filename} exists already; name a new folder") from error
    except OSError as error:
        raise PackageError(f"{folder} cannot be made: {error.strerror}") from error
    return files


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet and flush it; its mode is `mode` from the first moment, whatever the umask.

    Raises:
        OSError: it is there, or cannot be written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & KEY_MODE)
    try:
        durable.write_all(fd, data)
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PEM_BYTES)
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror}") from error


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except BAD_CERTIFICATE as error:
        raise PackageError(f"{path} is not a certificate in PEM") from error


def _builder(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in granted for name in _USAGES})
