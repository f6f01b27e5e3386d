"""Multipart uploads: a broken connection, or a restart, costs the part being sent and not the whole object.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html

A store keeps the parts of an upload, and bills them, until it is completed or aborted. The id of an upload is therefore
durable before its first part is sent: whoever finds the note goes on with it, or aborts it.
"""

import base64
import hashlib
import html
import logging
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from edge.cloud.aws.client import Request, S3Client, S3Location
from edge.cloud.aws.notes import Note, Notes
from edge.cloud.aws.sigv4 import encode_query
from edge.cloud.retry import Outcome, Verdict, lacking
from edge.cloud.store import UPLOAD_GONE, Body, BytesBody, Pace, StoreError

log = logging.getLogger(__name__)

MAX_PARTS = 10_000  # of an object in a multipart upload: S3's own limit
_UPLOAD_ID = re.compile(rb"<UploadId>([!-;=-~]{1,1024})</UploadId>")
_ETAG = re.compile(r'"?[A-Za-z0-9._:+/=-]{1,256}"?')
_LOST = {UPLOAD_GONE, "InvalidPart", "InvalidPartOrder", "EntityTooSmall"}  # the store has not what it acknowledged
_UNKNOWN = {"NotImplemented", "MethodNotAllowed", "405", "501"}  # from a store that has no uploads in parts


