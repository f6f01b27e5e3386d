"""When a device asks, and when it does not though it is asked to (F-1, F-3)."""

import threading
from pathlib import Path

import pytest

from edge.errors import DeadlineError, FleetError
from edge.fleet.polling import Polling
from edge.fleet.reports import Reports
from edge.fleet.telling import Telling
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import NOW, FleetDevice, FleetServer, Operator, connect, gives
from tests.unit.test_loads import Call


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    made = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
    made.publish("1.0")
    made.deploy("n-1", "1.0")
    return made


def polling(device: FleetDevice, repository: str) -> Polling:
    telling = Telling(device.settings, "1.2", device.clock, Reports(device.home / "reports", None), 60.0)
    return Polling(
        device.fleet,
        repository,
        3600.0,
        clock=device.clock,
        stop=threading.Event(),
        connect=lambda url: connect(url, device.clock),
        telling=telling,
    )


def test_asked_rounds_are_bounded(operator: Operator, tmp_path: Path) -> None:  # [F-1] [F-3]
    device, server = FleetDevice(tmp_path / "device", operator), FleetServer(operator.folder)
    server.start()
    try:
        one = polling(device, server.url)
        one.check("", Call())
        assert one.checked.error == ""
        assert one.describe()["state"] == "trying"
        asked = len(server.asked)
        one.check("", Call())
        assert len(server.asked) == asked, "within a second of the last one"
        server.bent = {"timestamp": gives(b"", 503, {"Retry-After": "120"})}
        device.clock.advance(2)
        one.check("", Call())
        assert "503" in one.checked.error
        asked = len(server.asked)
        device.clock.advance(60)
        one.check("", Call())
        assert len(server.asked) == asked, "before Retry-After"
        assert "503" in one.describe()["last_error"]
        server.bent = {}
        device.clock.advance(61)
        one.check("", Call())
        assert one.checked.error == ""
    finally:
        server.close()


def test_it_polls_by_itself_and_ends(operator: Operator, tmp_path: Path) -> None:  # [F-3]
    device, server = FleetDevice(tmp_path / "device", operator), FleetServer(operator.folder)
    server.start()
    try:
        one = polling(device, server.url)
        one.start()
        device.clock.advance(60)
        for _ in range(200):
            if device.runs:
                break
            threading.Event().wait(0.05)
        assert device.runs == {"digits": "digits/1.0"}
        one.stop()
        assert not [thread for thread in threading.enumerate() if thread.name == "fleet"]
    finally:
        server.close()


def test_what_cannot_be_asked(operator: Operator, tmp_path: Path) -> None:
    device = FleetDevice(tmp_path / "device", operator)
    one = polling(device, "")
    with pytest.raises(FleetError, match="no edge_fleet_repository"):
        one.check("", Call())
    with pytest.raises(FleetError, match="no absolute path"):
        one.check("stick", Call())
    one.check(str(operator.folder), Call())
    assert device.runs == {"digits": "digits/1.0"}


def silent(server: FleetServer, asked: threading.Event) -> None:
    """From now on the server keeps whoever asks waiting."""

    def wait(handler: object, name: str) -> None:
        asked.set()
        server.closing.wait(60)

    server.bent = {"timestamp": wait}
    server.start()


def test_a_stick_does_not_wait_for_a_download(operator: Operator, tmp_path: Path) -> None:  # [F-15] [F-20]
    device, server, asked = FleetDevice(tmp_path / "device", operator), FleetServer(operator.folder), threading.Event()
    silent(server, asked)
    one = polling(device, server.url)
    try:
        one.start()
        device.clock.advance(60)
        assert asked.wait(60)
        with pytest.raises(DeadlineError, match="another round of the fleet"):
            one.check("", Call(0.0))
        one.check(str(operator.folder), Call())
        assert device.runs == {"digits": "digits/1.0"}
        assert one.checked.error == "", "the round that gave way has not failed"
        asked.clear()
        server.asked.clear()
        for _ in range(600):
            device.clock.advance(35)
            if asked.wait(0.1):
                break
        assert server.asked, "and is run again soon"
    finally:
        one.stop()
        server.close()


def test_what_nobody_expected(operator: Operator, tmp_path: Path) -> None:  # [F-21]
    """The thread goes on; the fault is counted, shown, and waited for longer each time."""
    device = FleetDevice(tmp_path / "device", operator)
    device.poll()
    one = polling(device, str(operator.folder))
    good, looked = device.fleet.look, threading.Semaphore(0)

    def bad() -> bool:
        looked.release()
        raise RuntimeError("nobody expected this")

    device.fleet.look = bad  # type: ignore[method-assign]
    one.start()
    try:
        for _ in range(3):
            for _ in range(600):
                device.clock.advance(2.1)
                if looked.acquire(timeout=0.1):
                    break
        assert one.faults >= 2
        assert "internal error" in one.describe()["last_error"]
        device.serving.commit()
        device.fleet.look = good  # type: ignore[method-assign]
        for _ in range(600):
            device.clock.advance(60)
            if device.fleet.state.proved and one.describe()["last_error"] == "":
                break
            threading.Event().wait(0.05)
        assert device.ended, "and then it looked again"
        assert one.describe()["last_error"] == ""
    finally:
        one.stop()
