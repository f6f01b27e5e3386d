"""What reaches the service manager's socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.host.notify import MAX_STATUS_CHARACTERS, Notifier, watchdog_seconds


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield end


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    made = Notifier()
    yield made
    made.close()


def test_each_message_as_sd_notify_has_it(manager: socket.socket, notifier: Notifier) -> None:
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    assert [manager.recv(4096) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_status_is_one_line_of_utf8_within_bounds(manager: socket.socket, notifier: Notifier) -> None:
    notifier.status("1 model;\n2 captures waiting, größte 3 µs → ok")
    notifier.status("x" * 10_000)
    assert manager.recv(4096).decode() == "STATUS=1 model; 2 captures waiting, größte 3 µs → ok"
    assert len(manager.recv(65536)) == len("STATUS=") + MAX_STATUS_CHARACTERS


def test_the_same_status_is_sent_once(manager: socket.socket, notifier: Notifier) -> None:
    for text in ("idle", "idle", "busy"):
        notifier.status(text)
    assert [manager.recv(4096), manager.recv(4096)] == [b"STATUS=idle", b"STATUS=busy"]
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_a_manager_that_does_not_read_holds_nothing_up(manager: socket.socket, notifier: Notifier) -> None:
    for number in range(1000):  # more than the kernel keeps for it
        notifier.status(f"status {number}")
    notifier.stopping()
    assert manager.recv(4096) == b"STATUS=status 0"


def test_without_systemd_messages_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notifier = Notifier()
    notifier.ready()
    notifier.status("idle")
    notifier.close()
    assert not notifier.supervised
    assert notifier.watchdog_seconds is None


def test_a_manager_that_went_away_does_no_harm(manager: socket.socket, notifier: Notifier) -> None:
    manager.close()
    notifier.alive()
    notifier.close()
    notifier.alive()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getppid())}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environment) == seconds
