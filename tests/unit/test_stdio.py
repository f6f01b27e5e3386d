"""A command's standard streams, and Ctrl-C, from its first moment to its last (X-8)."""

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from edge import stdio


@pytest.fixture
def importing() -> Iterator[None]:
    """As agent.py leaves it: Ctrl-C ends the process."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("importing")
def test_control_c_before_the_command_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler is there already: no traceback."""

    def interrupted(**options: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys.stdout, "reconfigure", interrupted, raising=False)
    assert stdio.run(lambda: 0, "program") == stdio.INTERRUPTED


@pytest.mark.usefixtures("importing")
def test_control_c_while_the_command_runs() -> None:
    def interrupted() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    assert stdio.run(interrupted, "program") == stdio.INTERRUPTED


@pytest.mark.usefixtures("importing")
def test_control_c_after_the_command() -> None:
    """It ends the process as it did before: the interpreter's end has no traceback to show."""
    assert stdio.run(lambda: 3, "program") == 3
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
