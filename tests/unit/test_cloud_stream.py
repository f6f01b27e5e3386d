"""A GET that is read in pieces: whole, in part, too long, too slow, cut short."""

import threading
from collections.abc import Iterator

import pytest

from edge.clock import SystemClock
from edge.cloud.aws.answer import RATE_SECONDS, Bounds, Patience
from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.faults import TransportError
from edge.cloud.aws.transport import Transport
from edge.cloud.retry import Fault
from tests.fakes.web import Handler, Web

DATA = bytes(i % 251 for i in range(300_000))
ENOUGH = Bounds(len(DATA), 60.0)


class _Files(Handler):
    def do_GET(self) -> None:
        files: Files = self.server.owner  # type: ignore[attr-defined]
        files.connections.add(self.client_address)
        if self.path == "/whole":
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.answer(206 if start else 200, DATA[start:])
        elif self.path == "/chunked":
            self.send_response_only(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(DATA), 7000):
                piece = DATA[at : at + 7000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/short":
            self.answer(200, DATA[:5000], {"Content-Length": "6000"})
            self.close_connection = True
        elif self.path == "/drip":
            self.answer(200, b"", {"Content-Length": "1000"})
            while files.go.acquire(timeout=5):
                self.wfile.write(b"x")
            self.close_connection = True
        else:
            self.answer(404, b"nothing here")


class Files(Web):
    """Serves DATA in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.handler = _Files
        self.connections: set[object] = set()
        self.go = threading.Semaphore(1)  # a byte of /drip each

    def now(self) -> float:
        return 1_750_000_000.0


class TickingClock(SystemClock):
    """Each look at it takes `step` seconds."""

    def __init__(self, step: float) -> None:
        self._step, self._now = step, 0.0

    def monotonic(self) -> float:
        self._now += self._step
        return self._now


@pytest.fixture
def files() -> Iterator[Files]:
    made = Files()
    made.start()
    yield made
    made.close()


@pytest.fixture
def transport(files: Files) -> Iterator[Transport]:
    made = to(files, 0.0)
    yield made
    made.close()


def to(files: Files, step: float) -> Transport:
    return Transport(Peer.of(files.url, None), TickingClock(step), Patience(2.0, 5.0, 60.0))


def test_whole_over_one_connection(files: Files, transport: Transport) -> None:
    for path in ("/whole", "/chunked", "/none", "/whole"):
        with transport.stream(path, {"host": "x"}, ENOUGH) as got:
            body = b"".join(got.chunks())
            assert (got.status, body) == ((404, b"nothing here") if path == "/none" else (200, DATA))
            assert got.length == (None if path == "/chunked" else len(body))
    assert len(files.connections) == 1


def test_the_rest_of_it(transport: Transport) -> None:
    with transport.stream("/whole", {"host": "x", "range": "bytes=250000-"}, ENOUGH) as got:
        assert (got.status, b"".join(got.chunks(1000))) == (206, DATA[250_000:])


def test_a_block_that_is_left_early_closes_the_connection(files: Files, transport: Transport) -> None:
    with transport.stream("/whole", {"host": "x"}, ENOUGH) as got:
        assert len(next(got.chunks(10))) == 10
    with transport.stream("/whole", {"host": "x"}, ENOUGH) as got:
        assert b"".join(got.chunks()) == DATA
    assert len(files.connections) == 2


@pytest.mark.parametrize("path", ["/whole", "/chunked"])
def test_too_long(transport: Transport, path: str) -> None:
    came = 0
    with (
        pytest.raises(TransportError, match="299999") as caught,
        transport.stream(path, {"host": "x"}, Bounds(len(DATA) - 1, 60.0)) as got,
    ):
        for chunk in got.chunks():
            came += len(chunk)
    assert caught.value.fault is Fault.ENDLESS
    assert came < len(DATA)


def test_cut_short(transport: Transport) -> None:
    with pytest.raises(TransportError) as caught, transport.stream("/short", {"host": "x"}, ENOUGH) as got:
        list(got.chunks())
    assert caught.value.fault is Fault.TRUNCATED


@pytest.mark.parametrize(
    ("bounds", "fault"),
    [
        (Bounds(1000, 600.0, least_bytes_per_second=1.0), Fault.SLOW),
        (Bounds(1000, 600.0, least_bytes_per_second=0.001), Fault.ENDLESS),
        (Bounds(1000, 600.0), Fault.ENDLESS),
    ],
)
def test_a_byte_now_and_then(files: Files, bounds: Bounds, fault: Fault) -> None:
    transport = to(files, RATE_SECONDS / 10)
    try:
        with pytest.raises(TransportError) as caught, transport.stream("/drip", {"host": "x"}, bounds) as got:
            for chunk in got.chunks():
                files.go.release(len(chunk))
        assert caught.value.fault is fault
    finally:
        transport.close()
        files.go.release(1000)  # the server goes on, and sees that nobody is there


def test_what_the_reader_spends_is_not_the_peers(files: Files) -> None:
    """A bandwidth that is bounded here makes no peer slow."""
    transport = to(files, 0.001)
    clock = transport._clock
    assert isinstance(clock, TickingClock)
    try:
        with transport.stream("/whole", {"host": "x"}, Bounds(len(DATA), 1e6, least_bytes_per_second=1000.0)) as got:
            for _ in got.chunks(1000):
                clock._now += 10.0
            assert got.whole
    finally:
        transport.close()
