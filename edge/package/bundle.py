"""OpenSSF Model Signing v1.0 files: Sigstore bundle v0.3, DSSE envelope, in-toto Statement v1 (S-2). Pure.

Formats: https://github.com/sigstore/protobuf-specs (bundle), https://github.com/secure-systems-lab/dsse v1.0
(envelope), https://github.com/in-toto/attestation (statement), https://github.com/sigstore/model-transparency
(predicate). What is not signed is read strictly, so that no byte of the file can change unnoticed.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.errors import SignatureError
from edge.package.manifest import SIGNATURE_FILE
from edge.strict_json import JsonFault, array, check_keys, parse_object, table, text
from edge.text import is_unicode, shown

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"

MAX_SIGNATURE_BYTES = 4 * 1024 * 1024  # of model.sig, which is read whole before its signer is known
MAX_CERTIFICATES = 10  # in a signature
MAX_CERTIFICATE_BYTES = 64 * 1024  # of a certificate in a signature
MAX_BUNDLE_MARKS = 1000  # commas, colons, brackets and braces in model.sig; one with MAX_CERTIFICATES has about 60
MAX_FILES = 10_000  # in a package; their names are kept and compared before the signature is checked
MAX_PATH_BYTES = 1024  # of the path of a file in a package
MAX_PATH_PARTS = 16  # components of the path of a file in a package
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Bundle:
    """The content of a signature file. `certificates` are DER, the signer's first; `signature` is over `pae(payload)`."""

    certificates: tuple[bytes, ...]
    payload: bytes
    signature: bytes


@dataclass(frozen=True)
class Statement:
    """What was signed: the SHA-256 of every file by its path within the package."""

    name: str
    digests: Mapping[str, bytes]


def pae(payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def parse_bundle(data: bytes) -> Bundle:
    """Parse a signature file.

    Raises:
        SignatureError: says what is wrong with it.
    """
    try:
        return _bundle(parse_object(data, max_bytes=MAX_SIGNATURE_BYTES, max_marks=MAX_BUNDLE_MARKS))
    except JsonFault as fault:
        raise SignatureError(f"{SIGNATURE_FILE} {fault}") from fault


def parse_statement(payload: bytes) -> Statement:
    """Parse a bundle's payload; call it only after the signature over it was verified.

    Raises:
        SignatureError: it is not one of Model Signing v1.0, or by a method other than SHA-256 of whole files.
    """
    try:
        return _statement(parse_object(payload, max_bytes=MAX_SIGNATURE_BYTES))
    except JsonFault as fault:
        raise SignatureError(f"the signed statement {fault}") from fault


def format_statement(name: str, digests: Mapping[str, bytes]) -> bytes:
    """A statement over files; `digests` are SHA-256 by path.

    Raises:
        SignatureError: it would not be read back.
    """
    ordered = sorted(digests.items(), key=lambda item: item[0].split("/"))
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root_digest([digest for _, digest in ordered])}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_FILE],
            },
            "resources": [
                {"name": path, "algorithm": "sha256", "digest": digest.hex()} for path, digest in ordered
            ],
        },
    }  # fmt: skip
    payload = json.dumps(statement, separators=(",", ":")).encode()
    parse_statement(payload)
    return payload


def format_bundle(bundle: Bundle) -> bytes:
    """The signature file of a bundle."""
    value = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "x509CertificateChain": {"certificates": [{"rawBytes": _encode(der)} for der in bundle.certificates]},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": _encode(bundle.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _encode(bundle.signature), "keyid": ""}],
        },
    }
    return json.dumps(value, separators=(",", ":")).encode()


def check_path(path: str) -> str | None:
    """Why a path cannot name a file of a package (L-11), in words that follow it; None where it can."""
    parts = path.split("/")
    if path.startswith("/"):
        return "is absolute"
    if ".." in parts:
        return "leaves the package"
    if "" in parts or "." in parts:
        return "is not in its shortest form"
    if "\0" in path or not is_unicode(path):
        return "is not text"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if len(parts) > MAX_PATH_PARTS:
        return f"is more than {MAX_PATH_PARTS} folders deep"
    return None


