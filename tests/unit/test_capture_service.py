"""CaptureService: from the call to the disk (C, G, R)."""

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.capture.batch import FILES_AT_ONCE
from edge.capture.service import CaptureService
from edge.capture.settings import CaptureSettings
from edge.capture.statuses import CaptureState
from edge.errors import (
    BufferFullError,
    CaptureContentError,
    CaptureExistsError,
    CaptureIdError,
    CaptureNotFoundError,
    CaptureTimeError,
    ConfigError,
    EdgeError,
    SpoolFullError,
    StoppingError,
)
from tests.fakes import captures
from tests.fakes.captures import cloud_settings, disk_settings, large, small
from tests.fakes.clock import START, FakeClock
from tests.fakes.disk import Recorder

Make = Callable[[CaptureSettings], CaptureService]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make(clock: FakeClock) -> Iterator[Make]:
    """Services whose turns the test takes itself: no worker thread runs."""
    made: list[CaptureService] = []

    def service(settings: CaptureSettings) -> CaptureService:
        made.append(CaptureService(settings, clock, None))
        made[-1]._try_open()
        return made[-1]

    yield service
    for one in made:
        one.stop(1)


def test_accepted_then_durable(make: Make, tmp_path: Path) -> None:  # [G-2] [G-3]
    service = make(disk_settings(tmp_path, folder_prefix="a/b"))
    service.submit(small("one"))
    assert service.status("one") is CaptureState.IN_PROGRESS
    assert not captures.record_files(tmp_path)
    service.turn(stopping=True)
    assert service.status("one") is CaptureState.SUCCESS
    [(path, event)] = captures.records(tmp_path)
    assert path.parent == tmp_path / "disk/a/b/fleet-1/digits/2025/06/15/15"
    assert path.name.startswith("20250615T150640000Z-device-1-")
    assert event["eventMetadata"]["eventId"] == "one"


def test_large_tensors_have_files_of_their_own(make: Make, tmp_path: Path) -> None:
    service = make(disk_settings(tmp_path, folder_prefix="odd name"))
    service.submit(large("one", 5000))
    service.turn(stopping=True)
    [(path, event)] = captures.records(tmp_path)
    entry = event["deviceFleetInputs"][0]
    assert entry["data-ref"].startswith("file:///") and "odd%20name" in entry["data-ref"]
    data = captures.entry_bytes(entry, tmp_path)
    assert len(data) == 5000 and data.startswith(b"one-")
    [raw] = (path.parent / "raw-data" / "input-tensors").iterdir()
    assert raw.read_bytes() == data


def test_every_byte_is_in_the_page_cache_before_the_answer(make: Make, tmp_path: Path) -> None:
    service = make(cloud_settings(tmp_path))
    service.submit(large("one", 9000))
    sizes = sorted(p.stat().st_size for p in (tmp_path / "spool/open").rglob("*.open"))
    assert sizes[-1] == 9000 and len(sizes) == 2


