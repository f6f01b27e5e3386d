"""The log: one line an event, for people or for journald (X-5)."""

import fcntl
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import log


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    hooks = threading.excepthook, sys.unraisablehook
    yield
    for handler in root.handlers:
        if isinstance(handler, log.LogWriter):
            handler.close()
    root.handlers[:], logging.raiseExceptions = handlers, raising
    threading.excepthook, sys.unraisablehook = hooks
    root.setLevel(level)


def written(capfd: pytest.CaptureFixture[str]) -> list[str]:
    logging.getLogger().handlers[0].flush()
    return capfd.readouterr().err.splitlines()


def test_outside_journald_a_line_has_a_time(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    log.setup(verbose=False)
    logging.getLogger("edge.test").warning("number %d", 7)
    (line,) = written(capfd)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 WARNING edge\.test: number 7", line)


@pytest.mark.parametrize(
    ("level", "prefix"), [("critical", 2), ("error", 3), ("warning", 4), ("info", 6), ("debug", 7)]
)
def test_under_journald_a_line_has_a_level(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, level: str, prefix: int
) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    log.setup(verbose=True)
    getattr(logging.getLogger("edge.test"), level)("words")
    assert written(capfd) == [f"<{prefix}>edge.test: words"]


@pytest.mark.parametrize("stream", ["8:1", "", "x", "8", "8:x"])
def test_the_journal_of_another_process_is_not_ours(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", stream)
    log.setup(verbose=False)
    logging.getLogger("edge.test").info("words")
    assert written(capfd)[0].endswith("+00:00 INFO edge.test: words")


def test_debug_only_when_verbose(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(verbose=False)
    logging.getLogger("edge.test").debug("hidden")
    assert written(capfd) == []


def test_an_event_is_one_line_of_printable_text(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(verbose=False)
    logging.getLogger("edge.test").info("a\nb\rc\x1b[31m\\d")
    (line,) = written(capfd)
    assert line.endswith(r"a\nb\rc\x1b[31m\d")


def test_an_event_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(verbose=False)
    logging.getLogger("edge.test").info("%s", "x" * 1_000_000)
    (line,) = written(capfd)
    assert line.endswith("x...")
    assert len(line) < 48 * 1024  # what journald takes as one


def test_an_exception_stays_on_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(verbose=False)
    try:
        raise ValueError("inside")
    except ValueError as error:
        logging.getLogger("edge.test").error("failed", exc_info=error)
    (line,) = written(capfd)
    assert "failed" in line and "ValueError: inside" in line


def test_the_end_of_a_thread_by_a_fault_is_an_event(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(verbose=False)
    thread = threading.Thread(target=lambda: 1 // 0, name="worker-3")
    thread.start()
    thread.join()
    (line,) = written(capfd)
    assert "CRITICAL root: the thread worker-3 ended by a fault" in line and "ZeroDivisionError" in line


def test_arguments_that_do_not_fit_end_no_call(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(verbose=False)
    logging.getLogger("edge.test").info("%d", "no number")
    (line,) = written(capfd)
    assert "cannot be written: %d" in line


# --- repeats -----------------------------------------------------------------


class Stepped:
    """A clock that moves when a test says."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def lines_of(reader: int) -> list[str]:
    return os.read(reader, 1 << 20).decode().splitlines()


def test_an_event_that_comes_again_and_again_is_counted(pipe: tuple[int, int]) -> None:
    clock, (reader, end) = Stepped(), pipe
    writer = log.LogWriter(end, clock.monotonic)
    logger = logging.Logger("edge.test")
    logger.addHandler(writer)
    for n in range(420):
        logger.warning("call %d failed", n)
    logger.warning("something else")
    clock.time = log.WINDOW_SECONDS
    logger.warning("call %d failed", 420)
    writer.close()
    lines = lines_of(reader)
    assert lines[: log.BURST] == [f"call {n} failed" for n in range(log.BURST)]
    assert lines[log.BURST :] == ["something else", "… 400 more in 10 s, the last: call 419 failed", "call 420 failed"]


def test_what_was_only_counted_is_told_without_another_event(pipe: tuple[int, int]) -> None:
    writer = log.LogWriter(pipe[1], Stepped().monotonic)
    logger = logging.Logger("edge.test")
    logger.addHandler(writer)
    for _ in range(log.BURST + 3):
        logger.info("again")
    writer.flush()
    writer.close()
    assert lines_of(pipe[0])[-1] == "… 3 more in 10 s, the last: again"


def test_texts_made_by_a_client_are_bounded_together() -> None:
    repeats = log.Repeats()
    records = (logging.LogRecord("x", 20, "", 0, f"made up {n}", None, None) for n in range(2 * log.MAX_KINDS))
    assert sum(repeats.admits(record, 0.0) for record in records) == log.MAX_KINDS + log.BURST


# --- a reader that does not read ---------------------------------------------


def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: tuple[int, int]) -> None:
    reader, end = pipe
    writer = log.LogWriter(end)
    loggers = [logging.Logger(f"edge.test{n}") for n in range(200)]
    for logger in loggers:
        logger.addHandler(writer)
        for _ in range(log.BURST):
            logger.info("x" * 1000)  # 4 MB into a pipe of 64 KiB: this returns
    taken = bytearray()
    while b"dropped" not in taken:
        taken += os.read(reader, 65536)
    writer.flush()
    loggers[0].warning("again in time")
    writer.close()
    taken += os.read(reader, 65536)
    *rest, count, last = taken.decode().splitlines()
    dropped = re.fullmatch(r"(\d+) lines of the log were dropped: they could not be written in time", count)
    assert dropped is not None and int(dropped[1]) + len(rest) == 200 * log.BURST
    assert last == "again in time"


def test_the_end_does_not_wait_for_a_reader(pipe: tuple[int, int]) -> None:
    writer = log.LogWriter(pipe[1])
    logger = logging.Logger("edge.test")
    logger.addHandler(writer)
    for _ in range(10):
        logger.info("x" * 20_000)
    writer.flush()
    writer.close()  # returns
    taken = bytearray()
    while taken.count(b"\n") < 10:
        taken += os.read(pipe[0], 65536)
    writer._thread.join()


def test_a_descriptor_made_non_blocking_by_others_loses_nothing(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    writer = log.LogWriter(pipe[1])
    logger = logging.Logger("edge.test")
    logger.addHandler(writer)
    for n in range(10):
        logger.info("%d %s", n, "x" * 10_000)
    taken = bytearray()
    while taken.count(b"\n") < 10:
        taken += os.read(pipe[0], 65536)
    writer.close()
    assert [line.split()[0] for line in taken.decode().splitlines()] == [str(n) for n in range(10)]


def test_lines_that_cannot_be_written_are_counted_once_they_can() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        writer = log.LogWriter(full.fileno())
        logger = logging.Logger("edge.test")
        logger.addHandler(writer)
        logger.info("lost")
        writer.flush()
        reader, end = os.pipe()
        os.dup2(end, full.fileno())
        os.close(end)
        logger.info("kept")
        writer.flush()
        writer.close()
        assert lines_of(reader) == ["kept", "1 lines of the log were dropped: they could not be written in time"]
        os.close(reader)
