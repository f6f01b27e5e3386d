"""States of capture ids and their log (C-3, G-1 to G-5)."""

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.capture import statuses as module
from edge.capture.statuses import MAX_IDS, CaptureState, Statuses, StatusLog
from tests.fakes.disk import FailingDisk

WAITS, DONE, FAILED = CaptureState.IN_PROGRESS, CaptureState.SUCCESS, CaptureState.FAILURE


def loaded(folder: Path, kept: CaptureState = WAITS) -> tuple[Statuses, dict[str, int]]:
    states = Statuses()
    return states, StatusLog(folder, 100).load(states, kept)


def test_numbers_are_the_wire() -> None:  # [G-2] [G-3] [G-4]
    assert {state.name: int(state) for state in CaptureState} == {"FAILURE": 0, "SUCCESS": 1, "IN_PROGRESS": 2}


def test_an_id_from_reserved_to_done() -> None:  # [C-3]
    states = Statuses()
    assert states.reserve("a") and states.get("a") is None
    states.accept("a")
    assert states.get("a") is WAITS and not states.reserve("a")
    states.finish(["a"], DONE)
    states.finish(["a"], FAILED)  # final is final
    assert states.get("a") is DONE and (states.succeeded, states.failed) == (1, 0)


def test_an_id_that_another_call_holds_is_taken_until_it_is_released() -> None:  # [C-3]
    states = Statuses()
    assert states.reserve("a")
    assert not states.reserve("a") and states.reserve("b")
    states.release("a")
    assert states.reserve("a")


