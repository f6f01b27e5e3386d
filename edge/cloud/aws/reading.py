"""Reads a bucket of S3, or of a store that speaks its API: lists keys, and gets objects piece by piece.

One request at a time over one connection, apart from uploads: whoever reads a bucket is a person or a script, not the agent.
"""

import contextlib
import html
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, TypeVar

from edge.clock import Clock
from edge.cloud.aws import sigv4
from edge.cloud.aws.answer import MAX_ANSWER_BYTES, Bounds, Stream
from edge.cloud.aws.client import S3Location, address_of, answer_of, worded
from edge.cloud.aws.credentials import CredentialSource
from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.faults import StaleConnectionError, TransportError
from edge.cloud.aws.transport import Reply, Transport
from edge.cloud.aws.trusted import Trusted, peer_of
from edge.cloud.retry import (
    NO_CODE,
    Answer,
    Outcome,
    Verdict,
    judge_answer,
    judge_fault,
    next_try,
)
from edge.cloud.store import StoreError

MAX_PAGE_BYTES = 8 << 20  # of a page of a bucket's list: 1,000 keys of 1,024 bytes, each of which may be escaped
PAGE_KEYS = 1000  # the most that S3 gives
PAGE_SECONDS = 60.0
LEAST_BYTES_PER_SECOND = 1024.0  # of an object; its time is what this rate needs
_ENTRY = b"<Contents>"
_KEY = re.compile(rb"<Key>([^<]{1,8000})</Key>")
_SIZE = re.compile(rb"<Size>([0-9]{1,18})</Size>")
_MODIFIED = re.compile(rb"<LastModified>([0-9T:.-]{10,40})Z</LastModified>")
_NEXT = re.compile(rb"<NextContinuationToken>([^<]{1,8000})</NextContinuationToken>")
_MORE = re.compile(rb"<IsTruncated>\s*true\s*</IsTruncated>")
Got = TypeVar("Got")
_EVEN_CHANCE = 0.5  # of the jitter: one reader is no crowd


@dataclass(frozen=True)
class Listed:
    """An object in a list: its length in bytes, and when it was stored, in seconds since the epoch."""

    key: str
    size: int
    modified: float


