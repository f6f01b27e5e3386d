"""Signed requests to a bucket of S3, or of a store that speaks its API, over connections that are kept.

State that answers teach — the store's time, the bucket's region — is kept too, until something is refused in spite of it:
one answer that lies must not end uploads for good.
"""

import dataclasses
import logging
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from edge.clock import Clock
from edge.cloud.aws import sigv4
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.credentials import CredentialSource
from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.faults import StaleConnectionError, TransportError
from edge.cloud.aws.pool import Pool
from edge.cloud.aws.transport import Reply
from edge.cloud.aws.trusted import Trusted, peer_of
from edge.cloud.retry import (
    NO_CODE,
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

log = logging.getLogger(__name__)

HEAD_BYTES = 1024  # of a request beside its body, roughly: counts against the bandwidth
_SECRET_CHARACTERS = 8  # what is shorter is not worth hiding, and may be part of any word
_TRUST_FAULTS = {Fault.TLS_UNTRUSTED, Fault.TLS_NOT_YET_VALID, Fault.TLS_EXPIRED, Fault.TLS}


@dataclass(frozen=True)
class S3Location:
    """Which bucket. With `endpoint` (a URL) it is addressed by path there, else by the names of AWS.

    `verify`: ask for each object by HEAD once its PUT is acknowledged. What is larger than `whole_bytes` goes in parts of
    `part_bytes`, of which S3 wants 5 MiB at least.
    """

    bucket: str
    region: str
    endpoint: str = ""
    verify: bool = False
    whole_bytes: int = 16 << 20
    part_bytes: int = 8 << 20
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Request:
    """A request for an object; the headers are those beside the ones that each request has.

    `lacks` tells what a success lacks of the store's acknowledgement, from status, headers and body; empty: nothing.
    """

    method: str
    key: str
    headers: dict[str, str]
    sha256: str = sigv4.EMPTY_SHA256
    body: Body | None = None
    query: str = ""
    lacks: Callable[[int, Mapping[str, str], bytes], str] = lacking


class S3Client:
    """Asks a bucket. For any thread. `trust` makes the TLS context; it is asked again for the CAs as they are now."""

    def __init__(
        self, location: S3Location, credentials: CredentialSource, clock: Clock, trust: Callable[[], ssl.SSLContext]
    ) -> None:
        self._location = location
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()  # guards what follows
        self._trusted = Trusted(trust, clock)
        self._told = ""  # of what answers taught
        self._region = location.region
        self._anchor: tuple[float, float] | None = None  # the store's time, and when it was that (monotonic)
        self._pool = Pool(clock, location.patience)

    def check(self) -> None:
        """Whether there can be credentials and trust.

        Raises:
            StoreError: with what to do about it.
        """
        self._credentials.check()
        self._where()

    def ask(self, request: Request, pace: Pace) -> Reply:
        """The store's answer, if it accepts the request.

        Raises:
            StoreError: it says no, or nobody knows.
            StoppedError: `pace` said so.
            OSError: the body cannot be read.
        """
        keys = self._credentials.get()
        peer, base, region = self._where()
        path = sigv4.encode_path(f"{base}/{request.key}")
        signed_at = self._time()
        headers = sigv4.sign(
            request.method,
            path,
            {"host": peer.authority, "x-amz-content-sha256": request.sha256, **request.headers},
            request.sha256,
            query=request.query,
            keys=keys,
            region=region,
            service="s3",
            at=signed_at,
        )
        if request.body is not None:
            headers["content-length"] = str(request.body.size)
        elif request.method == "POST":
            headers["content-length"] = "0"
        target = f"{path}?{request.query}" if request.query else path
        try:
            with self._pool.use(peer) as transport:
                try:
                    reply = transport.exchange(request.method, target, headers, _paced(request.body, pace))
                except StaleConnectionError:
                    reply = transport.exchange(request.method, target, headers, _paced(request.body, pace))
        except TransportError as error:
            verdict = judge_fault(error.fault, error.detail)
            with self._lock:
                if error.fault in _TRUST_FAULTS:
                    self._trusted.forget()
                if verdict.outcome is Outcome.RETRY_LATER:  # it may be the region's host that is not there
                    self._region = self._location.region
            raise StoreError(worded(verdict, peer, keys)) from None
        answer = answer_of(reply, request.lacks(reply.status, reply.headers, reply.body))
        refusal = judge_answer(answer, signed_at=signed_at, region=region)
        if refusal is None:
            return reply
        self._learn(refusal, answer, keys)
        code = str(answer.status) if answer.code in ("", NO_CODE) else answer.code
        raise StoreError(worded(refusal, peer, keys), code)

    def _learn(self, refusal: Verdict, answer: Answer, keys: sigv4.Keys) -> None:
        """Adapt the next request to what the answer asks for (region, time); forget earlier adaptations that did not help."""
        if refusal.fresh:
            self._credentials.reject(keys)
        with self._lock:
            if refusal.outcome is Outcome.FIX_CLOCK and answer.date is not None:
                self._anchor = (answer.date, self._clock.monotonic())
                self._tell("requests are signed with the store's time", refusal.reason)
            elif refusal.outcome is Outcome.SWITCH_REGION:
                self._tell("set sagemaker_edge_core_region", refusal.reason)
                self._region = answer.region
            elif refusal.outcome is Outcome.RETRY_LATER and not refusal.fresh:
                self._anchor = None
                self._region = self._location.region

    def _tell(self, what: str, why: str) -> None:
        """Log such an adaptation, once."""
        if self._told != what:
            log.warning("%s: %s", what, why)
        self._told = what

    def _time(self) -> float:
        """Unix seconds to sign with."""
        with self._lock:
            anchor = self._anchor
        if anchor is None:
            return self._clock.now()
        date, at = anchor
        return date + self._clock.monotonic() - at

    def _where(self) -> tuple[Peer, str, str]:
        """Whom to ask, the path of the bucket's root there, and the region to sign for."""
        with self._lock:
            region = self._region
            url, base = address_of(self._location, region)
            tls = self._trusted.context(url)
        return peer_of(url, tls), base, region

    def abort(self) -> None:
        """End what is under way."""
        self._credentials.abort()
        self._pool.abort()

    def close(self) -> None:
        """Close the connections that rest."""
        self._pool.close()


def address_of(location: S3Location, region: str) -> tuple[str, str]:
    """The URL of the store's host, and the path of the bucket's root there."""
    if location.endpoint:
        return location.endpoint, f"{urlsplit(location.endpoint).path.rstrip('/')}/{location.bucket}"
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    host = f"s3.{region}.{domain}"
    if "." in location.bucket:  # a wildcard certificate covers one label
        return f"https://{host}", f"/{location.bucket}"
    return f"https://{location.bucket}.{host}", ""


def worded(verdict: Verdict, peer: Peer, keys: sigv4.Keys) -> Verdict:
    """The verdict, saying who was asked, and without any key that a store repeats."""
    reason = verdict.reason
    for secret in (keys.secret_key, keys.session_token, keys.access_key):
        if len(secret) >= _SECRET_CHARACTERS:
            reason = reason.replace(secret, "***")
    return dataclasses.replace(verdict, reason=f"{peer.authority}: {reason}")


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


def answer_of(reply: Reply, lacks: str) -> Answer:
    """What a reply says, for `judge_answer`."""
    code, message, region = read_error(reply.body)
    date = read_date(reply.headers.get("date"))
    return Answer(
        reply.status,
        code,
        message,
        read_region(reply.headers.get("x-amz-bucket-region")) or region,
        date,
        read_retry_after(reply.headers.get("retry-after"), date),
        lacks,
    )
