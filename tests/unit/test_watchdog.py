"""The watchdog pings on evidence only, and says once what is missing."""

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from edge.host.evidence import InferencesEnd, ServerAnswers, WorkerTurns
from edge.host.notify import Notifier
from edge.host.stacks import MAX_CHARACTERS, name_threads, thread_stacks
from edge.host.watchdog import Decision, Watchdog, answer_seconds, decide, round_seconds


class SteppedClock:
    """A clock that moves only when a test says; `wait` returns once `rounds` waits have been granted."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.granted = threading.Semaphore(0)
        self.waiting = threading.Semaphore(0)

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def synchronised(self) -> bool:
        return True

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.time += seconds
        self.waiting.release()
        self.granted.acquire(timeout=30)
        return event.is_set()


class Evidence:
    """A check whose answer the test sets."""

    def __init__(self, name: str, reason: str | None = None) -> None:
        self.name = name
        self.reason = reason
        self.closed = False

    def missing(self) -> str | None:
        return self.reason

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """The service manager: a call gives the messages since the last one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def messages() -> list[str]:
            taken = []
            while True:
                try:
                    taken.append(end.recv(65536).decode())
                except BlockingIOError:
                    return taken

        yield messages


@pytest.fixture
def notifier(manager: Callable[[], list[str]]) -> Iterator[Notifier]:
    made = Notifier()
    yield made
    made.close()


# --- the decision ------------------------------------------------------------


def test_all_evidence_means_alive() -> None:
    assert decide([("server", None), ("capture worker", None)], frozenset()) == Decision(alive=True)


@pytest.mark.parametrize("stuck", ["server", "capture worker", "inference"])
def test_one_piece_missing_is_enough(stuck: str) -> None:
    findings = [(name, "stuck" if name == stuck else None) for name in ("server", "capture worker", "inference")]
    assert decide(findings, frozenset()) == Decision(alive=False, new=("stuck",))


def test_a_known_fault_is_not_new_and_its_end_is_told() -> None:
    assert decide([("server", "stuck")], frozenset({"server"})) == Decision(alive=False)
    assert decide([("server", None)], frozenset({"server"})) == Decision(alive=True, over=("server",))


def test_rounds_leave_room_for_a_slow_one() -> None:
    for seconds in (0.4, 4.0, 30.0, 600.0):
        assert answer_seconds(seconds) + round_seconds(seconds) < seconds
    assert round_seconds(None) > 0
    assert answer_seconds(None) > 0


# --- a round -----------------------------------------------------------------


def test_a_round_pings_and_shows_the_status(manager: Callable[[], list[str]], notifier: Notifier) -> None:
    dog = Watchdog([Evidence("server")], notifier, SteppedClock(), 1.0, status=lambda: "1 model loaded")
    assert dog.round()
    assert manager() == ["WATCHDOG=1", "STATUS=1 model loaded"]


