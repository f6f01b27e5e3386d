"""Puts objects into a bucket of S3, or of a store that speaks its API.

A single PUT with the SHA-256 of the payload in the signature and its CRC-32 beside it, and, if asked for, a HEAD that
sees whether the object is there. The connection is kept. State that answers teach — the store's time, the bucket's
region — is kept too, until something is refused in spite of it: one answer that lies must not end uploads for good.
"""

import base64
import dataclasses
import logging
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from edge.clock import Clock
from edge.cloud.aws import sigv4
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.credentials import CredentialSource
from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.faults import StaleConnectionError, TransportError
from edge.cloud.aws.transport import Reply, Transport
from edge.cloud.retry import (
    Answer,
    Fault,
    Outcome,
    Verdict,
    judge_answer,
    judge_fault,
    lacking,
    read_date,
    read_error,
    read_region,
    read_retry_after,
)
from edge.cloud.store import Body, Pace, StoreError
from edge.text import printable

log = logging.getLogger(__name__)

HEAD_BYTES = 1024  # of a request beside its body, roughly: counts against the bandwidth
TRUST_SECONDS = 300.0  # for which the CAs that were read are used: they are replaced while the agent runs
_SECRET_CHARACTERS = 8  # what is shorter is not worth hiding, and may be part of any word
_TRUST_FAULTS = {Fault.TLS_UNTRUSTED, Fault.TLS_NOT_YET_VALID, Fault.TLS_EXPIRED, Fault.TLS}


@dataclass(frozen=True)
class S3Location:
    """Which bucket. With `endpoint` (a URL) it is addressed by path there, else by the names of AWS.

    `verify`: ask for each object by HEAD once its PUT is acknowledged.
    """

    bucket: str
    region: str
    endpoint: str = ""
    verify: bool = False
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class _Request:
    """A request for an object; the headers are those beside the ones that each request has."""

    method: str
    key: str
    headers: dict[str, str]
    sha256: str = sigv4.EMPTY_SHA256
    body: Body | None = None


