"""Everything that S3 checks of a request, with botocore's signer as the judge of signatures."""

import base64
import hashlib
import time
import zlib
from dataclasses import dataclass
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

MAX_SKEW_SECONDS = 900


class Refusal(Exception):
    def __init__(self, status: int, code: str, extra: str = "", headers: dict[str, str] | None = None) -> None:
        self.status, self.code, self.extra, self.headers = status, code, extra, headers or {}


@dataclass
class Key:
    """An access key: its secret, and the session token it needs."""

    secret: str
    token: str = ""
    expired: bool = False


def check(stub: Any, handler: Any, body: bytes) -> None:
    """Everything that S3 checks of a request."""
    headers = {name.lower(): value for name, value in handler.headers.items()}
    of_body = ("x-amz-checksum-crc32", "content-length") if handler.command == "PUT" else ()
    for name in ("authorization", "x-amz-date", "x-amz-content-sha256", *of_body):
        if name not in headers:
            raise Refusal(400, "MissingHeader", f"<Message>{name}</Message>")
    words = headers["authorization"].split(" ", 1)
    parts = dict(part.strip().split("=", 1) for part in words[1].split(","))
    access, _, region, service, end = parts["Credential"].rsplit("/", 4)
    if (words[0], service, end) != ("AWS4-HMAC-SHA256", "s3", "aws4_request"):
        raise Refusal(400, "AuthorizationHeaderMalformed")
    key = stub.keys.get(access)
    if key is None:
        raise Refusal(403, "InvalidAccessKeyId")
    stamp = headers["x-amz-date"]
    at = time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.timezone
    if abs(at - stub.now()) > MAX_SKEW_SECONDS:
        raise Refusal(403, "RequestTimeTooSkewed")
    if region != stub.region:
        raise Refusal(400, "AuthorizationHeaderMalformed", f"<Region>{stub.region}</Region>")
    if headers.get("x-amz-security-token", "") != key.token:
        raise Refusal(400, "InvalidToken")
    if key.expired:
        raise Refusal(400, "ExpiredToken")
    _check_signature(stub, handler, headers, parts, access, key)
    if hashlib.sha256(body).hexdigest() != headers["x-amz-content-sha256"]:
        raise Refusal(400, "XAmzContentSHA256Mismatch")
    if of_body and base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode() != headers["x-amz-checksum-crc32"]:
        raise Refusal(400, "BadDigest")
    if len(body) > stub.max_bytes:
        raise Refusal(400, "EntityTooLarge")


def _check_signature(
    stub: Any, handler: Any, headers: dict[str, str], parts: dict[str, str], access: str, key: Key
) -> None:
    names = parts["SignedHeaders"].split(";")
    must = (
        [name for name in headers if name.startswith("x-amz-")]
        + ["host"]
        + ["content-type"] * ("content-type" in headers)
    )
    if not set(must) <= set(names):
        raise Refusal(403, "AccessDenied", "<Message>There were headers present which were not signed</Message>")
    again = AWSRequest(handler.command, f"{stub.url}{handler.path}", headers={name: headers[name] for name in names})
    again.context["timestamp"] = headers["x-amz-date"]
    signer = S3SigV4Auth(Credentials(access, key.secret, key.token or None), "s3", stub.region)
    text = signer.string_to_sign(again, signer.canonical_request(again))
    if signer.signature(text, again) != parts["Signature"]:
        # Real stores repeat what they were sent, the access key among it.
        raise Refusal(
            403, "SignatureDoesNotMatch", f"<Message>no match</Message><AWSAccessKeyId>{access}</AWSAccessKeyId>"
        )