def test_stuck_means_no_ping_and_the_stacks_once(
    manager: Callable[[], list[str]], notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    server = Evidence("server", "the server did not answer")
    dog = Watchdog([server, Evidence("inference")], notifier, SteppedClock(), 1.0, status=lambda: "fine")
    assert not dog.round()
    assert not dog.round()
    assert manager() == ["STATUS=stuck: the server did not answer"]
    critical = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert critical[0] == "the agent is stuck: the server did not answer"
    assert "test_stuck_means_no_ping_and_the_stacks_once (test_watchdog.py:" in critical[1]
    assert len(critical) == 2

    server.reason = None
    assert dog.round()
    assert manager() == ["WATCHDOG=1", "STATUS=fine"]
    assert "evidence is back: server" in caplog.text


def test_a_check_that_fails_is_missing_evidence(manager: Callable[[], list[str]], notifier: Notifier) -> None:
    class Broken(Evidence):
        def missing(self) -> str | None:
            raise OSError("no descriptors left")

    assert not Watchdog([Broken("server")], notifier, SteppedClock(), 1.0).round()
    assert manager() == ["STATUS=stuck: the check of the server fails: OSError: no descriptors left"]


def test_a_status_that_fails_costs_no_restart(manager: Callable[[], list[str]], notifier: Notifier) -> None:
    def status() -> str:
        raise RuntimeError("half-built")

    assert Watchdog([Evidence("server")], notifier, SteppedClock(), 1.0, status).round()
    assert manager() == ["WATCHDOG=1"]


def test_without_systemd_it_still_logs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not Watchdog([Evidence("server", "no answer")], Notifier(), SteppedClock(), 1.0).round()
    assert "the agent is stuck: no answer" in caplog.text


# --- the thread --------------------------------------------------------------


def test_the_thread_pings_each_round_and_ends(manager: Callable[[], list[str]], notifier: Notifier) -> None:
    clock, check = SteppedClock(), Evidence("server")
    dog = Watchdog([check], notifier, clock, 1.0)
    dog.start()
    for _ in range(3):
        assert clock.waiting.acquire(timeout=30)
        assert manager() == ["WATCHDOG=1"]
        clock.granted.release()
    assert clock.waiting.acquire(timeout=30)
    dog._stop.set()
    clock.granted.release()
    dog.stop()
    assert check.closed


def test_a_stop_during_a_round_is_not_a_hang(
    manager: Callable[[], list[str]], notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    class Stopping(Evidence):
        def missing(self) -> str | None:
            dog._stop.set()
            return "the server went away"

    dog = Watchdog([Stopping("server")], notifier, SteppedClock(), 1.0)
    dog.round()
    assert manager() == []
    assert "stuck" not in caplog.text


# --- the evidence ------------------------------------------------------------


class Hanging(health_pb2_grpc.HealthServicer):
    """A server whose calls do not return until released."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def Check(self, request: object, context: object) -> health_pb2.HealthCheckResponse:
        self.release.wait(30)
        return health_pb2.HealthCheckResponse()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a server on a Unix socket of its own and gives its path."""
    running: list[grpc.Server] = []
    pool = ThreadPoolExecutor(2)

    def start(servicer: health_pb2_grpc.HealthServicer, **options: int) -> str:
        server = grpc.server(pool, **options)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        path = str(tmp_path / f"s{len(running)}")
        server.add_insecure_port(f"unix:{path}")
        server.start()
        running.append(server)
        return path

    yield start
    for server in running:
        server.stop(None).wait()
    pool.shutdown()


def test_a_server_that_answers(serve: Callable[..., str]) -> None:
    check = ServerAnswers(serve(health.HealthServicer()), timeout_s=30)
    assert check.missing() is None
    check.close()


def test_a_server_that_is_not_serving_yet_answers_too(serve: Callable[..., str]) -> None:
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    check = ServerAnswers(serve(servicer), timeout_s=30)
    assert check.missing() is None
    check.close()


def test_a_full_server_is_load_and_not_a_hang(serve: Callable[..., str]) -> None:
    check = ServerAnswers(serve(Hanging(), maximum_concurrent_rpcs=0), timeout_s=30)
    assert check.missing() is None
    check.close()


def test_a_server_that_sheds_calls_is_load_and_not_a_hang(serve: Callable[..., str]) -> None:
    class Sheds(health.HealthServicer):
        def Check(self, request: object, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.CANCELLED, "too many")

    check = ServerAnswers(serve(Sheds()), timeout_s=30)
    assert check.missing() is None
    check.close()


def test_a_server_that_hangs(serve: Callable[..., str]) -> None:
    servicer = Hanging()
    check = ServerAnswers(serve(servicer), timeout_s=0.2)
    assert "did not answer a health call on its own socket within 0.2 s (DEADLINE_EXCEEDED)" in str(check.missing())
    servicer.release.set()
    check.close()


def test_a_server_that_is_gone(tmp_path: Path) -> None:
    check = ServerAnswers(str(tmp_path / "none"), timeout_s=5)
    assert "(UNAVAILABLE)" in str(check.missing())
    check.close()


def test_a_worker_that_stops_turning() -> None:
    clock = SteppedClock()
    turned = clock.time
    check = WorkerTurns("capture worker", lambda: turned, clock, limit_s=30)
    clock.time += 30
    assert check.missing() is None
    clock.time += 1
    assert check.missing() == "the capture worker has made no progress for 31 s"


def test_an_inference_without_end_and_a_slow_one() -> None:
    age, asked = 0.0, list[float]()
    check = InferencesEnd(lambda limit_s: asked.append(limit_s) or age, limit_s=60)  # type: ignore[func-returns-value]
    assert check.missing() is None
    age = 61.0
    assert "an inference has been running for 61 s" in str(check.missing())
    assert asked == [60, 60]


# --- the stacks --------------------------------------------------------------


def test_stacks_count_threads_at_the_same_place_and_stay_on_one_line() -> None:
    done, started = threading.Event(), threading.Barrier(4)

    def idle() -> None:
        started.wait(30)
        done.wait(30)

    threads = [threading.Thread(target=idle, name=f"idle-{n}") for n in range(3)]
    for thread in threads:
        thread.start()
    started.wait(30)
    try:
        while "3 threads (idle-" not in (text := thread_stacks()):
            assert any(thread.is_alive() for thread in threads)
        assert "idle (test_watchdog.py:" in text
        assert "MainThread: thread_stacks (stacks.py:" in text
        assert "\n" not in text
        assert len(text) <= MAX_CHARACTERS
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_the_kernel_knows_the_threads_by_name() -> None:
    done, named = threading.Event(), set[int]()
    thread = threading.Thread(target=done.wait, args=(30,), name="capture-worker-7")
    thread.start()
    try:
        name_threads(named)
        assert Path(f"/proc/self/task/{thread.native_id}/comm").read_text() == "capture-worker-\n"
        assert thread.native_id in named
        assert threading.main_thread().native_id not in named
    finally:
        done.set()
        thread.join()
    name_threads(named)
    assert thread.native_id not in named  # another thread may get its id


def test_stacks_of_a_deep_recursion_are_cut() -> None:
    def deep(levels: int) -> str:
        return thread_stacks() if levels == 0 else deep(levels - 1)

    assert "deep (test_watchdog.py:" in deep(200)
    assert " < ..." in deep(200)


def test_a_signal_from_the_service_manager_leaves_every_stack() -> None:
    """The hang that the thread cannot report: SIGABRT, as systemd sends it, writes the stacks."""
    code = (
        "import os, signal\n"
        "from edge.clock import SystemClock\n"
        "from edge.host.notify import Notifier\n"
        "from edge.host.stacks import thread_stacks\n"
        "from edge.host.watchdog import Watchdog\n"
        "Watchdog([], Notifier(), SystemClock()).start()\n"
        "while '_run (watchdog.py' not in thread_stacks(): pass\n"
        "def hung_here(): os.kill(os.getpid(), signal.SIGABRT)\n"
        "hung_here()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert child.returncode < 0
    assert "hung_here" in child.stderr
    assert "_run" in child.stderr  # the watchdog's own thread