def _bundle(value: dict[str, Any]) -> Bundle:
    check_keys(value, "", required=("mediaType", "verificationMaterial", "dsseEnvelope"))
    if text(value["mediaType"], "mediaType") != MEDIA_TYPE:
        raise JsonFault(f"has mediaType {shown(value['mediaType'])}; expected {MEDIA_TYPE}")
    material = table(value["verificationMaterial"], "verificationMaterial")
    if "x509CertificateChain" not in material and ("publicKey" in material or "certificate" in material):
        raise JsonFault(
            "was made with a bare key or with Sigstore's online service; sign with a certificate instead"
            " (`sagemaker-edge-agent package`, or `model_signing sign certificate`)"
        )
    check_keys(material, "verificationMaterial", required=("x509CertificateChain",), optional=("tlogEntries",))
    if material.get("tlogEntries", []) != []:
        raise JsonFault("has verificationMaterial.tlogEntries, which this agent does not use")
    chain = table(material["x509CertificateChain"], "x509CertificateChain")
    check_keys(chain, "x509CertificateChain", required=("certificates",))
    certificates = []
    for item in array(chain["certificates"], "certificates", most=MAX_CERTIFICATES):
        check_keys(table(item, "certificates[]"), "certificates[]", required=("rawBytes",))
        certificates.append(_decode(item["rawBytes"], "rawBytes"))
        if len(certificates[-1]) > MAX_CERTIFICATE_BYTES:
            raise JsonFault(f"holds a certificate of more than {MAX_CERTIFICATE_BYTES} bytes")
    if not certificates:
        raise JsonFault("holds no certificate")
    envelope = table(value["dsseEnvelope"], "dsseEnvelope")
    check_keys(envelope, "dsseEnvelope", required=("payload", "payloadType", "signatures"))
    if text(envelope["payloadType"], "payloadType") != PAYLOAD_TYPE:
        raise JsonFault(f"has payloadType {shown(envelope['payloadType'])}; expected {PAYLOAD_TYPE}")
    signatures = array(envelope["signatures"], "signatures", most=MAX_CERTIFICATES)
    if len(signatures) != 1:
        raise JsonFault(f"holds {len(signatures)} signatures; expected one")
    check_keys(table(signatures[0], "signatures[]"), "signatures[]", required=("sig",), optional=("keyid",))
    if signatures[0].get("keyid", "") != "":
        raise JsonFault("has a keyid, which has no use beside a certificate")
    return Bundle(tuple(certificates), _decode(envelope["payload"], "payload"), _decode(signatures[0]["sig"], "sig"))


def _statement(value: dict[str, Any]) -> Statement:
    check_keys(value, "", required=("_type", "subject", "predicateType", "predicate"))
    for key, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if text(value[key], key) != expected:
            raise JsonFault(f"has {key} {shown(value[key])}; expected {expected}")
    subjects = array(value["subject"], "subject", most=MAX_FILES)
    if len(subjects) != 1:
        raise JsonFault(f"has {len(subjects)} subjects; expected one")
    subject = table(subjects[0], "subject[]")
    check_keys(subject, "subject[]", required=("name", "digest"))
    root = table(subject["digest"], "subject[].digest")
    check_keys(root, "subject[].digest", required=("sha256",))
    predicate = table(value["predicate"], "predicate")
    # Version 1.0 of the predicate: other fields of it are to be ignored.
    if "serialization" not in predicate or "resources" not in predicate:
        raise JsonFault("lacks predicate.serialization or predicate.resources")
    _check_serialization(table(predicate["serialization"], "serialization"))
    digests: dict[str, bytes] = {}
    for item in array(predicate["resources"], "resources", most=MAX_FILES):
        path, digest = _resource(item)
        if path in digests:
            raise JsonFault(f"lists {shown(path)} twice")
        digests[path] = digest
    if root["sha256"] != _root_digest(list(digests.values())):
        raise JsonFault("is inconsistent: its root digest is not that of the files it lists")
    return Statement(text(subject["name"], "subject[].name"), digests)


def _check_serialization(value: dict[str, Any]) -> None:
    # ignore_paths and allow_symlinks are not looked at: here no file is ignored, and no link followed.
    for key, expected in (("method", "files"), ("hash_type", "sha256")):
        found = text(value.get(key), f"serialization.{key}")
        if found != expected:
            raise JsonFault(f"is by {key} {shown(found)}; this agent verifies {expected}, the signing tool's default")


def _resource(item: object) -> tuple[str, bytes]:
    value = table(item, "resources[]")
    check_keys(value, "resources[]", required=("name", "algorithm", "digest"))
    path = text(value["name"], "resources[].name")
    if fault := check_path(path):
        raise JsonFault(f"names the file {shown(path)}, which {fault} (L-11)")
    digest = text(value["digest"], "resources[].digest")
    if value["algorithm"] != "sha256" or not _HEX_SHA256.fullmatch(digest):
        raise JsonFault(f"has no SHA-256 for {shown(path)}")
    return path, bytes.fromhex(digest)


def _root_digest(digests: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(value: object, where: str) -> bytes:
    encoded = text(value, where)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise JsonFault(f"{where} is not base64") from error
    # Spare bits before the padding would leave room to change the file without changing its meaning.
    if _encode(data) != encoded:
        raise JsonFault(f"{where} is not canonical base64")
    return data
