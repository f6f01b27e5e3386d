"""Model signatures: the OpenSSF Model Signing format, verified and made (S-2, S-3). Pure.

A signature is a Sigstore bundle v0.3 in JSON: a DSSE envelope around an in-toto Statement v1 whose predicate
`https://model_signing/signature/v1.0` lists the sha256 of every file, and the signer's certificate chain. What the
format leaves open is refused here: every byte of the bundle is either signed, part of a certificate that the trust path
uses, or has one allowed value, so that no change of a signature file goes unseen.

The rules, in the order in which they are checked:
 1. the bundle is JSON of exactly the known keys, and its base64 is canonical;
 2. the chain leads from the leaf to a trusted root, and every certificate in it is on that path (`trust_path`);
 3. the leaf may sign code: digitalSignature, codeSigning, no CA, a strong key;
 4. the leaf's key signed the payload (DSSE pre-authentication encoding);
 5. the payload is a statement about files, its root digest is that of its list, and no name can leave the package.
"""

import base64
import binascii
import datetime
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

from edge.errors import SignatureError, TrustError
from edge.models import strictjson

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_BUNDLE_BYTES = 4 << 20
MAX_CHAIN_CERTIFICATES = 8
MAX_FILES = 10_000
MIN_RSA_BITS = 3072

_CURVE_HASHES: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
_DIGEST = re.compile(r"[0-9a-f]{64}")
SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Bundle:
    """A signature file taken apart: the signed payload, its signature, and the chain, leaf first."""

    payload: bytes
    signature: bytes
    chain: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        """The signer's certificate."""
        return self.chain[0]


# --- reading ----------------------------------------------------------------


def parse_bundle(data: bytes) -> Bundle:
    """Take a signature file apart; nothing in it is to be believed before `verify`.

    Raises:
        SignatureError: it is not a bundle of the form above.
    """
    try:
        top = strictjson.loads(data, max_bytes=MAX_BUNDLE_BYTES)
    except ValueError as error:
        raise SignatureError(f"the signature: {error}") from None
    top = _keys(top, {"mediaType", "verificationMaterial", "dsseEnvelope"}, "the signature")
    if top["mediaType"] != MEDIA_TYPE:
        raise SignatureError(f"the signature has media type {_shown(top['mediaType'])}; expected {MEDIA_TYPE}")
    material = _keys(
        top["verificationMaterial"], {"x509CertificateChain", "tlogEntries"}, "verificationMaterial", {"tlogEntries"}
    )
    if material.get("tlogEntries", []) != []:
        raise SignatureError("the signature has transparency log entries, which an agent offline cannot check")
    chain = _keys(material["x509CertificateChain"], {"certificates"}, "x509CertificateChain")["certificates"]
    envelope = _keys(top["dsseEnvelope"], {"payload", "payloadType", "signatures"}, "dsseEnvelope")
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise SignatureError(f"the signed payload has type {_shown(envelope['payloadType'])}; expected {PAYLOAD_TYPE}")
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise SignatureError("the envelope must hold exactly one signature")
    signature = _keys(signatures[0], {"sig", "keyid"}, "the envelope's signature", {"keyid"})
    if signature.get("keyid", "") != "":
        raise SignatureError("the envelope's signature names a key id; with a certificate chain it must be empty")
    return Bundle(_base64(envelope["payload"], "payload"), _base64(signature["sig"], "sig"), _certificates(chain))


