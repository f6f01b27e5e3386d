"""The log: one line an event, for people or for journald (X-5)."""

import logging
import re
from collections.abc import Iterator

import pytest

from edge import log


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)


def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_outside_journald_a_line_has_a_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    log.setup(verbose=False)
    logging.getLogger("edge.test").warning("number %d", 7)
    (line,) = written(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 WARNING edge\.test: number 7", line)


@pytest.mark.parametrize(
    ("level", "prefix"), [("critical", 2), ("error", 3), ("warning", 4), ("info", 6), ("debug", 7)]
)
def test_under_journald_a_line_has_a_level(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, level: str, prefix: int
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    log.setup(verbose=True)
    getattr(logging.getLogger("edge.test"), level)("words")
    assert written(capsys) == [f"<{prefix}>edge.test: words"]


def test_debug_only_when_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(verbose=False)
    logging.getLogger("edge.test").debug("hidden")
    assert written(capsys) == []


def test_an_event_is_one_line_of_printable_text(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(verbose=False)
    logging.getLogger("edge.test").info("a\nb\rc\x1b[31m\\d")
    (line,) = written(capsys)
    assert line.endswith(r"a\nb?c?[31m\\d")


def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(verbose=False)
    try:
        raise ValueError("inside")
    except ValueError as error:
        logging.getLogger("edge.test").error("failed", exc_info=error)
    (line,) = written(capsys)
    assert "failed" in line and "ValueError: inside" in line
