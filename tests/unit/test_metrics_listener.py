"""The listener of the metrics: honest scrapers, and clients that are none [Q-1] [Q-2]."""

import http.client
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.clock import SystemClock
from edge.metrics.listener import CONNECTION_SECONDS, MAX_CONNECTIONS, MAX_HEAD_BYTES, Listener, answer_to
from tests.fakes.clock import FakeClock
from tests.system.harness import eventually

SECONDS = 30.0


class Metrics:
    """What is listened on, and how often the text was made."""

    def __init__(self, where: str, clock: SystemClock | FakeClock, size: int = 1) -> None:
        self.made = 0
        self.where = where
        self.size = size
        self.listener = Listener(where, self._text, clock)
        self.listener.start()

    def _text(self, open_metrics: bool) -> bytes:
        self.made += 1
        return (b"open" if open_metrics else b"plain") * self.size

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(self.where)
        made.settimeout(SECONDS)
        return made

    def say(self, words: bytes) -> bytes:
        """Say it and read until the connection is closed."""
        with self.connect() as peer:
            peer.sendall(words)
            return everything(peer)


def everything(peer: socket.socket) -> bytes:
    said = b""
    try:
        while part := peer.recv(65536):
            said += part
    except ConnectionResetError:
        pass
    return said


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    made = Metrics(str(tmp_path / "m.sock"), SystemClock())
    yield made
    made.listener.stop(5)
    assert not Path(made.where).exists()


GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def test_over_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listener = Listener(f"127.0.0.1:{port}", lambda open_metrics: b"text", SystemClock())
    listener.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        connection.request("GET", "/metrics?x=1")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"text")
        connection.close()
    finally:
        listener.stop(5)


def test_formats_and_refusals(metrics: Metrics) -> None:
    assert stat.S_IMODE(Path(metrics.where).stat().st_mode) == 0o660  # whatever the umask
    plain = metrics.say(GET)
    assert plain.startswith(b"HTTP/1.1 200 OK\r\n") and plain.endswith(b"\r\n\r\nplain")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in plain and b"Connection: close" in plain
    wanted = b"GET /metrics HTTP/1.1\r\nAccept: Application/OpenMetrics-text;version=1.0.0,text/plain\r\n\r\n"
    assert b"Content-Type: application/openmetrics-text; version=1.0.0;" in metrics.say(wanted)
    head = metrics.say(GET.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 5\r\n" in head and head.endswith(b"\r\n\r\n")
    for words, code in (
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../x HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", b"405"),
        (b"\x16\x03\x01\x02\x00\x01\xfc\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES, b"431"),
    ):
        assert metrics.say(words).startswith(b"HTTP/1.1 " + code), words[:40]


@given(st.binary(max_size=200) | st.builds(lambda head: b"GET " + head, st.binary(max_size=200)))
def test_any_head_gets_an_answer(head: bytes) -> None:
    answer = answer_to(head + b"\r\n\r\n", lambda open_metrics: b"text")
    status, _, rest = answer.partition(b"\r\n")
    assert status.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 405"))
    assert b"Connection: close\r\n" in rest and b"\r\n\r\n" in rest and len(answer) < 1000


def test_a_head_in_pieces(metrics: Metrics) -> None:
    with metrics.connect() as peer:
        for byte in GET:
            peer.sendall(bytes([byte]))
        assert everything(peer).endswith(b"plain")


def test_one_request_a_connection(metrics: Metrics) -> None:
    assert metrics.say(GET * 3).count(b"200 OK") <= 1


def test_silent_connections_keep_nobody_out(metrics: Metrics) -> None:
    with ExitStack() as held:
        silent = [held.enter_context(metrics.connect()) for _ in range(3 * MAX_CONNECTIONS)]
        assert metrics.say(GET).endswith(b"plain")
        assert [everything(peer) for peer in silent[: 2 * MAX_CONNECTIONS]] == [b""] * 2 * MAX_CONNECTIONS


@pytest.mark.parametrize("said", [b"", b"GET /met", GET], ids=["nothing", "half", "all and reads nothing"])
def test_time_is_short(tmp_path: Path, said: bytes) -> None:
    clock = FakeClock()
    metrics = Metrics(str(tmp_path / "m.sock"), clock, size=1 << 22)
    try:
        with metrics.connect() as peer:
            peer.sendall(said)
            eventually(lambda: len(metrics.listener._connections) == 1)
            clock.advance(CONNECTION_SECONDS)
            metrics.say(b"GET / HTTP/1.1\r\n\r\n")  # a turn; alone it would wait on
            eventually(lambda: not metrics.listener._connections)
            assert len(everything(peer)) < 1 << 24
    finally:
        metrics.listener.stop(5)


def test_a_flood_of_scrapes_is_answered_from_one_text(tmp_path: Path) -> None:
    metrics = Metrics(str(tmp_path / "m.sock"), FakeClock())
    try:
        assert {metrics.say(GET)[-5:] for _ in range(100)} == {b"plain"} and metrics.made == 1
    finally:
        metrics.listener.stop(5)


def test_a_place_that_cannot_be_listened_on(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Listener(str(tmp_path / "no" / "m.sock"), lambda open_metrics: b"", SystemClock())


def test_a_socket_that_is_another_ones_by_now_stays(tmp_path: Path) -> None:
    metrics = Metrics(str(tmp_path / "m.sock"), SystemClock())
    Path(metrics.where).rename(tmp_path / "old")
    Path(metrics.where).touch()
    metrics.listener.stop(5)
    assert Path(metrics.where).exists()


def test_an_answer_in_the_making_holds_up_no_stop(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def text(_open_metrics: bool) -> bytes:
        begun.set()
        go_on.wait()
        return b""

    where = str(tmp_path / "m.sock")
    listener = Listener(where, text, SystemClock())
    listener.start()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(where)
        peer.sendall(GET)
        assert begun.wait(SECONDS)
        listener.end()
        listener.stop(0)  # of the stop's time nothing is left
        assert not Path(where).exists()
        go_on.set()
        assert not everything(peer)
