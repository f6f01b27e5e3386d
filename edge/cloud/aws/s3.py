"""Puts objects into a bucket of S3, or of a store that speaks its API.

A single PUT with the SHA-256 of the payload in the signature and its CRC-32 beside it, or, for what is large, parts (see
`edge.cloud.aws.multipart`); and, if asked for, a HEAD that sees whether the object is there.
"""

import base64
import dataclasses
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from edge.clock import Clock
from edge.cloud.aws.client import Request, S3Client, S3Location
from edge.cloud.aws.credentials import CredentialSource
from edge.cloud.aws.multipart import Multipart, lacks_deletion
from edge.cloud.aws.notes import Notes
from edge.cloud.retry import Outcome, Verdict
from edge.cloud.store import Body, Pace, StoreError
from edge.text import printable


class S3Store:
    """An `ObjectStore`. `trust` makes the TLS context; it is asked again for the CAs as they are now."""

    def __init__(
        self, location: S3Location, credentials: CredentialSource, clock: Clock, trust: Callable[[], ssl.SSLContext]
    ) -> None:
        self._location = location
        self._client = S3Client(location, credentials, clock, trust)
        self._parts: Multipart | None = None

    def keep_notes_in(self, folder: Path) -> None:
        """Keep what is known of uploads in parts there; without it objects are put whole."""
        self._parts = Multipart(self._client, self._location, Notes(folder))

    def uri(self, key: str) -> str:
        """s3://bucket/key"""
        return f"s3://{self._location.bucket}/{key}"

    def check(self) -> None:
        """Whether there can be credentials and trust.

        Raises:
            StoreError: with what to do about it.
        """
        self._client.check()

    def put(self, key: str, body: Body, content_type: str, pace: Pace, more: Mapping[str, str] | None = None) -> None:
        """Store an object. `more` are headers of one that is put whole: conditions, for one.

        Raises:
            StoreError: it is not stored, or nobody knows whether it is.
            StoppedError: `pace` said so.
            OSError: the body cannot be read.
        """
        if self._parts is not None and self._parts.takes(body):
            crc32 = self._parts.put(key, body, content_type, pace)
            if crc32 is not None:
                if self._location.verify:
                    self._verify(key, pace, body.size, crc32)
                return
        digest = body.digest()
        crc32 = base64.b64encode(digest.crc32.to_bytes(4, "big")).decode("ascii")
        headers = {"content-type": content_type, "x-amz-checksum-crc32": crc32, **(more or {})}
        self._client.ask(Request("PUT", key, headers, digest.sha256, body), pace)
        if self._location.verify:
            self._verify(key, pace, body.size, crc32)

    def remove(self, key: str, pace: Pace) -> None:
        """Delete the object of a key, if there is one.

        Raises:
            StoreError: nobody knows whether it is gone.
        """
        self._client.ask(Request("DELETE", key, {}, lacks=lacks_deletion), pace)

    def forget(self, key: str) -> None:
        """An object will not be put again: `tidy` removes its parts."""
        if self._parts is not None:
            self._parts.forget(key)

    def tidy(self, pace: Pace) -> None:
        """End uploads in parts of objects that will not be put again.

        Raises:
            StoreError: not all of them.
            StoppedError: `pace` said so.
        """
        if self._parts is not None:
            self._parts.tidy(pace)

    def _verify(self, key: str, pace: Pace, size: int, crc32: str) -> None:
        """Ask whether an acknowledged object is there, as it was sent.

        Raises: as `put`.
        """
        try:
            reply = self._client.ask(Request("HEAD", key, {"x-amz-checksum-mode": "ENABLED"}), pace)
        except StoreError as error:
            reason = f"{error} (edge_upload_verify asks by HEAD for {key}, which needs s3:GetObject)"
            raise StoreError(dataclasses.replace(error.verdict, reason=reason)) from None
        told = reply.headers.get("x-amz-checksum-crc32", crc32)
        if ("-" in told) != ("-" in crc32):  # one is of the bytes, one of the parts
            told = crc32
        got = reply.headers.get("content-length", "none"), told
        if got != (str(size), crc32):
            text = (
                f"it acknowledged {key} and does not have it as it was sent: expected {size} bytes and CRC-32 {crc32}, "
                f"got {got[0]} and {got[1]}"
            )
            raise StoreError(Verdict(Outcome.RETRY_LATER, printable(text), slow=True))

    def abort(self) -> None:
        """End what is under way."""
        self._client.abort()

    def close(self) -> None:
        """Close the connections that rest."""
        self._client.close()