def test_a_batch_is_made_durable_in_order(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(large("zero"))
    service.turn(stopping=True)  # the folders are durable from here on
    recorder = Recorder(monkeypatch, tmp_path / "disk")
    for number in range(3):
        service.submit(small(f"small{number}"))
    service.submit(large("large"))
    service.turn(stopping=True)
    folder = "fleet-1/digits/2025/06/15/15"
    events = recorder.events
    record, raw = ".spool/open/" + folder, f"{folder}/raw-data/input-tensors"
    assert [event.split(" ")[0] for event in events] == ["fsync", "fsync", "rename", "fsync", "rename", "fsync"]
    assert events[0].startswith(f"fsync {record}/2025") and events[0].endswith(".jsonl.open")
    assert events[1].startswith(f"fsync .spool/open/{raw}/") and events[1].endswith(".open")
    assert events[2].startswith(f"rename .spool/open/{raw}/") and events[2].endswith("-00.bin")
    assert events[3] == f"fsync {raw}"
    assert events[4].startswith(f"rename {record}/2025") and events[4].endswith(".jsonl")
    assert events[5] == f"fsync {folder}"
    assert recorder.begun == [0, 0, 4]  # both files before the first fsync waits; the status log before the last


def test_small_captures_cost_two_fsyncs_a_batch(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(small("zero"))
    service.turn(stopping=True)
    recorder = Recorder(monkeypatch, tmp_path)
    for number in range(10):
        service.submit(small(f"id{number}"))
    service.turn(stopping=False)
    assert [event.split(" ")[0] for event in recorder.events] == ["fsync", "rename", "fsync"]


def test_a_batch_is_due_by_count_age_and_size(make: Make, tmp_path: Path, clock: FakeClock) -> None:
    service = make(disk_settings(tmp_path, batch_captures=3, push_period=4.0, buffer_bytes=100_000))
    service.submit(small("a"))
    assert service.turn(stopping=False) == 4.0
    clock.advance(3.9)
    service.submit(small("b", model="other"))
    assert service.turn(stopping=False) == pytest.approx(0.1)
    clock.advance(0.1)
    service.turn(stopping=False)
    assert [service.status(i).name for i in "ab"] == ["SUCCESS", "IN_PROGRESS"]
    for name in "cd":
        service.submit(small(name, model=name))
    service.turn(stopping=False)
    assert {service.status(i) for i in "bcd"} == {CaptureState.SUCCESS}
    service.submit(large("e", 60_000))
    service.turn(stopping=False)
    assert service.status("e") is CaptureState.SUCCESS
    assert service.turn(stopping=False) == float("inf")


def test_batches_are_of_one_model_and_hour(make: Make, tmp_path: Path, clock: FakeClock) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(small("a", model="m1"))
    service.submit(small("b", model="m2"))
    clock.advance(3600)
    service.submit(small("c", model="m1", inference_time=START - 1e6))
    service.turn(stopping=True)
    found = {
        e["eventMetadata"]["eventId"]: p.parent.relative_to(tmp_path / "disk").as_posix()
        for p, e in captures.records(tmp_path)
    }
    assert found == {
        "a": "fleet-1/m1/2025/06/15/15",
        "b": "fleet-1/m2/2025/06/15/15",
        "c": "fleet-1/m1/2025/06/15/16",  # where it was accepted, not when the client says it inferred
    }


def test_a_clock_that_goes_back_makes_no_name_twice(make: Make, tmp_path: Path, clock: FakeClock) -> None:
    for number in range(3):
        clock.set(START)
        service = make(disk_settings(tmp_path))
        service.submit(large(f"id{number}"))
        service.turn(stopping=True)
        service.stop(1)
    names = [path.name for path in captures.record_files(tmp_path)]
    assert len(set(names)) == 3 and len({name.split("-")[0] for name in names}) == 1


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (small("-bad"), CaptureIdError),
        (small("taken", inference_time=START + 100), CaptureExistsError),
        (small("new", inference_time=START + 100, inputs=(captures.auxiliary("", 9, b""),)), CaptureTimeError),
        (small("new", inputs=(captures.auxiliary("", 0, b""),)), CaptureContentError),
        (small("new"), BufferFullError),
    ],
)
def test_the_first_check_that_fails_answers(
    make: Make, tmp_path: Path, bad: Any, error: type[EdgeError]
) -> None:  # [C-1] [C-3] [C-4] [C-5] [C-6]
    service = make(disk_settings(tmp_path, buffer_captures=1, batch_captures=1))
    service.submit(small("taken"))
    with pytest.raises(error):
        service.submit(bad)
    with pytest.raises(CaptureNotFoundError, match="new"):
        service.status("new")
    service.turn(stopping=False)
    service.submit(small("new"))  # what was refused may come again


def test_a_finished_id_stays_taken(make: Make, tmp_path: Path) -> None:  # [C-3] [G-5]
    service = make(disk_settings(tmp_path))
    service.submit(small("one"))
    service.turn(stopping=True)
    service.stop(1)
    again = make(disk_settings(tmp_path))
    assert again.status("one") is CaptureState.SUCCESS
    with pytest.raises(CaptureExistsError, match="one"):
        again.submit(small("one"))
    with pytest.raises(CaptureExistsError):
        again.check_new("one", None)
    with pytest.raises(CaptureTimeError):
        again.check_new("two", START + 6)


def test_one_of_many_with_the_same_id_wins(make: Make, tmp_path: Path) -> None:  # [C-3]
    service = make(disk_settings(tmp_path, buffer_captures=1000))
    won, refused = itertools.count(), itertools.count()
    start = threading.Barrier(8)

    def submit() -> None:
        start.wait()
        for number in range(50):
            try:
                service.submit(large(f"id{number}"))
                next(won)
            except CaptureExistsError:
                next(refused)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (next(won), next(refused)) == (50, 350)
    service.turn(stopping=True)
    assert len(list(captures.records(tmp_path))) == 50


def test_the_buffer_is_bounded_in_captures_and_bytes(make: Make, tmp_path: Path) -> None:  # [C-6]
    service = make(disk_settings(tmp_path, buffer_captures=3, buffer_bytes=10_000))
    with pytest.raises(BufferFullError, match="capture_buffer_mib"):
        service.submit(large("huge", 20_000))
    service.submit(large("a", 7_000))
    with pytest.raises(BufferFullError, match="bytes wait"):
        service.submit(large("b", 7_000))
    service.submit(small("c"))
    service.submit(small("d"))
    with pytest.raises(BufferFullError, match="buffer_size"):
        service.submit(small("e"))
    service.turn(stopping=True)
    service.submit(large("b", 7_000))


