"""The strict store's uploads in parts: begun, their parts, completed or aborted, as S3 does it."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs


@dataclass
class Upload:
    """One that is under way."""

    key: str
    content_type: str
    parts: dict[int, bytes] = field(default_factory=dict)


class Uploads:
    """`under_way` by id; what is in it would be billed."""

    def __init__(self) -> None:
        self.under_way: dict[str, Upload] = {}
        self.begun = self.completed = self.aborted = 0
        self.deny_abort = False
        self.least_part_bytes = 5 << 20  # of all parts but the last

    def answer(self, handler: Any, stub: Any, key: str, body: bytes) -> None:
        """Do what a request asks, and answer it."""
        status, code, text, headers = self.take(handler, stub, key, body)
        if code:
            handler.refuse(status, code)
        else:
            handler.answer(status, text.encode(), headers)

    def take(self, handler: Any, stub: Any, key: str, body: bytes) -> tuple[int, str, str, dict[str, str]]:
        """Do what a request asks; returns status, code of an error, body and headers."""
        key, _, query = key.partition("?")
        words = parse_qs(query, keep_blank_values=True)
        with stub.lock:
            if handler.command == "POST" and "uploads" in words:
                return self._begin(handler, key)
            upload = self.under_way.get(words["uploadId"][0])
            if upload is None or upload.key != key:
                return 404, "NoSuchUpload", "", {}
            if handler.command == "PUT":
                upload.parts[int(words["partNumber"][0])] = body
                return 200, "", "", {"ETag": _etag(body)}
            if handler.command == "DELETE":
                if self.deny_abort:
                    return 403, "AccessDenied", "", {}
                del self.under_way[words["uploadId"][0]]
                self.aborted += 1
                return 204, "", "", {}
        return self._complete(stub, words["uploadId"][0], upload, body.decode())

    def _begin(self, handler: Any, key: str) -> tuple[int, str, str, dict[str, str]]:
        if handler.headers["x-amz-checksum-algorithm"] != "CRC32":
            return 400, "InvalidRequest", "", {}
        self.begun += 1
        name = f"upload/{self.begun}+="  # ids have such characters
        self.under_way[name] = Upload(key, handler.headers["Content-Type"])
        text = f"<InitiateMultipartUploadResult><Key>x</Key><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
        return 200, "", text, {"Content-Type": "application/xml"}

    def _complete(self, stub: Any, name: str, upload: Upload, text: str) -> tuple[int, str, str, dict[str, str]]:
        asked = re.findall(
            r"<PartNumber>(\d+)</PartNumber><ETag>([^<]*)</ETag><ChecksumCRC32>[^<]{8}</ChecksumCRC32>", text
        )
        have = [(str(number), _etag(upload.parts[number]).replace('"', "&quot;")) for number in sorted(upload.parts)]
        if asked != have:
            return 400, "InvalidPart", "", {}
        bodies = [upload.parts[number] for number in sorted(upload.parts)]
        if any(len(body) < self.least_part_bytes for body in bodies[:-1]):
            return 400, "EntityTooSmall", "", {}
        body = b"".join(bodies)
        if len(body) > stub.max_bytes:
            return 400, "EntityTooLarge", "", {}
        sums = b"".join(hashlib.md5(part).digest() for part in bodies)
        etag = f'"{hashlib.md5(sums).hexdigest()}-{len(bodies)}"'
        stub.store(upload.key, body, upload.content_type, etag)
        self.under_way.pop(name, None)
        self.completed += 1
        result = f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        return 200, "", result, {"Content-Type": "application/xml"}


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'
