"""Who may sign models: keys, purposes, and the path to a trusted root (S-3). Pure.

Path building is `cryptography`'s own verifier with its web PKI rules for the CAs (RFC 5280 and the CA/Browser Forum's
Baseline Requirements). Those rules know no code signing: a CA may name any purpose or codeSigning, and the signer's
certificate is judged here.
"""

import datetime
import re
from collections.abc import Sequence
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from edge.errors import SignatureError, TrustError
from edge.text import printable

MIN_RSA_BITS = 3072
CURVES = ("secp256r1", "secp384r1", "secp521r1")
MAX_CHAIN_DEPTH = 8  # CAs between the signer and the root, the root included
MAX_NAME_CHARACTERS = 120  # of a signer's name in a message
# Raised by the library while it reads certificates of hostile making.
BAD_CERTIFICATE = (
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
    UnsupportedAlgorithm,
)
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
SigningKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
# Critical extensions of the signer's certificate that are understood here; RFC 5280 4.2 refuses any other.
_UNDERSTOOD = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}
_CODE_PURPOSES = (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
_OID_NAMES = {
    ExtensionOID.KEY_USAGE.dotted_string: "keyUsage",
    ExtensionOID.BASIC_CONSTRAINTS.dotted_string: "basicConstraints",
    ExtensionOID.SUBJECT_KEY_IDENTIFIER.dotted_string: "subjectKeyIdentifier",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER.dotted_string: "authorityKeyIdentifier",
    ExtensionOID.EXTENDED_KEY_USAGE.dotted_string: "extendedKeyUsage",
    ExtensionOID.NAME_CONSTRAINTS.dotted_string: "nameConstraints",
}


def load_chain(ders: Sequence[bytes]) -> list[x509.Certificate]:
    """The certificates of a signature, the signer's first.

    Raises:
        SignatureError: one is not an X.509 certificate.
    """
    chain = []
    for number, der in enumerate(ders, 1):
        try:
            certificate = x509.load_der_x509_certificate(der)
            _ = (certificate.extensions, certificate.subject, certificate.issuer, certificate.not_valid_after_utc)
        except BAD_CERTIFICATE as error:
            raise SignatureError(f"certificate {number} of {len(ders)} in the signature cannot be read") from error
        # The count of unused bits before a certificate's signature is signed by nobody, and the library passes it over.
        if der[: -len(certificate.signature)][-1:] != b"\0":
            raise SignatureError(
                f"certificate {number} of {len(ders)} has a signature that is no whole number of bytes"
            )
        chain.append(certificate)
    return chain


def check_signer(leaf: x509.Certificate) -> SigningKey:
    """The key of a certificate that may sign models.

    Raises:
        TrustError: it is a CA's, or lacks digitalSignature or codeSigning, or its key is too weak or of another kind.
    """
    who = f"the signer's certificate ({subject(leaf)})"
    key = check_key(leaf, who)
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise TrustError(f"{who} is a CA's; models are signed with a certificate that a CA issued")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        raise TrustError(f"{who} may not sign: its keyUsage lacks digitalSignature")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise TrustError(f"{who} is for another purpose: its extendedKeyUsage lacks codeSigning")
    for extension in leaf.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise TrustError(f"{who} has a critical extension this agent does not know: {extension.oid.dotted_string}")
    return key


def check_key(certificate: x509.Certificate, who: str) -> SigningKey:
    """The key of a certificate, if it is strong enough.

    Raises:
        TrustError: it is too weak, or of another kind.
    """
    try:
        key = certificate.public_key()
    except BAD_CERTIFICATE as error:
        raise TrustError(f"{who} has a key that cannot be read") from error
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise TrustError(f"{who} has a weak key: RSA of {key.key_size} bits; at least {MIN_RSA_BITS} are needed")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return key
    found = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__.strip("_")
    raise TrustError(f"{who} has a key that is not supported: {found}; use ECDSA P-256, P-384, P-521, or RSA")


def check_chain(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime.datetime
) -> list[x509.Certificate]:
    """The path from the signer, `chain[0]`, to one of the roots, as it stands at `at`.

    Raises:
        TrustError: not valid at that time, no path, or a weak key on it.
        SignatureError: a certificate off the path is not what its issuer signed.
    """
    leaf = chain[0]
    check_validity(leaf, f"the signer's certificate ({subject(leaf)})", at)
    if not roots:
        raise TrustError("no root certificate is trusted")
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(roots)))
        .time(at)
        .max_chain_depth(MAX_CHAIN_DEPTH)
        .extension_policies(ca_policy=_ca_policy(), ee_policy=verification.ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        path = verifier.verify(leaf, list(chain[1:])).chain
    except verification.VerificationError as error:
        raise TrustError(_why_no_path(chain, roots, at, str(error))) from error
    except BAD_CERTIFICATE as error:
        raise TrustError(f"the signer's path to a root cannot be read: {error}") from error
    for certificate in path[1:]:
        check_key(certificate, f"the CA {subject(certificate)}")
    for certificate in chain[1:]:
        if certificate not in path:
            _check_spare(certificate, [*chain, *roots])
    return path


def check_validity(certificate: x509.Certificate, who: str, at: datetime.datetime) -> None:
    """Whether a certificate is valid at a time.

    Raises:
        TrustError: not yet, or no more.
    """
    if at < certificate.not_valid_before_utc:
        raise TrustError(f"{who} is not valid before {_time(certificate.not_valid_before_utc)}; it is {_time(at)}")
    if at > certificate.not_valid_after_utc:
        raise TrustError(f"{who} expired at {_time(certificate.not_valid_after_utc)}; it is {_time(at)}")


def subject(certificate: x509.Certificate) -> str:
    """A certificate's subject, cut and safe to print."""
    return _printable(certificate.subject)


def _printable(name: x509.Name) -> str:
    return printable(name.rfc4514_string(), MAX_NAME_CHARACTERS) or "no name"


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _ca_policy() -> verification.ExtensionPolicy:
    def check(policy: object, certificate: object, purposes: x509.ExtendedKeyUsage | None) -> None:
        if purposes is not None and not any(purpose in purposes for purpose in _CODE_PURPOSES):
            raise ValueError("a CA on the path may not issue for codeSigning")

    return verification.ExtensionPolicy.webpki_defaults_ca().may_be_present(
        x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, check
    )


def _check_spare(certificate: x509.Certificate, issuers: Sequence[x509.Certificate]) -> None:
    """A certificate in the signature that the path does not need must still be whole: no byte changes unnoticed."""
    if any(_issued(certificate, issuer) for issuer in issuers):
        return
    raise SignatureError(
        f"the signature holds a certificate that is altered or has nothing to do with the signer: {subject(certificate)}"
    )


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed `certificate`."""
    if issuer.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *BAD_CERTIFICATE):
        return False
    return True


def _why_no_path(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime.datetime, detail: str
) -> str:
    """Why the library found no path, as far as can be told."""
    known = [*chain[1:], *roots]
    at_end, seen = chain[0], {chain[0]}
    while named := [one for one in known if one.subject == at_end.issuer and one not in seen]:
        issuers = [one for one in named if _issued(at_end, one)]
        if not issuers:
            return (
                f"the signer is not trusted: {subject(at_end)} was issued by another CA than the known one of that name,"
                f" {subject(named[-1])}; the keys differ"
            )
        at_end = issuers[-1]
        seen.add(at_end)
        if not at_end.not_valid_before_utc <= at <= at_end.not_valid_after_utc:
            span = f"{_time(at_end.not_valid_before_utc)} to {_time(at_end.not_valid_after_utc)}"
            return f"the CA {subject(at_end)} is not valid at {_time(at)}, only from {span}"
    if at_end not in roots:
        trusted = "; ".join(sorted(subject(root) for root in roots))
        return (
            f"the signer is not trusted: {subject(chain[0])} leads to {_printable(at_end.issuer)},"
            f" and the trusted roots are: {trusted}"
        )
    for oid, name in _OID_NAMES.items():
        detail = re.sub(rf"\b{re.escape(oid)}\b(?![.\d])", name, detail)
    return f"the signer's path to the trusted root {subject(at_end)} is not valid: {detail}"


def _time(when: datetime.datetime) -> str:
    return when.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
