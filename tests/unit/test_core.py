"""The two servers of calls over real sockets: threads, statuses, deadlines, streams and the stop."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edge.clock import SystemClock
from edge.rpc import receiving, status, unread
from edge.rpc.calls import CallServer
from edge.rpc.core import Call, CoreServer
from edge.rpc.fallback import FallbackServer
from edge.rpc.health import Health
from tests.adversary.http2 import PREFACE, SETTINGS, frame

TIMEOUT_SECONDS = 30


class Service:
    """A server with a few methods, and a channel to it."""

    def __init__(
        self, path: Path, kind: Callable[[dict[str, int | str], SystemClock], CallServer] = CoreServer
    ) -> None:
        self.server = kind({"grpc.max_receive_message_length": 1 << 20}, SystemClock())
        self.path = str(path / "core.sock")
        self.inside, self.leave = threading.Semaphore(0), threading.Semaphore(0)
        self.remaining: list[float | None] = []
        self.ended = threading.Event()
        self.health = Health()
        self.server.add_unary("/t/Echo", lambda raw, call: (raw, status.OK, ""))
        self.server.add_unary("/t/Block", self._block)
        self.server.add_unary("/t/Refuse", lambda raw, call: (None, status.INVALID_ARGUMENT, "why: ü"))
        self.server.add_unary("/t/Remaining", self._note_remaining)
        self.server.add_unary("/t/Break", self._break)
        self.server.add_stream("/grpc.health.v1.Health/Watch", self.health.start_watch)
        self.channel = grpc.insecure_channel(f"unix:{self.path}")

    def _block(self, raw: bytes, call: Call) -> Any:
        call.step_aside()
        call.add_callback(self.ended.set)
        self.inside.release()
        self.leave.acquire(timeout=TIMEOUT_SECONDS)
        return raw, status.OK, ""

    def _note_remaining(self, raw: bytes, call: Call) -> Any:
        self.remaining.append(call.time_remaining())
        return b"", status.OK, ""

    def _break(self, raw: bytes, call: Call) -> Any:
        raise RuntimeError("a bug")

    def start(self) -> "Service":
        self.server.listen(self.path)
        self.server.start()
        return self

    def end(self) -> None:
        self.server.stop(0)
        self.channel.close()

    def call(self, method: str, raw: bytes = b"", timeout: float | None = TIMEOUT_SECONDS) -> bytes:
        answer: bytes = self.channel.unary_unary(f"/t/{method}")(raw, timeout=timeout)
        return answer

    def later(self, method: str) -> Any:
        return self.channel.unary_unary(f"/t/{method}").future(b"", timeout=TIMEOUT_SECONDS)

    def block(self, count: int) -> list[Any]:
        calls = [self.later("Block") for _ in range(count)]
        for _ in range(count):
            assert self.inside.acquire(timeout=TIMEOUT_SECONDS)
        return calls

    def release(self, calls: list[Any]) -> None:
        for _ in calls:
            self.leave.release()
        for call in calls:
            call.result(TIMEOUT_SECONDS)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path).start()
    yield service
    service.end()


@pytest.fixture(params=[CoreServer, FallbackServer])
def any_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A service on each of the two servers: what their tests ask of one holds for the other."""
    service = Service(tmp_path, request.param).start()
    yield service
    service.end()


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    code: grpc.StatusCode = caught.value.code()  # type: ignore[attr-defined]
    return code


def test_answers(any_service: Service) -> None:
    assert any_service.call("Echo", b"x" * 100_000) == b"x" * 100_000
    assert any_service.call("Echo") == b""


def test_refusals(any_service: Service) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        any_service.call("Refuse")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "why: ü")  # type: ignore[attr-defined]
    assert code_of(lambda: any_service.call("Nothing")) is grpc.StatusCode.UNIMPLEMENTED
    assert code_of(lambda: any_service.call("Echo", bytes(2 << 20))) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_request_without_a_message(service: Service) -> None:
    call = service.channel.stream_unary("/t/Echo")
    assert code_of(lambda: call(iter(()), timeout=TIMEOUT_SECONDS)) is grpc.StatusCode.UNIMPLEMENTED


def test_slow_calls_never_take_the_last_poller(service: Service) -> None:
    for _ in range(3):
        calls = service.block(8)
        assert service.call("Echo", b"still") == b"still"
        service.release(calls)
        assert service.call("Echo", b"after") == b"after"


def test_what_comes_together_with_a_slow_call_is_answered(any_service: Service) -> None:
    for _ in range(20):
        calls = [any_service.later("Block"), *(any_service.later("Echo") for _ in range(8))]
        for call in calls[1:]:
            assert call.result(TIMEOUT_SECONDS) == b""
        assert any_service.inside.acquire(timeout=TIMEOUT_SECONDS)
        any_service.release(calls[:1])


