"""A repository on a server or in a bucket: GETs over HTTP(S), each bounded in bytes, in time and in its least rate (F-4)."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from edge.access import credential_path
from edge.clock import Clock
from edge.cloud.aws.answer import Bounds, Patience, Stream
from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.faults import StaleConnectionError, TransportError
from edge.cloud.aws.sigv4 import encode_path
from edge.cloud.aws.transport import Transport
from edge.cloud.aws.trust import public_trust
from edge.cloud.build import credentials_of
from edge.cloud.retry import read_date, read_retry_after
from edge.config import Config
from edge.fleet.bucket import SCHEME, Signing, url_of
from edge.fleet.source import Got, SourceError
from edge.text import shown

MAX_FILE_SECONDS = 300.0  # for fetching a file of metadata or a document
MAX_PACKAGE_SECONDS = 86_400.0  # for one attempt to fetch a package; the next one continues it
LEAST_BYTES_PER_SECOND = 256.0  # of each half minute; less is as good as nothing
FRESH_SECONDS = 2.0  # after a change of a file its ETag is not relied on (RFC 9110, 8.8.2.2)
_SMALL_BYTES = 4 << 20  # a file of at most so many is no package


class Web:
    """The files below a URL. One connection is kept."""

    def __init__(self, url: str, transport: Transport, signing: Signing | None = None) -> None:
        """With `signing`, each request is signed."""
        self._transport = transport
        self._base = encode_path(urlsplit(url).path.rstrip("/") + "/")
        self._signing = signing

    @property
    def proxy(self) -> str:
        """HOST:PORT of the proxy that requests go through; empty where there is none."""
        proxy = self._transport.peer.proxy
        return proxy.authority if proxy is not None else ""

    @contextmanager
    def open(self, path: str, *, most: int, start: int = 0, etag: str = "") -> Iterator[Got]:
        """See `Source`."""
        headers = {"accept-encoding": "identity"}
        if start:
            headers["range"] = f"bytes={start}-"
        if etag:
            headers["if-none-match"] = etag
        seconds = MAX_FILE_SECONDS if most <= _SMALL_BYTES else MAX_PACKAGE_SECONDS
        bounds = Bounds(most, seconds, LEAST_BYTES_PER_SECOND)
        try:
            with ExitStack() as held:
                stream = self._stream(held, path, headers, bounds)
                if self._signing is not None:
                    date = read_date(stream.headers.get("date"))
                    if self._signing.learn(stream.status, stream.headers, date):
                        held.close()
                        stream = self._stream(held, path, headers, bounds)
                yield self._read(path, stream, start, etag)
        except TransportError as error:
            raise SourceError(f"{self._transport.peer.authority}: {path}: {error}") from None

    def _stream(self, held: ExitStack, path: str, headers: dict[str, str], bounds: Bounds) -> Stream:
        """An answer, on a new connection where the kept one was dead: this is no second try."""
        place, host = self._base + path, self._transport.peer.authority
        own = self._signing.signed(place, host) if self._signing is not None else {"host": host}
        try:
            return held.enter_context(self._transport.stream(place, {**own, **headers}, bounds))
        except StaleConnectionError:
            return held.enter_context(self._transport.stream(place, {**own, **headers}, bounds))

    def _read(self, path: str, stream: Stream, start: int, etag: str) -> Got:
        given = stream.headers.get("etag", "")
        changed, now = read_date(stream.headers.get("last-modified")), read_date(stream.headers.get("date"))
        if changed is not None and now is not None and now - changed < FRESH_SECONDS:
            given = (
                ""  # nginx makes it of the second and the length: a file that is so new may change under the same one
            )
        if stream.status == 304 and etag:
            return Got(True, etag, 0, lambda: iter(()))
        if stream.status not in (200, 206):
            wait = read_retry_after(stream.headers.get("retry-after"), read_date(stream.headers.get("date")))
            who = self._transport.peer.authority
            raise SourceError(f"{who}: {path}: {stream.status}", status=stream.status, retry_after=wait or 0.0)
        span = stream.headers.get("content-range", "")  # some answer a range with 200: this header decides
        begins = 0
        if span:
            if not span.startswith(f"bytes {start}-"):
                raise SourceError(f"{path}: asked for bytes from {start} on, got {shown(span)}")
            begins = start
        elif stream.status == 206:
            raise SourceError(f"{path}: a part of it came, and not which")
        return Got(False, given, begins, stream.chunks)

    def abort(self) -> None:
        """End what is under way."""
        self._transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


def connect(repository: str, clock: Clock, config: Config) -> Web:
    """The files below a repository's URL.

    Raises:
        SourceError: the trusted CAs cannot be read, or the proxy's variable is wrong.
    """
    context: ssl.SSLContext | None = None
    signing = None
    if repository.startswith(SCHEME):
        signing = Signing(credentials_of(config, clock), config.core_region, clock)
        repository = url_of(repository, config)
    try:
        if repository.startswith("https:"):
            context = public_trust(*map(credential_path, (config.provider_aws_ca_cert_file, config.edge_ca_bundle)))
        peer = Peer.of(repository, context)
    except OSError as error:
        raise SourceError(f"the trusted CAs cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise SourceError(str(error)) from None
    return Web(repository, Transport(peer, clock, Patience()), signing)
