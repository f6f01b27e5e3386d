"""A repository on a server: plain GETs over HTTP(S), each bounded in bytes, in time and in its least rate (F-4)."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from edge.access import credential_path
from edge.clock import Clock
from edge.cloud.aws.answer import Bounds, Patience, Stream
from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.faults import StaleConnectionError, TransportError
from edge.cloud.aws.transport import Transport
from edge.cloud.aws.trust import public_trust
from edge.cloud.retry import read_date, read_retry_after
from edge.config import Config
from edge.fleet.source import Got, SourceError
from edge.text import shown

MAX_FILE_SECONDS = 300.0  # for a file of metadata or a document
MAX_PACKAGE_SECONDS = 86_400.0  # for a package in one go; what has come is gone on from
LEAST_BYTES_PER_SECOND = 256.0  # of each half minute; less is as good as nothing
_SMALL_BYTES = 4 << 20  # a file of at most so many is no package


class Web:
    """The files below a URL. One connection is kept."""

    def __init__(self, url: str, transport: Transport) -> None:
        self._transport = transport
        self._base = urlsplit(url).path.rstrip("/") + "/"

    @contextmanager
    def open(self, path: str, *, most: int, start: int = 0, etag: str = "") -> Iterator[Got]:
        """See `Source`."""
        headers = {"host": self._transport.peer.authority, "accept-encoding": "identity"}
        if start:
            headers["range"] = f"bytes={start}-"
        if etag:
            headers["if-none-match"] = etag
        seconds = MAX_FILE_SECONDS if most <= _SMALL_BYTES else MAX_PACKAGE_SECONDS
        bounds = Bounds(most, seconds, LEAST_BYTES_PER_SECOND)
        try:
            with ExitStack() as held:
                try:
                    stream = held.enter_context(self._transport.stream(self._base + path, headers, bounds))
                except StaleConnectionError:  # the kept connection was dead: this is no second try
                    stream = held.enter_context(self._transport.stream(self._base + path, headers, bounds))
                yield self._read(path, stream, start, etag)
        except TransportError as error:
            raise SourceError(f"{self._transport.peer.authority}: {path}: {error}") from None

    def _read(self, path: str, stream: Stream, start: int, etag: str) -> Got:
        given = stream.headers.get("etag", "")
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
    try:
        if repository.startswith("https:"):
            context = public_trust(*map(credential_path, (config.provider_aws_ca_cert_file, config.edge_ca_bundle)))
        peer = Peer.of(repository, context)
    except OSError as error:
        raise SourceError(f"the trusted CAs cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise SourceError(str(error)) from None
    return Web(repository, Transport(peer, clock, Patience()))