def _keys(value: Any, allowed: set[str], what: str, optional: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    if not isinstance(value, dict):
        raise SignatureError(f"{what} must be a JSON object")
    unknown, missing = value.keys() - allowed, allowed - optional - value.keys()
    if unknown or missing:
        which = f"unknown key {_shown(min(unknown))}" if unknown else f"no {min(missing)}"
        raise SignatureError(f"{what} has {which}")
    return value


def _base64(text: Any, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise SignatureError(f"the signature's {what} is not base64") from None
    # Spare bits at the end would be a place for unseen changes.
    if base64.b64encode(data).decode() != text:
        raise SignatureError(f"the signature's {what} is not canonical base64")
    return data


def _certificates(entries: Any) -> tuple[x509.Certificate, ...]:
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_CHAIN_CERTIFICATES:
        raise SignatureError(f"the certificate chain must hold 1 to {MAX_CHAIN_CERTIFICATES} certificates")
    found = []
    for entry in entries:
        der = _base64(_keys(entry, {"rawBytes"}, "a certificate of the chain")["rawBytes"], "certificate")
        try:
            found.append(x509.load_der_x509_certificate(der))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SignatureError("a certificate of the chain is malformed") from None
    return tuple(found)


# --- trust ------------------------------------------------------------------


def trust_path(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime.datetime) -> None:
    """Check that the chain leads to one of the roots at the time `at` (UTC), and holds nothing beside (S-3).

    Raises:
        TrustError: in words, why not.
    """
    leaf = chain[0]
    if not roots:
        raise TrustError("the signer cannot be trusted: there are no trusted roots")
    try:
        policy = (
            PolicyBuilder()
            .store(Store(list(roots)))
            .time(at)
            .extension_policies(ee_policy=_leaf_policy(), ca_policy=ExtensionPolicy.webpki_defaults_ca())
        )
        path = policy.build_client_verifier().verify(leaf, list(chain[1:])).chain
    except VerificationError as error:
        raise TrustError(_why_not(chain, roots, at, error)) from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TrustError(f"the signer's certificate cannot be checked: {_shown(error)}") from None
    if not set(chain) <= set(path):
        raise TrustError("the signature's certificate chain holds certificates that do not lead to the trusted root")


def _leaf_policy() -> ExtensionPolicy:
    """Anything goes here: what the leaf must be is checked by `check_signer`, for webpki knows no code signing."""
    return ExtensionPolicy.permit_all()


def _why_not(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime.datetime, error: Exception
) -> str:
    """The reason a person can act on; the verifier's own words where there is none."""
    leaf = chain[0]
    signer = _shown(leaf.subject.rfc4514_string())
    for certificate in (*chain, *roots):
        whose = "signer's" if certificate is leaf else f"{_shown(certificate.subject.rfc4514_string())}"
        if certificate in roots and certificate.subject not in {c.issuer for c in chain}:
            continue
        if at > certificate.not_valid_after_utc:
            return f"the {whose} certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        if at < certificate.not_valid_before_utc:
            return f"the {whose} certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; the agent judges at {at:%Y-%m-%d %H:%M} UTC"
    return f"the signer {signer} does not lead to a trusted root: {_shown(error)}"


def check_signer(leaf: x509.Certificate) -> None:
    """Check that a certificate may sign models (S-3).

    Raises:
        TrustError: with what it lacks.
    """
    try:
        extensions = leaf.extensions
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        missing = "keyUsage" if error.oid == x509.KeyUsage.oid else "extendedKeyUsage"
        raise TrustError(
            f"the signer's certificate has no {missing}; it needs digitalSignature and codeSigning"
        ) from None
    except (ValueError, TypeError, x509.DuplicateExtension, UnsupportedAlgorithm):
        raise TrustError("the signer's certificate has malformed extensions") from None
    if not usage.digital_signature:
        raise TrustError("the signer's certificate may not sign: its keyUsage lacks digitalSignature")
    if ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise TrustError("the signer's certificate is for another purpose: its extendedKeyUsage lacks codeSigning")
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise TrustError(
                "the signer's certificate is that of a certificate authority; it must not sign models itself"
            )
        if extension.critical and not isinstance(
            extension.value, (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)
        ):
            raise TrustError(
                f"the signer's certificate has a critical extension ({extension.oid.dotted_string}) that is unknown here"
            )
    _check_key(leaf.public_key())


def _check_key(key: object) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)):
        return
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size >= MIN_RSA_BITS:
            return
        raise TrustError(f"the signer's RSA key has {key.key_size} bits; at least {MIN_RSA_BITS} are needed")
    raise TrustError("the signer's key is of a kind not allowed; expected ECDSA P-256, P-384 or P-521, or RSA")


# --- verification -----------------------------------------------------------


def verify(bundle: Bundle, roots: Sequence[x509.Certificate], at: datetime.datetime) -> dict[str, str]:
    """Verify a signature at the time `at` (UTC); returns the sha256, in hex, of every file by its name in the package.

    Raises:
        TrustError: the signer is not trusted, or may not sign models.
        SignatureError: the signature does not match, or signs something else.
    """
    trust_path(bundle.chain, roots, at)
    check_signer(bundle.leaf)
    _check_signature(bundle)
    return _files(bundle.payload)


