"""What native code writes to stderr becomes lines of the log, and nothing else does."""

import logging
import os
import threading

import pytest

from edge.engine.native_words import as_log_lines
from edge.errors import MemoryLimitError
from tests.fakes import descriptors


def test_lines_become_events(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO), as_log_lines():
        os.write(2, b"INFO: made a delegate\nsecond \x1b line\n")
    os.write(2, b"after\n")
    assert caplog.messages == ["the engine says: made a delegate", "the engine says: second \\x1b line"]
    assert capfd.readouterr().err == "after\n"


def test_where_the_log_would_drop_them_they_stay(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING), as_log_lines():
        os.write(2, b"INFO: from the trial\n")
    assert capfd.readouterr().err == "INFO: from the trial\n"


def test_after_a_fault_stderr_is_back(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="refused"), as_log_lines():
        raise ValueError("refused")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.parametrize("free", range(2))
def test_without_descriptors_nothing_stays_open(caplog: pytest.LogCaptureFixture, free: int) -> None:  # [L-6] [L-9]
    wanted = pytest.raises(MemoryLimitError, match=r"Too many open files.*LimitNOFILE")
    with caplog.at_level(logging.INFO), descriptors.left(free), wanted, as_log_lines():
        pass


def test_blocks_of_several_threads(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    def open_models() -> None:
        for _ in range(20):
            with as_log_lines():
                os.write(2, b"one\n")

    with caplog.at_level(logging.INFO):
        threads = [threading.Thread(target=open_models) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    os.write(2, b"after\n")
    assert caplog.messages == ["the engine says: one"] * 80
    assert capfd.readouterr().err == "after\n"
