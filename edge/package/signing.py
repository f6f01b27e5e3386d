"""Signing a package and verifying its signature. Pure: bytes, certificates and times in, digests or a reason out.

A signature is good if, in this order,
1. it is a bundle of the OpenSSF Model Signing format (`bundle`),
2. the signer's certificate may sign models, and its key is strong (`certificates.check_signer`),
3. it leads to a trusted root at the time that `judging_time` says (`certificates.check_chain`),
4. the signature over the payload is by that certificate's key,
5. the payload is a statement of SHA-256 digests by file.
Whether the files are those of the statement is checked where they are read (`package`).
"""

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from edge.errors import SignatureError
from edge.package.bundle import Bundle, format_bundle, format_statement, pae, parse_bundle, parse_statement
from edge.package.certificates import SigningKey, check_chain, check_signer, load_chain, subject


@dataclass(frozen=True)
class TimeReading:
    """The time, and how far it can be trusted: `now` and `build_date` in seconds since the epoch."""

    now: float
    synchronised: bool
    build_date: int


@dataclass(frozen=True)
class Verified:
    """A good signature: the SHA-256 of each file by path, who signed, until when, and when that was judged.

    `clock_note` says why the clock was not believed; empty where it was.
    """

    digests: Mapping[str, bytes]
    signer: str
    expires: datetime.datetime
    judged_at: datetime.datetime
    clock_note: str
    signature_sha256: str = ""  # of the signature file, in hex


def judging_time(reading: TimeReading, not_before: datetime.datetime) -> tuple[datetime.datetime, str]:
    """The time at which to check validity, and why it is not now (S-6); `not_before` is the signer's certificate's.

    A board without a clock starts in 1970, or at some time of its own: then the latest time that is known to have
    passed is the agent's build date, or the day the signer's certificate was made.
    """
    build = datetime.datetime.fromtimestamp(reading.build_date, datetime.UTC)
    if reading.now < reading.build_date:
        return max(build, not_before), "the system clock is before the agent's build date"
    if not reading.synchronised:
        return max(build, not_before), "the system clock is not synchronised"
    try:
        return datetime.datetime.fromtimestamp(reading.now, datetime.UTC), ""
    except (OverflowError, ValueError, OSError):
        return max(build, not_before), "the system clock is out of range"


def verify_signature(data: bytes, roots: Sequence[x509.Certificate], reading: TimeReading) -> Verified:
    """Verify a signature file; returns what it signs.

    Raises:
        SignatureError: malformed, or not made with the certificate's key.
        TrustError: the signer may not sign models, or does not lead to one of `roots`.
    """
    bundle = parse_bundle(data)
    chain = load_chain(bundle.certificates)
    key = check_signer(chain[0])
    at, note = judging_time(reading, chain[0].not_valid_before_utc)
    check_chain(chain, roots, at)
    _verify(key, bundle.signature, pae(bundle.payload))
    statement = parse_statement(bundle.payload)
    return Verified(
        statement.digests, subject(chain[0]), chain[0].not_valid_after_utc, at, note, hashlib.sha256(data).hexdigest()
    )


def sign_files(
    name: str, digests: Mapping[str, bytes], key: PrivateKeyTypes, chain: Sequence[x509.Certificate]
) -> bytes:
    """The signature file over files; `chain` begins with the certificate of `key`.

    Raises:
        SignatureError: the key is not the certificate's, or the files cannot be listed.
        TrustError: the certificate may not sign models.
    """
    public = check_signer(chain[0])
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or key.public_key() != public:
        raise SignatureError(f"the key is not that of the certificate {subject(chain[0])}")
    payload = format_statement(name, digests)
    ders = tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in chain)
    signature = _sign(key, pae(payload))
    return format_bundle(Bundle(ders, payload, signature))


def _hash_for(key: SigningKey) -> hashes.HashAlgorithm:
    """The hash that goes with a key in Sigstore's registry of algorithms."""
    if isinstance(key, rsa.RSAPublicKey):
        return hashes.SHA256()
    return {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}[key.curve.name]


def _verify(key: SigningKey, signature: bytes, message: bytes) -> None:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), _hash_for(key))
        else:
            key.verify(signature, message, ec.ECDSA(_hash_for(key)))
    except InvalidSignature as error:
        raise SignatureError("the signature is not that of its certificate's key over these contents") from error


def _sign(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, message: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), _hash_for(key.public_key()))
    return key.sign(message, ec.ECDSA(_hash_for(key.public_key())))