def test_stopping_refuses_and_flushes(tmp_path: Path, clock: FakeClock) -> None:
    service = CaptureService(disk_settings(tmp_path, push_period=1000), clock, None)
    service.start()
    service.submit(small("one"))
    service.stop(30)
    assert service.status("one") is CaptureState.SUCCESS
    with pytest.raises(StoppingError):
        service.submit(small("two"))


def test_the_worker_wakes_for_a_full_batch_and_keeps_its_heart(tmp_path: Path, clock: FakeClock) -> None:
    service = CaptureService(disk_settings(tmp_path, push_period=1000, batch_captures=2), clock, None)
    service.start()
    try:
        before = service.heartbeat()
        clock.advance(100)
        service.submit(small("one"))
        service.submit(small("two"))
        wait_for(lambda: service.status("two") is CaptureState.SUCCESS)
        assert service.heartbeat() == before + 100
    finally:
        service.stop(30)


def wait_for(condition: Callable[[], bool]) -> None:
    never = threading.Event()
    for _ in range(1500):
        if condition():
            return
        never.wait(0.01)
    raise AssertionError


def test_a_clock_far_ahead(make: Make, clock: FakeClock, tmp_path: Path) -> None:
    """Beyond what counts nanoseconds in 64 bits."""
    clock.set(10_413_792_000.0)  # 2300-01-01
    service = make(disk_settings(tmp_path))
    service.submit(large("late"))
    service.turn(stopping=True)
    [path] = captures.record_files(tmp_path / "disk")
    assert path.parent.relative_to(tmp_path / "disk/fleet-1/digits").as_posix() == "2300/01/01/00"
    assert service.status("late") is CaptureState.SUCCESS


def test_a_batch_of_many_files_lets_others_pass(make: Make, clock: FakeClock, tmp_path: Path) -> None:
    """Each file is an fsync of its own; the captures of others do not wait for all of them."""
    service = make(disk_settings(tmp_path, buffer_captures=1000, batch_captures=1000))
    for i in range(3 * FILES_AT_ONCE):
        service.submit(large(f"many-{i}"))
    clock.advance(60)
    assert service.turn(stopping=False) == 0.0  # there is more to do
    assert service.status("many-0") is CaptureState.IN_PROGRESS
    service.submit(small("other", model="another"))
    clock.advance(60)
    service.turn(stopping=False)
    assert service.status("other") is CaptureState.SUCCESS
    assert service.status("many-0") is CaptureState.IN_PROGRESS
    service.turn(stopping=False)
    assert service.status("many-0") is CaptureState.SUCCESS and service.snapshot().pending == 0
    assert len(captures.found(tmp_path / "disk")) == 3 * FILES_AT_ONCE + 1


def test_two_agents_on_one_spool(make: Make, tmp_path: Path, clock: FakeClock) -> None:
    make(disk_settings(tmp_path))
    with pytest.raises(ConfigError, match="another agent"):
        CaptureService(disk_settings(tmp_path), clock, None).start()


def test_a_folder_that_cannot_be_used_is_tried_again(tmp_path: Path, clock: FakeClock) -> None:  # [C-6]
    (tmp_path / "disk").write_text("a file where the folder should be")
    service = CaptureService(disk_settings(tmp_path), clock, None)
    service.start()
    try:
        with pytest.raises(SpoolFullError, match="cannot be used: "):
            service.submit(small("one"))
        assert "cannot be used" in service.snapshot().last_error
        (tmp_path / "disk").unlink()
        clock.advance(10)
        wait_for(lambda: service._ready)
        service.submit(small("one"))
    finally:
        service.stop(30)
    assert service.status("one") is CaptureState.SUCCESS


def test_snapshot(make: Make, tmp_path: Path, clock: FakeClock) -> None:
    service = make(cloud_settings(tmp_path))
    assert service.snapshot().pending == 0 and service.snapshot().oldest_pending_unix_seconds == 0
    service.submit(small("one"))
    clock.advance(60)
    service.submit(small("two", model="other"))
    shot = service.snapshot()
    assert (shot.destination, shot.pending, shot.oldest_pending_unix_seconds) == ("Cloud", 2, int(START))
    service.turn(stopping=True)
    shot = service.snapshot()
    assert (shot.pending, shot.oldest_pending_unix_seconds, shot.succeeded) == (2, int(START), 0)
    assert shot.pending_bytes == sum(p.stat().st_size for p in (tmp_path / "spool/sealed").rglob("*.jsonl"))
