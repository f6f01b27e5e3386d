"""The spool: what waits for the uploader, its bounds, and what a restart makes of it (R-5, R-6, G-4, G-5)."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.capture.service import CaptureService
from edge.capture.settings import CaptureSettings
from edge.capture.spool import Spool
from edge.capture.statuses import CaptureState
from edge.errors import CaptureExistsError, SpoolFullError
from tests.fakes import captures
from tests.fakes.captures import cloud_settings, disk_settings, large, small
from tests.fakes.clock import START, FakeClock

HOUR = "fleet-1/digits/2025/06/15/15"


class Bench:
    """A service without its worker thread, and its spool."""

    def __init__(self, settings: CaptureSettings, clock: FakeClock) -> None:
        self.service = CaptureService(settings, clock, None)
        self.service._try_open()
        self.spool: Spool = self.service._spool

    def capture(self, *requests: Any) -> None:
        """Accept and seal."""
        for request in requests:
            self.service.submit(request)
        self.service.turn(stopping=True)

    def states(self, *ids: str) -> list[str]:
        return [self.service.status(i).name for i in ids]


Start = Callable[[CaptureSettings], Bench]


@pytest.mark.parametrize("suffix", ["", ".done", ".failed"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_no_file_is_no_batch(start: Start, tmp_path: Path, suffix: str, on_disk: bool) -> None:
    """A pipe or a link by a record's name neither holds the start up nor leads elsewhere."""
    settings = disk_settings(tmp_path, bucket=captures.BUCKET, embed_limit=64) if on_disk else cloud_settings(tmp_path)
    bench = start(settings)
    bench.capture(small("real"))
    [real] = captures.record_files(bench.spool.root)
    os.mkfifo(real.with_name(real.name.replace("-000002.jsonl", "-000008.jsonl") + suffix))
    real.with_name(real.name.replace("-000002.jsonl", "-000009.jsonl") + suffix).symlink_to(real)
    assert len(list(real.parent.iterdir())) == 3 + on_disk
    bench = start(settings)
    assert [batch.path for batch in bench.spool.batches()] == [real]
    assert bench.states("real") == ["SUCCESS" if on_disk else "IN_PROGRESS"]
    assert bench.service.snapshot().pending == 1


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def start(clock: FakeClock) -> Iterator[Start]:
    made: list[Bench] = []

    def begin(settings: CaptureSettings) -> Bench:
        for one in made:
            one.service.stop(1)
        made.append(Bench(settings, clock))
        return made[-1]

    yield begin
    for one in made:
        one.service.stop(1)


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def test_sealed_batches_wait_and_go(start: Start, tmp_path: Path) -> None:  # [G-2] [G-3]
    bench = start(cloud_settings(tmp_path))
    bench.capture(large("one"), small("two"))
    assert bench.spool.sealed.is_set()
    [batch] = bench.spool.batches()
    assert batch.key == f"p/q/{HOUR}/{batch.path.name}" and batch.accepted == START
    assert bench.spool.claim(batch)
    contents = bench.spool.contents(batch)
    assert contents.ids == ("one", "two")
    [entry] = contents.large
    assert entry.key.startswith(f"p/q/{HOUR}/raw-data/input-tensors/") and entry.capture_id == "one"
    assert entry.size == entry.path.stat().st_size == 5000
    event = next(event for _, event in captures.records(tmp_path))
    assert event["deviceFleetInputs"][0]["data-ref"] == f"s3://{captures.BUCKET}/{entry.key}"
    assert bench.states("one", "two") == ["IN_PROGRESS", "IN_PROGRESS"]
    bench.spool.done(batch)
    assert bench.states("one", "two") == ["SUCCESS", "SUCCESS"]
    assert files(tmp_path / "spool/sealed") == [] and list(bench.spool.batches()) == []
    usage = bench.spool.usage()
    assert (usage.size, usage.files, usage.captures) == (0, 0, 0)