class S3Store:
    """An `ObjectStore`. `trust` makes the TLS context; it is asked again for the CAs as they are now."""

    def __init__(
        self, location: S3Location, credentials: CredentialSource, clock: Clock, trust: Callable[[], ssl.SSLContext]
    ) -> None:
        self._location = location
        self._credentials = credentials
        self._clock = clock
        self._trust = trust
        self._tls: ssl.SSLContext | None = None
        self._tls_made = 0.0  # monotonic
        self._told = ""  # of what answers taught
        self._region = location.region
        self._transport: Transport | None = None
        self._anchor: tuple[float, float] | None = None  # the store's time, and when it was that (monotonic)

    def uri(self, key: str) -> str:
        """s3://bucket/key"""
        return f"s3://{self._location.bucket}/{key}"

    def check(self) -> None:
        """Whether there can be credentials and trust.

        Raises:
            StoreError: with what to do about it.
        """
        self._credentials.check()
        self._connect()

    def put(self, key: str, body: Body, content_type: str, pace: Pace) -> None:
        """Store an object.

        Raises:
            StoreError: it is not stored, or nobody knows whether it is.
            StoppedError: `pace` said so.
            OSError: the body cannot be read.
        """
        keys = self._credentials.get()
        digest = body.digest()
        crc32 = base64.b64encode(digest.crc32.to_bytes(4, "big")).decode("ascii")
        headers = {"content-type": content_type, "x-amz-checksum-crc32": crc32}
        self._ask(_Request("PUT", key, headers, digest.sha256, body), keys, pace)
        if self._location.verify:
            self._verify(key, keys, pace, body.size, crc32)

    def _verify(self, key: str, keys: sigv4.Keys, pace: Pace, size: int, crc32: str) -> None:
        """Ask whether an acknowledged object is there, as it was sent.

        Raises: as `put`.
        """
        try:
            reply = self._ask(_Request("HEAD", key, {"x-amz-checksum-mode": "ENABLED"}), keys, pace)
        except StoreError as error:
            reason = f"{error} (edge_upload_verify asks by HEAD for {key}, which needs s3:GetObject)"
            raise StoreError(dataclasses.replace(error.verdict, reason=reason)) from None
        got = reply.headers.get("content-length", "none"), reply.headers.get("x-amz-checksum-crc32", crc32)
        if got != (str(size), crc32):
            text = (
                f"it acknowledged {key} and does not have it as it was sent: expected {size} bytes and CRC-32 {crc32}, "
                f"got {got[0]} and {got[1]}"
            )
            raise StoreError(Verdict(Outcome.RETRY_LATER, printable(text), slow=True))

    def _ask(self, request: _Request, keys: sigv4.Keys, pace: Pace) -> Reply:
        """The answer of the store that says yes.

        Raises: as `put`.
        """
        transport, base = self._connect()
        path = sigv4.encode_path(f"{base}/{request.key}")
        signed_at = self._time()
        headers = sigv4.sign(
            request.method,
            path,
            {"host": transport.peer.authority, "x-amz-content-sha256": request.sha256, **request.headers},
            request.sha256,
            keys=keys,
            region=self._region,
            service="s3",
            at=signed_at,
        )
        if request.body is not None:
            headers["content-length"] = str(request.body.size)
        try:
            try:
                reply = transport.exchange(request.method, path, headers, _paced(request.body, pace))
            except StaleConnectionError:
                reply = transport.exchange(request.method, path, headers, _paced(request.body, pace))
        except TransportError as error:
            if error.fault in _TRUST_FAULTS:
                self._tls = None
            verdict = judge_fault(error.fault, error.detail)
            if verdict.outcome is Outcome.RETRY_LATER:  # it may be the region's host that is not there
                self._forget_region()
            raise StoreError(self._worded(verdict, transport.peer, keys)) from None
        answer = _answer(reply)
        refusal = judge_answer(answer, signed_at=signed_at, region=self._region)
        if refusal is None:
            return reply
        self._learn(refusal, answer, keys)
        raise StoreError(self._worded(refusal, transport.peer, keys))

    def _learn(self, refusal: Verdict, answer: Answer, keys: sigv4.Keys) -> None:
        """Make the next request what the answer asks for; what earlier answers taught is forgotten if it did not help."""
        if refusal.outcome is Outcome.FIX_CLOCK and answer.date is not None:
            self._anchor = (answer.date, self._clock.monotonic())
            self._tell("requests are signed with the store's time", refusal.reason)
        elif refusal.outcome is Outcome.SWITCH_REGION:
            self._tell("set sagemaker_edge_core_region", refusal.reason)
            self._use_region(answer.region)
        elif refusal.fresh:
            self._credentials.reject(keys)
        elif refusal.outcome is Outcome.RETRY_LATER:
            self._anchor = None
            self._forget_region()

    def _tell(self, what: str, why: str) -> None:
        """Log what an answer taught, once."""
        if self._told != what:
            log.warning("%s: %s", what, why)
        self._told = what

    def _forget_region(self) -> None:
        if self._region != self._location.region:
            self._use_region(self._location.region)

    def _use_region(self, region: str) -> None:
        self._region = region
        self.close()
        self._transport = None

    def _time(self) -> float:
        """Unix seconds to sign with."""
        if self._anchor is None:
            return self._clock.now()
        date, at = self._anchor
        return date + self._clock.monotonic() - at

    def _connect(self) -> tuple[Transport, str]:
        """The transport, and the path of the bucket's root there."""
        url, base = self._address()
        tls = self._context() if url.startswith("https:") else None
        try:
            peer = Peer.of(url, tls)
        except ValueError as error:
            raise StoreError(Verdict(Outcome.RETRY_LATER, str(error), slow=True)) from None
        if self._transport is None or self._transport.peer != peer:
            self.close()
            self._transport = Transport(peer, self._clock, self._location.patience)
        return self._transport, base

    def _address(self) -> tuple[str, str]:
        """The URL of the store's host, and the path of the bucket's root there."""
        location = self._location
        if location.endpoint:
            return location.endpoint, f"{urlsplit(location.endpoint).path.rstrip('/')}/{location.bucket}"
        domain = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        host = f"s3.{self._region}.{domain}"
        if "." in location.bucket:  # a wildcard certificate covers one label
            return f"https://{host}", f"/{location.bucket}"
        return f"https://{location.bucket}.{host}", ""

    def _context(self) -> ssl.SSLContext:
        """The CAs that are trusted now, or were some minutes ago."""
        now = self._clock.monotonic()
        if self._tls is None or now - self._tls_made > TRUST_SECONDS:
            try:
                self._tls, self._tls_made = self._trust(), now
            except OSError as error:
                text = f"the trusted CAs cannot be read: {error.strerror or error}"
                raise StoreError(Verdict(Outcome.RETRY_LATER, text, slow=True)) from None
        return self._tls

    def _worded(self, verdict: Verdict, peer: Peer, keys: sigv4.Keys) -> Verdict:
        """The verdict, saying who was asked, and without any key that a store repeats."""
        reason = verdict.reason
        for secret in (keys.secret_key, keys.session_token, keys.access_key):
            if len(secret) >= _SECRET_CHARACTERS:
                reason = reason.replace(secret, "***")
        return dataclasses.replace(verdict, reason=f"{peer.authority}: {reason}")

    def abort(self) -> None:
        """End what is under way."""
        self._credentials.abort()
        if (transport := self._transport) is not None:
            transport.abort()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


def _paced(body: Body | None, pace: Pace) -> Iterator[bytes]:
    pace.pay(HEAD_BYTES)
    if body is None:
        return
    left = body.size
    for chunk in body.chunks(pace.chunk_bytes):
        pace.pay(len(chunk))
        yield chunk
        left -= len(chunk)
    if left:  # or the store would wait for the rest
        raise OSError(f"a file lost its last {left} bytes while it was uploaded")


def _answer(reply: Reply) -> Answer:
    code, message, region = read_error(reply.body)
    date = read_date(reply.headers.get("date"))
    return Answer(
        reply.status,
        code,
        message,
        read_region(reply.headers.get("x-amz-bucket-region")) or region,
        date,
        read_retry_after(reply.headers.get("retry-after"), date),
        lacking(reply.status, reply.headers, reply.body),
    )