def test_a_large_answer_of_a_slow_call(tmp_path: Path) -> None:
    service = Service(tmp_path)
    large = bytes(unread.LARGE_BYTES + 1)

    def answer(raw: bytes, call: Call) -> Any:
        call.step_aside()
        return large, status.OK, ""

    service.server.add_unary("/t/Large", answer)
    service.start()
    for _ in range(5):
        assert service.call("Large") == large
        assert service.call("Echo", b"after") == b"after"
    service.end()


def test_calls_wait_where_the_system_gives_no_thread(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("rpc"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    calls = service.block(1)
    waiting = service.later("Echo")
    service.release(calls)
    assert waiting.result(TIMEOUT_SECONDS) == b""
    assert service.call("Echo", b"after") == b"after"


def test_a_bug_in_a_handler_costs_no_thread(any_service: Service) -> None:
    for _ in range(8):
        assert code_of(lambda: any_service.call("Break")) is grpc.StatusCode.INTERNAL
    assert any_service.call("Echo", b"still") == b"still"


def test_deadlines(any_service: Service) -> None:  # [P-5]
    any_service.call("Remaining", timeout=None)
    any_service.call("Remaining", timeout=20)
    none, some = any_service.remaining
    assert none is None
    assert some is not None and 0 < some < TIMEOUT_SECONDS  # gRPC rounds it up a little


def test_a_message_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # [B-3]
    monkeypatch.setattr(receiving, "INCOMPLETE_SECONDS", 0.05)
    service = Service(tmp_path).start()
    ended = threading.Event()
    silent = (b"" for _ in iter(lambda: ended.wait(TIMEOUT_SECONDS), True))
    assert code_of(lambda: service.channel.stream_unary("/t/Echo")(silent)) is grpc.StatusCode.DEADLINE_EXCEEDED
    ended.set()
    assert service.call("Echo", b"after") == b"after"
    service.end()


def test_a_caller_that_goes_away_is_noticed(any_service: Service) -> None:  # [P-5]
    (call,) = any_service.block(1)
    assert not any_service.ended.is_set()
    call.cancel()
    assert any_service.ended.wait(TIMEOUT_SECONDS)
    any_service.leave.release()


def test_health_watch(any_service: Service) -> None:  # [N]
    any_service.health.set("", True)
    answers = health_pb2_grpc.HealthStub(any_service.channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS
    )
    state = health_pb2.HealthCheckResponse
    assert next(answers).status == state.SERVING
    any_service.health.set("", False)
    assert next(answers).status == state.NOT_SERVING
    answers.cancel()


@pytest.mark.parametrize("kind", [CoreServer, FallbackServer])
def test_the_stop_lets_calls_finish_and_ends_streams(tmp_path: Path, kind: Any) -> None:
    service = Service(tmp_path, kind).start()
    answers = health_pb2_grpc.HealthStub(service.channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS
    )
    next(answers)
    calls = service.block(3)
    stopper = threading.Thread(target=service.server.stop, args=(TIMEOUT_SECONDS,))
    stopper.start()
    assert code_of(lambda: next(answers)) is grpc.StatusCode.UNAVAILABLE
    service.release(calls)
    stopper.join(TIMEOUT_SECONDS)
    assert not stopper.is_alive()
    service.channel.close()


@pytest.mark.parametrize("kind", [CoreServer, FallbackServer])
def test_the_stop_does_not_wait_for_ever(tmp_path: Path, kind: Any) -> None:
    service = Service(tmp_path, kind).start()
    (call,) = service.block(1)
    service.server.stop(0.05)
    assert code_of(call.result) in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    service.leave.release()
    service.channel.close()


@pytest.mark.parametrize("said", [b"", PREFACE + frame(SETTINGS, 0, 0, b"")], ids=["nothing", "its settings"])
@pytest.mark.parametrize("kind", [CoreServer, FallbackServer])
def test_the_stop_does_not_wait_for_connections_without_calls(tmp_path: Path, kind: Any, said: bytes) -> None:
    service = Service(tmp_path, kind).start()
    assert service.call("Echo") == b""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(service.path)
        silent.sendall(said)
        (call,) = service.block(1)
        stopper = threading.Thread(target=service.server.stop, args=(100 * TIMEOUT_SECONDS,))
        stopper.start()
        service.release([call])
        stopper.join(TIMEOUT_SECONDS)
        assert not stopper.is_alive()
        told = b""
        with contextlib.suppress(ConnectionResetError):  # it was closed with something unread
            told = silent.recv(1 << 16)
        assert b"ping_timeout" not in told  # what gRPC says where it was waited for
    service.channel.close()


@pytest.mark.parametrize("kind", [CoreServer, FallbackServer])
def test_a_server_that_never_started_stops(tmp_path: Path, kind: Any) -> None:
    Service(tmp_path, kind).server.stop(1)
    with pytest.raises(RuntimeError):
        Service(tmp_path / "missing", kind).server.listen(str(tmp_path / "missing" / "x.sock"))
