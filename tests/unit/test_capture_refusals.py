"""What operators see of captures that are refused (C-6, R-10)."""

from pathlib import Path

import pytest

from edge.capture.refusals import REPORT_SECONDS, Refusals
from edge.errors import BufferFullError, SpoolFullError
from tests.fakes import captures
from tests.fakes.captures import disk_settings, small
from tests.fakes.clock import START, FakeClock


def test_the_log_has_a_line_a_minute(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """However many are refused, and with all of them counted."""
    caplog.set_level("INFO")
    refusals = Refusals(clock)
    for _ in range(1000):
        refusals.note_refused("the disk is full")
        clock.advance(0.001)
    assert [r.getMessage() for r in caplog.records] == [
        "captures are refused (1 since the last such line): the disk is full"
    ]
    clock.advance(REPORT_SECONDS)
    refusals.report()
    refusals.report()
    assert "(999 since the last such line)" in caplog.messages[-1] and len(caplog.messages) == 2


def test_they_last_until_a_capture_is_taken(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    refusals = Refusals(clock)
    refusals.note_accepted("m")
    refusals.note_refused("first")
    clock.advance(5)
    refusals.note_refused("second")
    assert refusals.current() == ("captures are refused: second", START + 5) and refusals.since == START
    refusals.note_accepted("m")
    assert refusals.current() == ("", 0.0) and (refusals.since, refusals.total) == (0.0, 2)
    assert caplog.messages[-1] == "captures are accepted again; 2 were refused since the start"


def test_refused_and_taken_in_turns_floods_no_log(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    refusals = Refusals(clock)
    for _ in range(1000):
        refusals.note_refused("too large for what is left")
        refusals.note_accepted("m")
    assert len(caplog.messages) == 2


def test_a_disk_without_room_is_shown(make: captures.Runs, clock: FakeClock, tmp_path: Path) -> None:  # [R-10] [C-6]
    settings = disk_settings(tmp_path, spool_min_free=1 << 60)
    service = make(settings)
    for name in ("one", "two"):
        with pytest.raises(SpoolFullError, match="edge_spool_min_free_mib"):
            service.submit(small(name))
    snapshot = service.snapshot()
    assert (snapshot.refused, snapshot.refusing_since_unix_seconds) == (2, int(START))
    assert "captures are refused: the spool is full: its disk has" in snapshot.last_error
    object.__setattr__(settings, "spool_min_free", 0)
    service.submit(small("one"))
    snapshot = service.snapshot()
    assert (snapshot.refused, snapshot.refusing_since_unix_seconds, snapshot.last_error) == (2, 0, "")


def test_a_full_buffer_is_shown(make: captures.Runs, tmp_path: Path) -> None:  # [R-10] [C-6]
    service = make(disk_settings(tmp_path, buffer_captures=1))
    service.submit(small("one"))
    with pytest.raises(BufferFullError):
        service.submit(small("two"))
    assert "buffer_size" in service.snapshot().last_error
