"""What a power cut leaves, and what a restart makes of it (R-5, G-4)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.capture.service import CaptureService
from tests.fakes import captures
from tests.fakes.captures import disk_settings, large, small
from tests.fakes.clock import FakeClock


@pytest.fixture
def make() -> Iterator[captures.Runs]:
    with captures.Runs(FakeClock()) as runs:
        yield runs


def opened(make: captures.Runs, tmp_path: Path) -> tuple[Path, list[Path]]:
    """Three open captures, the middle one with a large entry: the record file and the large ones."""
    service = make(disk_settings(tmp_path))
    for capture in (small("one"), large("two"), small("three")):
        service.submit(capture)
    folder = tmp_path / "disk/.spool/open"
    [record] = folder.rglob("*.jsonl.open")
    return record, list(folder.rglob("*.bin.*"))


def restarted(make: captures.Runs, tmp_path: Path) -> tuple[CaptureService, list[str]]:
    service = make(disk_settings(tmp_path))
    service.turn(stopping=True)
    assert not captures.stray_files(tmp_path)
    return service, captures.found(tmp_path / "disk")


def test_whole_files_are_finished(make: captures.Runs, tmp_path: Path) -> None:
    opened(make, tmp_path)
    service, ids = restarted(make, tmp_path)
    assert ids == ["one", "three", "two"] and service.status("two").name == "SUCCESS"


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_torn_end(make: captures.Runs, tmp_path: Path, kept: int) -> None:
    record, _ = opened(make, tmp_path)
    whole = record.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    record.write_bytes(whole[:-1] if kept < 0 else whole[: last + kept])
    assert restarted(make, tmp_path)[1] == ["one", "two"]


def test_zeros_in_the_middle(make: captures.Runs, tmp_path: Path) -> None:
    record, _ = opened(make, tmp_path)
    data = bytearray(record.read_bytes())
    at = data.index(b"deviceFleetOutputs")
    data[at : at + 20] = bytes(20)
    record.write_bytes(data)
    assert restarted(make, tmp_path)[1] == ["three", "two"]


@pytest.mark.parametrize("size", [0, 50, 5000])
def test_an_empty_or_foreign_record_file(make: captures.Runs, tmp_path: Path, size: int) -> None:
    record, _ = opened(make, tmp_path)
    record.write_bytes(b"\xff" * size)
    service, ids = restarted(make, tmp_path)
    assert ids == [] and not list((tmp_path / "disk").rglob("*.bin*"))
    service.submit(small("one"))


@pytest.mark.parametrize("damage", ["missing", "short", "flipped"])
def test_a_damaged_large_entry(make: captures.Runs, tmp_path: Path, damage: str) -> None:  # [R-5] [G-4]
    _, [raw] = opened(make, tmp_path)
    data = bytearray(raw.read_bytes())
    data[2500] ^= 1
    if damage == "missing":
        raw.unlink()
    else:
        raw.write_bytes(data if damage == "flipped" else data[:2500])
    service, ids = restarted(make, tmp_path)
    assert ids == ["one", "three"] and service.status("two").name == "FAILURE"
    assert not list((tmp_path / "disk").rglob("*.bin*"))


def test_a_large_entry_without_its_line_goes(make: captures.Runs, tmp_path: Path) -> None:
    record, _ = opened(make, tmp_path)
    record.unlink()
    assert restarted(make, tmp_path)[1] == [] and not list((tmp_path / "disk").rglob("*.bin*"))


def test_foreign_files_and_links_in_the_spool_are_left_alone(make: captures.Runs, tmp_path: Path) -> None:
    record, _ = opened(make, tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (record.parent / "20250615T150640000Z-device-1-0badcafe-000009.jsonl.open").symlink_to(victim)
    (record.parent / "notes.txt").write_text("hello")
    (record.parent / "looped").symlink_to(tmp_path)
    make(disk_settings(tmp_path)).turn(stopping=True)
    assert victim.read_text() == "precious" and (record.parent / "notes.txt").exists()