NAMES = [
    {"folder_prefix": "a/raw-data"},
    {"folder_prefix": ".hidden/b"},
    {"folder_prefix": "2025/06/15/15"},
    {"fleet": "raw-data"},
    {"model": "raw-data"},
    {"model": ".hidden"},
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: "-".join(*names.items()))
@pytest.mark.parametrize("on_disk", [False, True])
def test_any_name_above_the_hour(start: Start, tmp_path: Path, names: dict[str, str], on_disk: bool) -> None:
    """[R-1] [R-6] A prefix, fleet or model may be called like the folder of large entries, or begin with a dot."""
    changes = dict(names)
    model = changes.pop("model", "digits")
    settings = disk_settings(tmp_path, bucket=captures.BUCKET, **changes)
    if not on_disk:
        settings = cloud_settings(tmp_path, **changes)
    bench = start(settings)
    bench.capture(small("one", model=model))
    bench = start(settings)
    assert bench.states("one") == ["SUCCESS" if on_disk else "IN_PROGRESS"]
    [batch] = bench.spool.batches()
    assert bench.spool.claim(batch)
    bench.spool.done(batch)
    assert bench.states("one") == ["SUCCESS"] and not captures.record_files(tmp_path)
    assert (bench.spool.usage().size, bench.spool.usage().files) == (0, 0)


def test_a_spool_among_the_captures_is_not_walked(start: Start, tmp_path: Path) -> None:
    """What waits there for destination Cloud has other keys than it has as a part of the capture folder."""
    spool = tmp_path / "disk/fleet-1/.spool"
    bench = start(cloud_settings(tmp_path, spool_path=spool))
    bench.capture(small("waits"))
    bench = start(disk_settings(tmp_path, spool_path=spool, bucket=captures.BUCKET))
    bench.capture(small("one"))
    assert [bench.spool.contents(batch).ids for batch in bench.spool.batches()] == [("one",)]
    assert len(captures.record_files(spool.parent)) == 1 and list((spool / "sealed").rglob("*.jsonl"))


def test_the_oldest_comes_first_whatever_its_model(start: Start, tmp_path: Path, clock: FakeClock) -> None:
    bench = start(cloud_settings(tmp_path))
    order = ["m2", "m1", "m3", "m1", "m2"]
    for number, model in enumerate(order):
        bench.capture(small(f"id{number}", model=model))
        clock.advance(1700)
    found = [bench.spool.contents(batch).ids for batch in bench.spool.batches()]
    assert found == [(f"id{number}",) for number in range(5)]


def test_the_walk_goes_on_while_batches_go_and_come(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.capture.sealed._NAMES_AT_ONCE", 3)
    bench = start(cloud_settings(tmp_path))
    for number in range(10):
        bench.capture(small(f"id{number}"))
    seen = []
    for number, batch in enumerate(bench.spool.batches()):
        seen += bench.spool.contents(batch).ids
        bench.spool.done(batch)
        if number == 4:
            bench.capture(small("late"))
    assert seen == [*(f"id{number}" for number in range(10)), "late"]


def test_failed_captures_of_a_batch(start: Start, tmp_path: Path) -> None:  # [G-4]
    bench = start(cloud_settings(tmp_path))
    bench.capture(large("one"), small("two"))
    [batch] = bench.spool.batches()
    bench.spool.done(batch, failed={"one"})
    assert bench.states("one", "two") == ["FAILURE", "SUCCESS"]
    assert files(tmp_path / "spool/sealed") == []
    assert start(cloud_settings(tmp_path)).states("one", "two") == ["FAILURE", "SUCCESS"]


def test_a_batch_that_is_given_up_stays_on_disk(start: Start, tmp_path: Path) -> None:  # [G-4]
    bench = start(cloud_settings(tmp_path))
    bench.capture(large("one"))
    [batch] = bench.spool.batches()
    bench.spool.give_up(batch)
    assert bench.states("one") == ["FAILURE"] and list(bench.spool.batches()) == []
    assert len(files(tmp_path / "spool/sealed")) == 2 and bench.spool.usage().captures == 0
    again = start(cloud_settings(tmp_path))
    assert again.states("one") == ["FAILURE"] and list(again.spool.batches()) == []
    assert again.spool.usage() == bench.spool.usage()


def test_what_was_given_up_makes_room(start: Start, tmp_path: Path) -> None:
    bench = start(cloud_settings(tmp_path, spool_max_bytes=20_000))
    bench.capture(large("one", 12_000))
    with pytest.raises(SpoolFullError, match="spool_max_mib"):
        bench.service.submit(large("two", 12_000))
    [batch] = bench.spool.batches()
    bench.spool.give_up(batch)
    bench.capture(large("two", 12_000))
    assert [bench.spool.contents(b).ids for b in bench.spool.batches()] == [("two",)]


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        ({"spool_max_bytes": 3_000}, "spool_max_mib"),
        ({"spool_max_files": 4}, "spool_max_files"),
        ({"spool_min_free": 1 << 60}, "spool_min_free_mib"),
    ],
)
def test_bounds_refuse_and_lose_nothing(
    start: Start, tmp_path: Path, bounds: dict[str, int], why: str
) -> None:  # [C-6]
    bench = start(cloud_settings(tmp_path, batch_captures=1, **bounds))
    accepted = []
    with pytest.raises(SpoolFullError, match=why):
        for number in range(100):
            bench.capture(small(f"id{number}"))
            accepted.append(f"id{number}")
    assert [i for batch in bench.spool.batches() for i in bench.spool.contents(batch).ids] == accepted
    for batch in bench.spool.batches():
        bench.spool.done(batch)
    if why != "spool_min_free_mib":
        bench.capture(small("after"))


