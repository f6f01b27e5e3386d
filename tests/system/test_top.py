"""`top` and `status --watch`, on a terminal and elsewhere [Q-5]."""

import json
import os
import pty
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.system.harness import EVENT_PATIENCE, AgentProcess, client_command, eventually, tensor_of

PackageOf = Callable[[str], Path]
SECONDS = 60 * EVENT_PATIENCE
BEGIN, END = "\x1b[?1049h", "\x1b[?1049l"


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, words: Sequence[str]) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            # As on a terminal; a shell without one starts its background jobs deaf to SIGINT.
            ["env", "--default-signal=INT", *client_command(), *words],
            stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
        )  # fmt: skip
        os.close(slave)
        self.said = ""

    def read_until(self, condition: Callable[[str], bool]) -> str:
        """What it has shown, once `condition` holds for that."""
        deadline = time.monotonic() + SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self.master, selectors.EVENT_READ)
            while not condition(self.said):
                assert time.monotonic() < deadline, self.said
                if selector.select(1):
                    try:
                        self.said += os.read(self.master, 65536).decode()
                    except OSError:  # its end is closed
                        assert condition(self.said), self.said
        return self.said

    def end(self, number: int) -> int:
        """Send a signal, read to the end; returns the exit code."""
        self.process.send_signal(number)
        self.read_until(lambda said: END in said)
        return self.process.wait(SECONDS)

    def close(self) -> None:
        with suppress(OSError):
            os.close(self.master)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def terminal(agent: AgentProcess, *words: str) -> Iterator[Terminal]:
    made = Terminal([*words, "-a", agent.socket])
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def used(agent: AgentProcess, package_of: PackageOf) -> AgentProcess:
    """The module's agent, with a model."""
    agent.client.load(package_of("add_one"), "m")
    return agent


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [(("top", "--interval", "0.2"), signal.SIGINT, 0), (("status", "--watch", "0.2"), signal.SIGTERM, 143)],
    ids=["top", "status"],
)
def test_on_a_terminal(used: AgentProcess, words: tuple[str, ...], number: int, code: int) -> None:
    with terminal(used, *words) as shown:
        said = shown.read_until(lambda said: said.count("\x1b[H") >= 2)
        assert said.startswith(BEGIN) and "add-one 1.0" in said and "MODEL" in said
        assert shown.end(number) == code
        for on, off in (("?1049h", "?1049l"), ("?7l", "?7h"), ("?25l", "?25h")):
            assert shown.said.rindex(on) < shown.said.rindex(off)
        assert "Traceback" not in shown.said


def test_calls_are_seen(used: AgentProcess) -> None:
    shape = used.client.describe("m").input_tensor_metadatas[0].shape
    one = tensor_of(np.zeros(tuple(shape), np.float32))
    with terminal(used, "top", "--interval", "0.2") as shown:

        def is_shown(said: str) -> bool:
            used.client.predict("m", [one])
            lines = [line for line in said.splitlines() if line.startswith("m ")]
            return any(" ms" in line for line in lines)

        shown.read_until(is_shown)
        assert shown.end(signal.SIGINT) == 0


def test_an_agent_that_comes_back(agents: Any) -> None:
    own = agents().start()
    with terminal(own, "top", "--interval", "0.1") as shown:
        shown.read_until(lambda said: "none waiting" in said)
        own.stop()
        shown.read_until(lambda said: "waiting for it" in said)
        seen = len(shown.said)
        own.start()
        shown.read_until(lambda said: "no models are loaded" in said[seen:])
        assert shown.end(signal.SIGINT) == 0


def test_a_terminal_that_goes_away(used: AgentProcess) -> None:
    with terminal(used, "top", "--interval", "0.1") as shown:
        shown.read_until(lambda said: "MODEL" in said)
        os.close(shown.master)
        eventually(lambda: shown.process.poll() is not None)


def test_elsewhere_it_is_one_table(used: AgentProcess) -> None:
    for words in (("top", "--interval", "0.1"), ("status", "--watch"), ("top", "--interval", "0.1", "--json")):
        done = subprocess.run(
            [*client_command(), *words, "-a", used.socket], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert (done.returncode, done.stderr) == (0, "") and "\x1b" not in done.stdout
        if "--json" in words:
            (model,) = json.loads(done.stdout)["models"]
            assert (model["name"], model["version"], model["state"]) == ("m", "1.0", "READY")
        else:
            assert done.stdout.count("MODEL") == 1 and done.stdout.count("add-one 1.0") == 1
    with subprocess.Popen(
        [*client_command(), "top", "--interval", "0.5", "-a", used.socket],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as cut:  # fmt: skip
        assert cut.stdout is not None
        cut.stdout.close()
        assert cut.wait(SECONDS) == 0


def test_nobody_answers(tmp_path: Path) -> None:
    done = subprocess.run(
        [*client_command(), "top", "-a", str(tmp_path / "none")],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 3 and "no agent answers" in done.stderr