def pre_authentication_encoding(payload: bytes) -> bytes:
    """What is really signed (DSSE v1)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _check_signature(bundle: Bundle) -> None:
    key, signed = bundle.leaf.public_key(), pre_authentication_encoding(bundle.payload)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(bundle.signature, signed, ec.ECDSA(_CURVE_HASHES[key.curve.key_size]))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(bundle.signature, signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise SignatureError(
            "the signature does not match what it signs: it was altered, or made by another key"
        ) from None


def _files(payload: bytes) -> dict[str, str]:
    """The files that a verified payload is about."""
    try:
        statement = strictjson.loads(payload, max_bytes=MAX_BUNDLE_BYTES)
        if statement["_type"] != STATEMENT_TYPE or statement["predicateType"] != PREDICATE_TYPE:
            raise SignatureError("the signature is not one over a model")
        (subject,) = statement["subject"]
        expected = subject["digest"]["sha256"]
        predicate = statement["predicate"]
        serialization, resources = predicate["serialization"], predicate["resources"]
        if serialization["method"] != "files" or serialization["hash_type"] != "sha256":
            raise SignatureError("the signature hashes its files in another way; expected method files and sha256")
        if not isinstance(resources, list) or len(resources) > MAX_FILES:
            raise SignatureError(f"the signature lists more than {MAX_FILES} files")
        return _resources(resources, expected)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SignatureError("the signed statement is malformed") from None


def _resources(resources: list[Any], expected: str) -> dict[str, str]:
    files: dict[str, str] = {}
    total = hashlib.sha256()
    for resource in resources:
        name, digest = resource["name"], resource["digest"]
        if resource["algorithm"] != "sha256" or not _DIGEST.fullmatch(digest):
            raise SignatureError(f"the signature has no sha256 of {_shown(name)}")
        if not safe_name(name) or name in files:
            raise SignatureError(
                f"the signature names a file {_shown(name)}, which no package may hold (or names it twice)"
            )
        files[name] = digest
        total.update(bytes.fromhex(digest))
    if total.hexdigest() != expected:
        raise SignatureError("the signed statement does not fit together: its root digest is another")
    return files


def safe_name(name: str) -> bool:
    """Whether a name stays inside the package: relative, printable, no empty part, no `.` or `..` (L-11)."""
    parts = name.split("/")
    return (
        len(name) <= 1024 and name.isprintable() and "\\" not in name and all(p not in ("", ".", "..") for p in parts)
    )


# --- signing ----------------------------------------------------------------


def sign(
    files: Mapping[str, str], name: str, key: SigningKey, leaf: x509.Certificate, chain: Sequence[x509.Certificate]
) -> bytes:
    """The signature file over files given as name -> sha256 in hex; `chain` holds the intermediates.

    Raises:
        TrustError: the certificate may not sign models.
        SignatureError: the key is not the certificate's.
    """
    check_signer(leaf)
    if _spki(key.public_key()) != _spki(leaf.public_key()):
        raise SignatureError("the private key is not that of the certificate")
    payload = json.dumps(_statement(files, name), indent=2, sort_keys=True).encode()
    signed = pre_authentication_encoding(payload)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(signed, ec.ECDSA(_CURVE_HASHES[key.curve.key_size]))
    else:
        signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "x509CertificateChain": {
                "certificates": [
                    {"rawBytes": _encoded(c.public_bytes(serialization.Encoding.DER))} for c in (leaf, *chain)
                ]
            },
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": _encoded(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _encoded(signature), "keyid": ""}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode()


def _statement(files: Mapping[str, str], name: str) -> dict[str, Any]:
    names = sorted(files)
    root = hashlib.sha256(b"".join(bytes.fromhex(files[n]) for n in names)).hexdigest()
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig"],
            },
            "resources": [{"name": n, "algorithm": "sha256", "digest": files[n]} for n in names],
        },
    }


def _spki(key: Any) -> bytes:
    data: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return data


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return (repr(text) if not text.isprintable() else text)[:200]
