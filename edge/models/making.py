"""Making packages and throw-away signing identities: the other side of `edge.models.package`.

A package is written to a temporary name beside its target, flushed, and renamed: it is there whole, or not at all.
"""

import datetime
import gzip
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge import durable
from edge.errors import PackageError
from edge.models import signing
from edge.models.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, format_manifest

ARCHIVE_SUFFIX = ".tar.gz"
DEMO_COMMON_NAME = "DEMO CA - for trying things out only"
DEMO_DAYS = 3650
_FILE_MODE, _FOLDER_MODE, _KEY_MODE, _ROOT_MODE = 0o644, 0o755, 0o600, 0o444


@dataclass(frozen=True)
class Identity:
    """Who signs: a private key, its certificate, and the intermediates between that and the root."""

    key: signing.SigningKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()


def load_identity(key: Path, certificate: Path, chain: Path | None, password: bytes | None = None) -> Identity:
    """Read a signing identity from PEM files.

    Raises:
        PackageError: a file cannot be read, or is not what it must be.
    """
    try:
        private = serialization.load_pem_private_key(_read(key), password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PackageError(f"{key} is not a usable PEM private key: {error}") from None
    if not isinstance(private, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise PackageError(f"{key}: expected an ECDSA P-256, P-384 or P-521 key, or RSA of {signing.MIN_RSA_BITS} bits")
    leaf, *rest = _certificates(certificate)
    return Identity(private, leaf, (*rest, *(_certificates(chain) if chain else ())))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        raise PackageError(f"{path} holds no PEM certificate") from None


def make_package(manifest: Manifest, model: Path, extra: Sequence[Path], identity: Identity, target: Path) -> None:
    """Write and sign a package at `target`: a `.tar.gz` where it is named so, else a folder.

    Raises:
        PackageError: the target exists, or a source cannot be used; ManifestError, SignatureError, TrustError likewise.
    """
    if target.exists() or target.is_symlink():
        raise PackageError(f"{target} exists; packages are never overwritten")
    text = format_manifest(manifest)
    files = {MANIFEST_FILE: text}
    for name, source in [(manifest.model, model), *((path.name, path) for path in extra)]:
        if name in files or name == SIGNATURE_FILE or not signing.safe_name(name):
            raise PackageError(f"a package cannot hold {name!r} (again)")
        files[name] = _read(source)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    subject = target.name.removesuffix(ARCHIVE_SUFFIX)
    files[SIGNATURE_FILE] = signing.sign(digests, subject, identity.key, identity.certificate, identity.chain)
    temporary = target.with_name(f".{target.name}.{os.getpid()}{durable.TEMPORARY}")
    try:
        if target.name.endswith(ARCHIVE_SUFFIX):
            _write(temporary, _archive(files, subject), _FILE_MODE)
        else:
            temporary.mkdir(_FOLDER_MODE)
            for name, data in files.items():
                _write(temporary / name, data, _FILE_MODE)
            durable.fsync_folder(temporary)
        durable.rename_all([(temporary, target)])
    except OSError as error:
        raise PackageError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _archive(files: dict[str, bytes], folder: str) -> bytes:
    """A `.tar.gz` of one folder; the same files give the same bytes."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode = len(files[name]), _FILE_MODE
            archive.addfile(member, io.BytesIO(files[name]))
    return packed.getvalue()


def _write(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        durable.write_all(fd, data)
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)


# --- a throw-away identity ----------------------------------------------------


@dataclass(frozen=True)
class DemoFiles:
    """Where `make_demo_ca` put things: the trust directory, and the signing key and certificate."""

    roots: Path
    key: Path
    certificate: Path


def make_demo_ca(folder: Path, now: datetime.datetime) -> DemoFiles:
    """Make a throw-away CA and a signing identity in a new folder. The CA's key is not kept.

    Raises:
        PackageError: the folder exists or cannot be made.
    """
    files = DemoFiles(folder / "roots", folder / "signing.key", folder / "signing.pem")
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    since = now - datetime.timedelta(hours=1)
    ca_name, leaf_name = _name(DEMO_COMMON_NAME), _name("demo signer - for trying things out only")
    ca = (
        _certificate(ca_name, ca_name, ca_key, since, DEMO_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        _certificate(leaf_name, ca_name, leaf_key, since, DEMO_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    private = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        folder.mkdir(_FOLDER_MODE)
        files.roots.mkdir(_FOLDER_MODE)
        _write(files.key, private, _KEY_MODE)
        _write(files.certificate, leaf.public_bytes(serialization.Encoding.PEM), _FILE_MODE)
        _write(files.roots / "demo-ca.pem", ca.public_bytes(serialization.Encoding.PEM), _ROOT_MODE)
    except OSError as error:
        raise PackageError(f"{folder} cannot be made: {error.strerror}") from None
    return files


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + datetime.timedelta(days=days))
    )


def _usage(**set_bits: bool) -> x509.KeyUsage:
    bits = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**bits, **set_bits})
