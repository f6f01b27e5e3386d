"""Puts objects into a bucket of S3, or of a store that speaks its API.

A single PUT with the SHA-256 of the payload in the signature and its CRC-32 beside it. The connection is kept. State
that answers teach — the store's time, the bucket's region — is kept too.
"""

import base64
import dataclasses
import logging
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge.clock import Clock
from edge.cloud.aws import sigv4
from edge.cloud.aws.credentials import CredentialSource
from edge.cloud.aws.transport import (
    CONNECT_SECONDS,
    STALL_SECONDS,
    Peer,
    Reply,
    StaleConnectionError,
    Transport,
    TransportError,
)
from edge.cloud.provider import Body, Pace, StoreError
from edge.cloud.retry import (
    Answer,
    Outcome,
    Verdict,
    judge_answer,
    judge_fault,
    read_date,
    read_error,
    read_region,
    read_retry_after,
)

log = logging.getLogger(__name__)

HEAD_BYTES = 1024  # of a request beside its body, roughly: counts against the bandwidth
_SECRET_CHARACTERS = 8  # what is shorter is not worth hiding, and may be part of any word


@dataclass(frozen=True)
class S3Location:
    """Which bucket. With `endpoint` (a URL) it is addressed by path there, else by the names of AWS."""

    bucket: str
    region: str
    endpoint: str = ""
    connect_seconds: float = CONNECT_SECONDS
    stall_seconds: float = STALL_SECONDS


class S3Store:
    """An `ObjectStore`. `trust` makes the TLS context, once, when it is first needed."""

    def __init__(
        self, location: S3Location, credentials: CredentialSource, clock: Clock, trust: Callable[[], ssl.SSLContext]
    ) -> None:
        self._location = location
        self._credentials = credentials
        self._clock = clock
        self._trust = trust
        self._tls: ssl.SSLContext | None = None
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
        transport, base = self._connect()
        path = sigv4.encode_path(f"{base}/{key}")
        digest = body.digest()
        signed_at = self._time()
        headers = sigv4.sign(
            "PUT",
            path,
            {
                "host": transport.peer.authority,
                "content-type": content_type,
                "x-amz-checksum-crc32": base64.b64encode(digest.crc32.to_bytes(4, "big")).decode("ascii"),
                "x-amz-content-sha256": digest.sha256,
            },
            digest.sha256,
            keys=keys,
            region=self._region,
            service="s3",
            at=signed_at,
        )
        headers["content-length"] = str(body.size)
        try:
            reply = self._exchange(transport, path, headers, body, pace)
        except TransportError as error:
            verdict = judge_fault(error.fault, error.detail)
            raise StoreError(self._worded(verdict, transport.peer, keys)) from None
        answer = _answer(reply)
        refusal = judge_answer(answer, signed_at=signed_at, region=self._region)
        if refusal is None:
            return
        self._learn(refusal, answer, keys)
        raise StoreError(self._worded(refusal, transport.peer, keys))

    def _exchange(self, transport: Transport, path: str, headers: dict[str, str], body: Body, pace: Pace) -> Reply:
        try:
            return transport.exchange("PUT", path, headers, _paced(body, pace))
        except StaleConnectionError:
            return transport.exchange("PUT", path, headers, _paced(body, pace))

    def _learn(self, refusal: Verdict, answer: Answer, keys: sigv4.Keys) -> None:
        """Make the next request what the answer asks for."""
        if refusal.outcome is Outcome.FIX_CLOCK and answer.date is not None:
            self._anchor = (answer.date, self._clock.monotonic())
            log.warning("requests are signed with the store's time: %s", refusal.reason)
        elif refusal.outcome is Outcome.SWITCH_REGION:
            log.warning("%s; set sagemaker_edge_core_region to it", refusal.reason)
            self._region = answer.region
            self.close()
            self._transport = None
        elif refusal.fresh:
            self._credentials.reject(keys)

    def _time(self) -> float:
        """Unix seconds to sign with."""
        if self._anchor is None:
            return self._clock.now()
        date, at = self._anchor
        return date + self._clock.monotonic() - at

    def _connect(self) -> tuple[Transport, str]:
        """The transport, and the path of the bucket's root there."""
        location = self._location
        secure, host, port, base = True, "", 443, ""
        if location.endpoint:
            url = urlsplit(location.endpoint)
            secure, host = url.scheme == "https", url.hostname or ""
            port, base = url.port or (443 if secure else 80), f"{url.path.rstrip('/')}/{location.bucket}"
        else:
            domain = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
            host = f"s3.{self._region}.{domain}"
            if "." in location.bucket:  # a wildcard certificate covers one label
                base = f"/{location.bucket}"
            else:
                host = f"{location.bucket}.{host}"
        if self._transport is None:
            self._transport = Transport(
                Peer(host, port, self._context() if secure else None),
                self._clock,
                connect_seconds=location.connect_seconds,
                stall_seconds=location.stall_seconds,
            )
        return self._transport, base

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            try:
                self._tls = self._trust()
            except OSError as error:
                text = f"the trusted CAs cannot be read: {error.strerror or error}"
                raise StoreError(Verdict(Outcome.RETRY_LATER, text, slow=True)) from None
        return self._tls

    def _worded(self, verdict: Verdict, peer: Peer, keys: sigv4.Keys) -> Verdict:
        """The verdict, saying who was asked, and without any secret that a store repeats."""
        reason = verdict.reason
        for secret in (keys.secret_key, keys.session_token):
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


def _paced(body: Body, pace: Pace) -> Iterator[bytes]:
    pace.pay(HEAD_BYTES)
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
    if not code and 200 <= reply.status < 300 and reply.body.lstrip()[:1] == b"<":
        code = "NotAnObjectStore"  # a portal's page, say
    return Answer(
        reply.status,
        code,
        message,
        read_region(reply.headers.get("x-amz-bucket-region")) or region,
        date,
        read_retry_after(reply.headers.get("retry-after"), date),
    )