class S3Reader:
    """A bucket, to be read. `trust` makes the TLS context."""

    def __init__(
        self, location: S3Location, credentials: CredentialSource, clock: Clock, trust: Callable[[], ssl.SSLContext]
    ) -> None:
        self._location = location
        self._credentials = credentials
        self._clock = clock
        self._trusted = Trusted(trust, clock)
        self._region = location.region
        self._ahead = 0.0  # of the store's clock before this device's, in seconds
        self._transport: Transport | None = None

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin so, in order.

        Raises:
            StoreError: the store does not list them.
        """
        return (one.key for one in self.objects(prefix))

    def objects(self, prefix: str, page_keys: int = PAGE_KEYS) -> Iterator[Listed]:
        """The objects whose keys begin so, in order; a page of `page_keys` is held at a time.

        Raises:
            StoreError: the store does not list them.
        """
        query = {"list-type": "2", "prefix": prefix, "max-keys": str(page_keys)}
        while True:
            page = self._get("", query, Bounds(MAX_PAGE_BYTES, PAGE_SECONDS), _whole)
            if b"<ListBucketResult" not in page:
                raise StoreError(Verdict(Outcome.RETRY_LATER, "its answer is not that of an object store"))
            for entry in page.split(_ENTRY)[1:]:
                if match := _KEY.search(entry):
                    size, modified = _SIZE.search(entry), _MODIFIED.search(entry)
                    yield Listed(
                        _text(match[1]), int(size[1]) if size else 0, _moment(modified[1]) if modified else 0.0
                    )
            token = _NEXT.search(page)
            if token is None or not _MORE.search(page):
                return
            query["continuation-token"] = _text(token[1])

    def get(self, key: str, file: BinaryIO, max_bytes: int) -> str:
        """Write an object to a file, from its begin; returns its ETag, as the store writes it.

        Raises:
            StoreError: it is not there, does not come, or has more than `max_bytes`.
            OSError: the file cannot be written.
        """

        def write(stream: Stream) -> str:
            file.seek(0)
            file.truncate()
            for chunk in stream.chunks():
                file.write(chunk)
            return stream.headers.get("etag", "")

        etag = self._get(
            key, {}, Bounds(max_bytes, PAGE_SECONDS + max_bytes / LEAST_BYTES_PER_SECOND, LEAST_BYTES_PER_SECOND), write
        )
        file.seek(0)
        return etag

    def _get(self, key: str, query: dict[str, str], bounds: Bounds, read: Callable[[Stream], Got]) -> Got:
        tries = 0
        while True:
            tries += 1
            try:
                return self._try(key, query, bounds, read)
            except StoreError as error:
                delay = next_try(error.verdict, tries, _EVEN_CHANCE)
                if delay is None:
                    raise
                self._clock.wait(threading.Event(), delay)

    def _try(self, key: str, query: dict[str, str], bounds: Bounds, read: Callable[[Stream], Got]) -> Got:
        keys = self._credentials.get()
        transport, base = self._connect()
        path, encoded = sigv4.encode_path(f"{base}/{key}"), sigv4.encode_query(query)
        at = self._clock.now() + self._ahead
        unsigned = {"host": transport.peer.authority, "x-amz-content-sha256": sigv4.EMPTY_SHA256}
        headers = sigv4.sign(
            "GET",
            path,
            unsigned,
            sigv4.EMPTY_SHA256,
            query=encoded,
            keys=keys,
            region=self._region,
            service="s3",
            at=at,
        )
        words = path + f"?{encoded}" * bool(encoded)
        try:
            try:
                with transport.stream(words, headers, bounds) as stream:
                    return self._read(stream, read, at, keys, transport.peer)
            except StaleConnectionError:
                with transport.stream(words, headers, bounds) as stream:
                    return self._read(stream, read, at, keys, transport.peer)
        except TransportError as error:
            raise StoreError(worded(judge_fault(error.fault, error.detail), transport.peer, keys)) from None

    def _read(self, stream: Stream, read: Callable[[Stream], Got], at: float, keys: sigv4.Keys, peer: Peer) -> Got:
        if stream.status == 200:
            return read(stream)
        answer = _refusal(stream)
        verdict = judge_answer(answer, signed_at=at, region=self._region)
        if verdict is None:
            verdict = Verdict(Outcome.RETRY_LATER, f"it answers with status {stream.status}, expected 200")
        if verdict.outcome is Outcome.FIX_CLOCK and answer.date is not None:
            self._ahead = answer.date - self._clock.now()
        elif verdict.outcome is Outcome.SWITCH_REGION:
            self._region = answer.region
        elif verdict.fresh:
            self._credentials.reject(keys)
        code = str(answer.status) if answer.code in ("", NO_CODE) else answer.code
        raise StoreError(worded(verdict, peer, keys), code)

    def _connect(self) -> tuple[Transport, str]:
        url, base = address_of(self._location, self._region)
        peer = peer_of(url, self._trusted.context(url))
        if self._transport is None or self._transport.peer != peer:
            self.close()
            self._transport = Transport(peer, self._clock, self._location.patience)
        return self._transport, base

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._transport is not None:
            self._transport.close()


def _whole(stream: Stream) -> bytes:
    return b"".join(stream.chunks())


def _refusal(stream: Stream) -> Answer:
    """Why the store says no; its words are bounded."""
    body = b""
    with contextlib.suppress(TransportError):
        for chunk in stream.chunks():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                break
    return answer_of(Reply(stream.status, stream.headers, body), "")


def _moment(raw: bytes) -> float:
    try:
        return datetime.fromisoformat(raw.decode("ascii") + "+00:00").timestamp()
    except ValueError:
        return 0.0


def _text(raw: bytes) -> str:
    return html.unescape(raw.decode("utf-8", "surrogateescape"))
