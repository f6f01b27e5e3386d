"""AWS Signature Version 4 in the Authorization header. Pure.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, with S3's rules for paths:
encoded once, not normalised.
"""

import datetime
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256().hexdigest()  # of a request without a body


@dataclass(frozen=True)
class Keys:
    """What requests are signed with; no part of it but the access key is ever shown."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def encode_path(path: str) -> str:
    """A path as it goes on the wire and into the signature: all but letters, digits and `-._~/` percent-encoded."""
    return quote(path, safe="/-._~")


def encode_query(parameters: Mapping[str, str]) -> str:
    """Parameters as they go on the wire and into the signature: encoded, in the order of their names, each with a `=`."""
    pairs = sorted((quote(name, safe="-._~"), quote(value, safe="-._~")) for name, value in parameters.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def sign(
    method: str,
    path: str,
    headers: Mapping[str, str],
    payload_sha256: str,
    *,
    query: str = "",
    keys: Keys,
    region: str,
    service: str,
    at: float,
) -> dict[str, str]:
    """The headers to send: those given, all of them signed, with the time, the session token and the signature.

    `path` and `query` (see `encode_query`) are encoded; `headers` have lower-case names, `host` among them;
    `payload_sha256` is lower-case hex; `at` is the time of the request in unix seconds.
    """
    stamp = datetime.datetime.fromtimestamp(int(at), datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    signed = {**headers, "x-amz-date": stamp}
    if keys.session_token:
        signed["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(signed))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    request = canonical_request(method, path, signed, payload_sha256, query)
    text = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = ("AWS4" + keys.secret_key).encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, text).hex()
    signed["authorization"] = (
        f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return signed


def canonical_request(method: str, path: str, headers: Mapping[str, str], payload_sha256: str, query: str = "") -> str:
    """The text whose hash is signed."""
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in sorted(headers))
    return "\n".join((method, path, query, lines, ";".join(sorted(headers)), payload_sha256))


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
