"""The stand on which an attack is tried: an agent, and an honest client beside the attacker."""

import contextlib
import json
import math
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import agents, digits, good_config, package_of, refused, signer
from tests.system.harness import EVENT_PATIENCE, ROOT, AgentProcess

__all__ = ["agents", "digits", "package_of", "refused", "signer"]

HONEST_MODEL = "honest"
ALONE_SECONDS = 1.5
MIN_OK = 0.99
MAX_SLOWDOWN = 10
FLOOR_MILLISECONDS = 500 * EVENT_PATIENCE  # a busy machine alone takes a millisecond's call so far
MAX_GROWTH_BYTES = 128 << 20
WATCHDOG_SECONDS = 16  # the service manager's interval; half of it is the patience with the server


@dataclass(frozen=True)
class Stretch:
    """What an honest client met with in a stretch of time."""

    answers: dict[str, int]
    milliseconds: tuple[float, ...]

    @property
    def ok(self) -> float:
        """The part of the calls that were answered OK."""
        return self.answers.get("OK", 0) / max(1, sum(self.answers.values()))

    @property
    def p99(self) -> float:
        """What 99 of 100 calls stayed below, in milliseconds."""
        return sorted(self.milliseconds)[math.ceil(0.99 * len(self.milliseconds)) - 1]


class HonestClient:
    """The process of tests.adversary.honest."""

    def __init__(self, socket: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.adversary.honest", socket, HONEST_MODEL],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.stretch()

    def stretch(self) -> Stretch:
        """What happened since the last stretch ended."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the honest client has ended"
        told = json.loads(line)
        return Stretch(told["answers"], tuple(told["milliseconds"]))

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)


class Stand:
    """An agent with a model for the honest client, whose calls were timed while nobody attacked."""

    def __init__(self, agent: AgentProcess, package: Path) -> None:
        self.agent = agent
        agent.client.load(package, HONEST_MODEL)
        self._honest = HonestClient(agent.socket)
        self._honest.stretch()
        pause(ALONE_SECONDS)
        self.alone = self._honest.stretch()
        assert self.alone.ok == 1, self.alone.answers

    @contextlib.contextmanager
    def attack(
        self, *, seconds: float = 1.0, max_growth_bytes: int = MAX_GROWTH_BYTES, floor: float = FLOOR_MILLISECONDS
    ) -> Iterator[Callable[[], bool]]:
        """Around an attack: whether the honest client was served meanwhile, and the agent stayed small and alive.

        Gives a function that says whether to go on: for `seconds`, so that the honest client has made enough calls. `floor`: the
        milliseconds that its calls may take in any case.
        """
        until = time.monotonic() + seconds
        base = self._memory("VmRSS")
        Path(f"/proc/{self.agent.pid}/clear_refs").write_text("5")  # the peak is counted from here
        self._honest.stretch()
        yield lambda: time.monotonic() < until
        pause(until - time.monotonic())
        self._judge(self._honest.stretch(), self._memory("VmHWM") - base, max_growth_bytes, floor)

    def _judge(self, during: Stretch, grown: int, most: int, floor: float) -> None:
        assert self.agent.process is not None and self.agent.process.poll() is None, self.agent.log
        assert "the agent is stuck" not in self.agent.log, self.agent.log
        assert during.ok >= MIN_OK, during.answers
        allowed = max(MAX_SLOWDOWN * self.alone.p99, floor)
        assert during.p99 <= allowed, f"p99 {during.p99:.0f} ms; alone {self.alone.p99:.1f} ms"
        assert grown < most, f"{grown >> 20} MiB more memory"

    def _memory(self, name: str) -> int:
        """A size out of the agent's /proc/PID/status, in bytes."""
        lines = Path(f"/proc/{self.agent.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

    def close(self) -> None:
        """End the honest client."""
        self._honest.close()


def pause(seconds: float) -> None:
    """Let the honest client make its calls for a while."""
    if seconds > 0:
        selectors.DefaultSelector().select(seconds)


def start_stand(
    folder: Path,
    roots: Path,
    package: Path,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    **changes: Any,
) -> Stand:
    """A stand whose agent is watched as a service manager watches it; `changes` to its configuration."""
    agent = AgentProcess(folder, good_config(folder, roots, changes), arguments)
    watched = {"WATCHDOG_USEC": str(WATCHDOG_SECONDS * EVENT_PATIENCE * 1_000_000), "NOTIFY_SOCKET": os.devnull}
    agent.start(env={**watched, **(environment or {})})
    return Stand(agent, package)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, signer: Any, package_of: Any) -> Iterator[Stand]:
    """One stand for a whole module, for attacks that leave it as they found it."""
    made = start_stand(tmp_path_factory.mktemp("stand"), signer.roots, package_of("add_one"))
    yield made
    made.close()
    assert made.agent.stop() == 0, made.agent.log