def test_files_of_a_capture_count(start: Start, tmp_path: Path) -> None:
    bench = start(cloud_settings(tmp_path))
    bench.capture(*(large(f"id{number}") for number in range(5)))
    found = files(tmp_path / "spool/sealed")
    usage = bench.spool.usage()
    assert (usage.files, usage.size) == (len(found), sum(p.stat().st_size for p in found)) and usage.captures == 5
    assert start(cloud_settings(tmp_path)).spool.usage() == usage


def test_drop_oldest_drops_counts_and_says_so(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = start(cloud_settings(tmp_path, spool_max_bytes=20_000, drop_oldest=True))
    for number in range(4):
        bench.capture(large(f"id{number}", 4_000))
    first = next(bench.spool.batches())
    assert bench.spool.claim(first)  # being uploaded: it is not dropped
    bench.capture(large("new", 4_000))
    assert bench.states("id0", "id1", "id2", "new") == ["IN_PROGRESS", "FAILURE", "IN_PROGRESS", "IN_PROGRESS"]
    assert bench.service.snapshot().dropped == 1 and "dropped the 1 oldest captures" in caplog.text
    assert bench.spool.usage().captures == 4
    bench.spool.release(first)
    bench.capture(large("newer", 4_000))
    assert bench.states("id0") == ["FAILURE"]
    assert not bench.spool.claim(first)


def test_states_survive_a_restart(start: Start, tmp_path: Path) -> None:  # [G-5] [C-3]
    bench = start(cloud_settings(tmp_path))
    bench.capture(small("done"))
    bench.spool.done(next(bench.spool.batches()))
    bench.capture(small("sealed"))
    bench.service.submit(small("open"))
    again = start(cloud_settings(tmp_path))
    assert again.states("done", "sealed", "open") == ["SUCCESS", "IN_PROGRESS", "IN_PROGRESS"]
    for capture_id in ("done", "sealed", "open"):
        with pytest.raises(CaptureExistsError):
            again.service.submit(small(capture_id))
    again.service.turn(stopping=True)
    assert [again.spool.contents(b).ids for b in again.spool.batches()] == [("sealed",), ("open",)]
    assert again.service.snapshot().pending == 2


def test_a_lost_status_log_costs_finished_ids_alone(start: Start, tmp_path: Path) -> None:  # [G-5]
    bench = start(cloud_settings(tmp_path))
    bench.capture(small("waits"))
    bench.service.stop(1)
    (tmp_path / "spool/statuses.log").unlink()
    again = start(cloud_settings(tmp_path))
    assert again.states("waits") == ["IN_PROGRESS"] and again.service.snapshot().pending == 1


def test_a_removal_that_was_cut_short_is_finished(start: Start, tmp_path: Path) -> None:
    bench = start(cloud_settings(tmp_path))
    bench.capture(large("one"), large("two"))
    [batch] = bench.spool.batches()
    batch.path.rename(batch.path.with_name(batch.path.name + ".done"))
    bench.spool.contents(batch)
    again = start(cloud_settings(tmp_path))
    assert files(tmp_path / "spool/sealed") == [] and list(again.spool.batches()) == []


def test_a_record_removed_from_outside_is_a_failure(start: Start, tmp_path: Path) -> None:  # [G-4]
    bench = start(cloud_settings(tmp_path))
    bench.capture(small("one"))
    [batch] = bench.spool.batches()
    bench.service.stop(1)
    batch.path.unlink()
    assert start(cloud_settings(tmp_path)).states("one") == ["FAILURE"]


def test_folders_of_past_hours_go(start: Start, tmp_path: Path, clock: FakeClock) -> None:
    bench = start(cloud_settings(tmp_path))
    bench.capture(large("one"))
    bench.spool.done(next(bench.spool.batches()))
    clock.advance(3600)
    bench.capture(large("two"))
    bench.service.turn(stopping=False)
    hours = [p.name for p in (tmp_path / "spool/sealed/p/q/fleet-1/digits/2025/06/15").iterdir()]
    assert hours == ["16"]
    bench.capture(large("three"))
    assert bench.service.snapshot().pending == 2


def test_periodic_upload_takes_from_disk(start: Start, tmp_path: Path) -> None:  # [G-3]
    settings = disk_settings(tmp_path, bucket=captures.BUCKET)
    foreign = tmp_path / "disk" / HOUR / "20250615T150640000Z-other-0badcafe-000001.jsonl"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("{}\n")
    bench = start(settings)
    bench.capture(large("one"))
    assert bench.states("one") == ["SUCCESS"]
    [batch] = bench.spool.batches()
    assert batch.path == tmp_path / "disk" / batch.key
    again = start(settings)
    assert again.states("one") == ["SUCCESS"] and again.service.snapshot().pending == 1
    assert again.spool.usage().files == 2
    [batch] = again.spool.batches()
    [entry] = again.spool.contents(batch).large
    assert entry.path.stat().st_size == 5000
    again.spool.done(batch)
    assert [p for p in files(tmp_path / "disk") if ".spool" not in p.parts] == [foreign]
    assert again.states("one") == ["SUCCESS"] and again.spool.usage().captures == 0


def test_disk_alone_keeps_no_account_of_what_is_sealed(start: Start, tmp_path: Path) -> None:
    bench = start(disk_settings(tmp_path, spool_max_bytes=10_000, spool_max_files=4))
    for number in range(10):
        bench.capture(large(f"id{number}", 4_000))
    usage = bench.spool.usage()
    assert (usage.size, usage.files, usage.captures) == (0, 0, 0) and list(bench.spool.batches()) == []


def test_statuses_are_those_of_the_newest_ids(start: Start, tmp_path: Path) -> None:  # [G-5]
    bench = start(disk_settings(tmp_path))
    bench.service._statuses._limit = 3
    bench.capture(*(small(f"id{number}") for number in range(5)))
    assert [bench.service._statuses.get(f"id{number}") for number in range(5)] == [
        None,
        None,
        *[CaptureState.SUCCESS] * 3,
    ]


def test_a_disk_that_does_not_answer_drops_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = start(cloud_settings(tmp_path, drop_oldest=True))
    bench.capture(small("one"))

    def broken(path: Path) -> os.statvfs_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "statvfs", broken)
    with pytest.raises(SpoolFullError, match="cannot be used: Input/output error"):
        bench.service.submit(small("two"))
    assert bench.states("one") == ["IN_PROGRESS"] and bench.service.snapshot().dropped == 0


def test_another_destination_leaves_what_waits(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = start(cloud_settings(tmp_path))
    bench.capture(small("one"))
    start(disk_settings(tmp_path, spool_path=tmp_path / "spool"))
    assert "wait in the spool for destination Cloud" in caplog.text
    again = start(cloud_settings(tmp_path))
    assert [again.spool.contents(b).ids for b in again.spool.batches()] == [("one",)]
    assert again.states("one") == ["IN_PROGRESS"]