def test_what_is_not_there_any_more_has_failed() -> None:  # [G-4]
    states = Statuses()
    for name in "abc":
        states.accept(name)
    states.finish(["a"], DONE)
    assert states.fail_but(["b"]) == 1
    assert [states.get(name) for name in "abc"] == [DONE, WAITS, FAILED] and states.failed == 1


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.with_name("elsewhere"))])
def test_what_is_no_file_gives_way(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A pipe would never be read, and hold up whoever opens it; a link leads elsewhere."""
    make(tmp_path / "statuses.log")
    log = StatusLog(tmp_path, 100)
    log.load(Statuses(), None)
    log.append(DONE, "key", ["a"])
    log.close()
    assert (tmp_path / "statuses.log").read_text().endswith('["a"]]\n') and not (tmp_path / "elsewhere").exists()


def test_the_newest_are_kept() -> None:  # [G-5]
    states = Statuses(limit=3)
    for number in range(5):
        states.accept(str(number))
    states.finish(["0"], DONE)
    assert [states.get(str(number)) for number in range(5)] == [None, None, WAITS, WAITS, WAITS]


def test_the_memory_of_all_ids_is_bounded() -> None:  # [G-5]
    process = psutil.Process()
    before = process.memory_info().rss
    states = Statuses()
    for number in range(MAX_IDS + 1000):
        states.accept(f"{number:036d}")
    assert states.get(f"{MAX_IDS + 999:036d}") is WAITS and states.get(f"{999:036d}") is None
    assert process.memory_info().rss - before < 24 << 20


def test_the_log_brings_states_back(tmp_path: Path) -> None:  # [G-5]
    log = StatusLog(tmp_path, 100)
    log.append(WAITS, "k1", ["a", "b"])
    log.append(WAITS, "k2", ["c"])
    log.append(DONE, "k1", ["a"])
    log.append(FAILED, "k1", ["b"])
    log.close()
    states, waiting = loaded(tmp_path)
    assert [states.get(i) for i in "abcd"] == [DONE, FAILED, WAITS, None]
    assert waiting == {"k2": 1} and StatusLog(tmp_path, 100).ids_of(waiting) == ["c"]
    assert loaded(tmp_path, DONE)[1] == {}


def test_two_files_take_turns(tmp_path: Path) -> None:  # [G-5]
    log = StatusLog(tmp_path, 10)
    for number in range(100):
        log.append(DONE, "k", [f"id{number}"])
    log.close()
    states, _ = loaded(tmp_path)
    kept = [number for number in range(100) if states.get(f"id{number}")]
    assert kept == list(range(80, 100))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["statuses.log", "statuses.old.log"]


def test_the_count_goes_on_after_a_restart(tmp_path: Path) -> None:
    for number in range(25):
        log = StatusLog(tmp_path, 10)
        log.load(Statuses(), WAITS)
        log.append(DONE, "k", [f"id{number}"])
        log.close()
    states, _ = loaded(tmp_path)
    assert [n for n in range(25) if states.get(f"id{n}")] == list(range(10, 25))


def test_a_log_of_the_release_before_is_taken_over(tmp_path: Path) -> None:
    for name, capture_id in (("statuses.old.jsonl", "older"), ("statuses.jsonl", "newer")):
        (tmp_path / name).write_text(f'["SUCCESS","k",["{capture_id}"]]\n')
    log = StatusLog(tmp_path, 100)
    states = Statuses()
    log.load(states, WAITS)
    log.append(DONE, "k", ["newest"])
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["statuses.log", "statuses.old.log"]
    again, _ = loaded(tmp_path)
    assert all(again.get(capture_id) is DONE for capture_id in ("older", "newer", "newest"))


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_end_costs_its_line_alone(tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    log = StatusLog(tmp_path, 100)
    log.append(DONE, "k", ["a"])
    log.append(DONE, "k", ["b"])
    log.close()
    path = tmp_path / "statuses.log"
    path.write_bytes(path.read_bytes()[:-cut])
    log = StatusLog(tmp_path, 100)
    log.append(DONE, "k", ["c"])
    log.close()
    states, _ = loaded(tmp_path)
    assert states.get("a") is DONE and states.get("c") is DONE
    assert ("skipped 1 unreadable" in caplog.text) == (states.get("b") is None)


@given(st.binary(max_size=400))
def test_any_bytes_load(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("log")
    (folder / "statuses.log").write_bytes(data + b'\n["SUCCESS","k",["good"]]\n')
    states, _ = loaded(folder)
    assert states.get("good") is DONE


@pytest.mark.parametrize(
    "line",
    [
        '["SUCCESS","k",["/bad"]]',
        '["SUCCESS","k",[1]]',
        '["SUCCESS",1,["a"]]',
        '["SUCCESS","k","a"]',
        '["GREAT","k",["a"]]',
        "[" * 100_000,
    ],
)
def test_lines_that_are_not_ours(tmp_path: Path, line: str) -> None:
    (tmp_path / "statuses.log").write_text(line + "\n")
    states, waiting = loaded(tmp_path)
    assert states.get("a") is None and waiting == {}


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOG_BYTES", 10)
    (tmp_path / "statuses.log").write_text('["SUCCESS","k",["a"]]\n')
    assert loaded(tmp_path)[0].get("a") is None


def test_a_log_that_cannot_be_written_costs_the_note_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "statuses.log").mkdir()
    log = StatusLog(tmp_path, 100)
    log.append(DONE, "k", ["a"])
    assert "cannot be written" in caplog.text
    (tmp_path / "statuses.log").rmdir()
    log.append(DONE, "k", ["b"])
    log.close()
    assert loaded(tmp_path)[0].get("b") is DONE


def test_a_full_disk_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = StatusLog(tmp_path, 100)
    log.append(CaptureState.IN_PROGRESS, "k", ["a"])
    log.close()
    (tmp_path / "statuses.log").write_bytes((tmp_path / "statuses.log").read_bytes().rstrip())  # its end is torn
    disk = FailingDisk(monkeypatch)
    disk.fail("write")
    before = psutil.Process().num_fds()
    for _ in range(5):
        log.append(DONE, "k", ["a"])
    assert disk.failures == 5
    assert psutil.Process().num_fds() == before
    disk.heal()
    log.append(DONE, "k", ["a"])
    log.close()
    assert loaded(tmp_path)[0].get("a") is DONE