class Multipart:
    """Puts objects in parts. For any thread, but an object by one at a time."""

    def __init__(self, client: S3Client, location: S3Location, notes: Notes) -> None:
        self._client = client
        self._location = location
        self._notes = notes

    def takes(self, body: Body) -> bool:
        """Whether an object is large enough for parts."""
        return body.size > self._location.whole_bytes

    def put(self, key: str, body: Body, content_type: str, pace: Pace) -> str | None:
        """Store an object, from where an earlier attempt has got to; returns its composite CRC-32 as S3 writes it.

        None: it cannot be put in parts, since the store knows none, or the disk takes no note of it.

        Raises:
            StoreError: it is not stored as a whole; what is stored of it counts at the next call.
            StoppedError: `pace` said so.
            OSError: the body cannot be read.
        """
        earlier = self._notes.read(key)
        note = self._known(earlier, body, pace)
        if note is None:
            note = self._begin(key, body, content_type, pace, again=earlier is not None and earlier.lost)
        if note is None:
            self._notes.remove(key)
            return None
        try:
            for number in range(len(note.parts), -(-body.size // note.part_bytes)):
                self._put_part(note, number, body.part(number * note.part_bytes, note.part_bytes), pace)
            self._complete(note, body.size, pace)
        except StoreError as error:
            if error.code in _LOST:
                raise self._lost(note, error) from None
            raise
        self._notes.remove(key)
        return _composite(note)

    def _lost(self, note: Note, error: StoreError) -> StoreError:
        """What it means that a store has lost an upload, or parts of it: once it begins anew at once.

        Where that was lost too, other objects go first; an upload that is gone begins anew then, parts that the store does not
        want are for it to judge.
        """
        if note.again and error.code != UPLOAD_GONE:
            return StoreError(Verdict(Outcome.REFUSED, error.verdict.reason), error.code)
        reason = f"{error.verdict.reason}: its upload in parts is lost in the store, and begins anew"
        note.lost = True
        if not self._write(note):
            self._notes.remove(note.key)
        if note.again:
            return StoreError(Verdict(Outcome.REFUSED, reason, counts=False), UPLOAD_GONE)
        return StoreError(Verdict(Outcome.RETRY_SOON, reason), UPLOAD_GONE)

    def forget(self, key: str) -> None:
        """An object will not be put again."""
        if (note := self._notes.read(key)) is not None:
            note.ended = True
            self._write(note)

    def tidy(self, pace: Pace) -> None:
        """Abort uploads that will not be continued.

        Raises:
            StoreError: some of it is still there.
            StoppedError: `pace` said so.
        """
        failed: StoreError | None = None
        for note in self._notes.all():
            if note.ended or not _exists(note):
                try:
                    self._abort(note, pace)
                except StoreError as error:
                    failed = error
        if failed is not None:
            raise failed

    def _known(self, note: Note | None, body: Body, pace: Pace) -> Note | None:
        """The upload of these bytes that is under way; one of others, or that the store has lost, is aborted."""
        if note is None:
            return None
        same = self._is_here(note) and not note.ended and note.is_of(body, body.path.stat().st_mtime_ns)
        if same and not note.lost:
            return note
        self._abort(note, pace, keep=same)  # where that fails nothing else may take its place: its id must not be lost
        return None

    def _is_here(self, note: Note) -> bool:
        return (note.endpoint, note.bucket) == (self._location.endpoint, self._location.bucket)

    def _begin(self, key: str, body: Body, content_type: str, pace: Pace, *, again: bool) -> Note | None:
        modified_ns = body.path.stat().st_mtime_ns
        part_bytes = max(self._location.part_bytes, -(-body.size // MAX_PARTS))
        headers = {"content-type": content_type, "x-amz-checksum-algorithm": "CRC32"}
        try:
            reply = self._client.ask(Request("POST", key, headers, query="uploads=", lacks=_lacks_id), pace)
        except StoreError as error:
            if error.code in _UNKNOWN:
                return None
            raise
        match = _UPLOAD_ID.search(reply.body)
        upload = html.unescape(match[1].decode("ascii")) if match else ""
        note = Note(
            self._location.endpoint,
            self._location.bucket,
            key,
            upload,
            str(body.path),
            [list(one) for one in body.ranges],
            modified_ns,
            part_bytes,
            again=again,
        )
        if self._write(note):
            return note
        self._abort(note, pace)
        return None

    def _put_part(self, note: Note, number: int, part: Body, pace: Pace) -> None:
        digest = part.digest()
        crc32 = base64.b64encode(digest.crc32.to_bytes(4, "big")).decode("ascii")
        query = encode_query({"partNumber": str(number + 1), "uploadId": note.upload})
        headers = {"x-amz-checksum-crc32": crc32}
        reply = self._client.ask(Request("PUT", note.key, headers, digest.sha256, part, query, lacks=_lacks_etag), pace)
        note.parts.append([reply.headers["etag"], f"{digest.crc32:08x}"])
        self._write(note)  # where the disk does not take it, the part is sent again after a restart
        pace.taken()

    def _complete(self, note: Note, size: int, pace: Pace) -> None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{html.escape(etag)}</ETag>"
            f"<ChecksumCRC32>{base64.b64encode(bytes.fromhex(crc32)).decode()}</ChecksumCRC32></Part>"
            for number, (etag, crc32) in enumerate(note.parts, 1)
        )
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        body = BytesBody(f'<CompleteMultipartUpload xmlns="{space}">{parts}</CompleteMultipartUpload>'.encode())
        query = encode_query({"uploadId": note.upload})
        headers = {"content-type": "application/xml"}
        try:
            self._client.ask(
                Request("POST", note.key, headers, body.digest().sha256, body, query, lacks=_lacks_completion), pace
            )
        except StoreError as error:
            if error.code != UPLOAD_GONE or not self._is_stored(note, size, pace):
                raise

    def _is_stored(self, note: Note, size: int, pace: Pace) -> bool:
        """Whether the object is there, of these very parts: the answer to an earlier completion may have been lost."""
        try:
            reply = self._client.ask(Request("HEAD", note.key, {}), pace)
        except StoreError as error:
            if error.verdict.outcome is Outcome.RETRY_SOON:  # nothing is known yet
                raise
            return False  # the policy may not allow to ask
        same = reply.headers.get("etag", "").strip('"') == _joined_etag(note)
        return same and reply.headers.get("content-length") == str(size)

    def _abort(self, note: Note, pace: Pace, *, keep: bool = False) -> None:
        """End an upload, with what is stored of it; `keep` its note, which another's will replace."""
        if not self._is_here(note):
            log.warning(
                "an upload of %s to another bucket, %s, was under way: its parts stay there", note.key, note.bucket
            )
            self._notes.remove(note.key)
            return
        query = encode_query({"uploadId": note.upload})
        try:
            self._client.ask(Request("DELETE", note.key, {}, query=query, lacks=lacks_deletion), pace)
        except StoreError as error:
            if error.code != UPLOAD_GONE:
                raise
        if not keep:
            self._notes.remove(note.key)

    def _write(self, note: Note) -> bool:
        try:
            self._notes.write(note)
        except OSError as error:
            log.warning("what is known of an upload in parts cannot be kept: %s", error.strerror or error)
            return False
        return True


def _exists(note: Note) -> bool:
    try:
        return Path(note.file).exists()
    except OSError:
        return True  # a disk that does not answer tells nothing


def _composite(note: Note) -> str:
    """The CRC-32 of the parts' CRC-32s, as S3 tells it."""
    crc32 = zlib.crc32(b"".join(bytes.fromhex(part[1]) for part in note.parts))
    return f"{base64.b64encode(crc32.to_bytes(4, 'big')).decode('ascii')}-{len(note.parts)}"


def _joined_etag(note: Note) -> str:
    """The ETag that S3 gives to an object of parts whose ETags are MD5 sums; empty where they are something else."""
    try:
        sums = b"".join(bytes.fromhex(part[0].strip('"')) for part in note.parts)
    except ValueError:
        return ""
    return f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(note.parts)}"


# --- what an acknowledgement has (R-7) ---------------------------------------


def _lacks_id(status: int, headers: Mapping[str, str], body: bytes) -> str:
    if status != 200:
        return f"got status {status}, expected 200"
    # rclone leaves the "Result" at the element's end out
    return "" if b"<InitiateMultipartUpload" in body and _UPLOAD_ID.search(body) else "got no UploadId"


def _lacks_etag(status: int, headers: Mapping[str, str], body: bytes) -> str:
    return lacking(status, headers, body) or ("" if _ETAG.fullmatch(headers.get("etag", "")) else "got no ETag")


def _lacks_completion(status: int, headers: Mapping[str, str], body: bytes) -> str:
    if status != 200:
        return f"got status {status}, expected 200"
    whole = b"<CompleteMultipartUploadResult" in body and b"</CompleteMultipartUploadResult>" in body
    return "" if whole and b"<ETag>" in body else "got no CompleteMultipartUploadResult with an ETag"


def lacks_deletion(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """What the answer to a DELETE lacks, in words."""
    return "" if status == 204 and not body.strip() else f"got status {status}, expected 204 without content"
