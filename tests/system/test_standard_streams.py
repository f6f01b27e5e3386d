"""Standard input, output and error as other people's start scripts leave them (X-5, X-7, X-8)."""

import fcntl
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.adversary.http2 import GOAWAY, PING, Connection, frame
from tests.system.harness import EMULATED, agent_command, array_of, eventually, tensor_of

PackageOf = Callable[[str], Path]


def start(agent: Any, **streams: Any) -> None:
    """Start the agent with streams of its own."""
    command = [*agent_command(), "-a", agent.socket, "-c", str(agent.config_path)]
    agent.process = subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams})
    agent.wait_serving()


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that is full and that nobody reads."""
    reader, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    os.write(end, bytes(4096))
    yield end
    os.close(reader)
    os.close(end)


def test_stderr_is_a_pipe_that_nobody_reads(agents: Any, package_of: PackageOf, full_pipe: int) -> None:
    agent = agents(log_verbose=True)
    start(agent, stderr=full_pipe)
    agent.client.load(package_of("add_one"), "first")
    for _ in range(100):
        with pytest.raises(Exception, match="NOT_FOUND"):
            agent.client.predict("ghost", [])
    agent.client.load(package_of("add_one"), "second")
    assert [model.name for model in agent.client.models()] == ["first", "second"]
    agent.signal(signal.SIGTERM)
    assert agent.wait(60) == 0
    assert not Path(agent.socket).exists()
    agent.close_channel()


@pytest.mark.parametrize("closed", ["0<&- 1>&- 2>&-", "2>&-", "0<&-"])
def test_closed_standard_descriptors(agents: Any, package_of: PackageOf, closed: str) -> None:
    agent = agents()
    words = [
        "sh",
        "-c",
        f'exec "$@" {closed}',
        "sh",
        *agent_command(),
        "-a",
        agent.socket,
        "-c",
        str(agent.config_path),
    ]
    with agent.log_path.open("ab") as log:
        agent.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    agent.wait_serving()
    # An emulator opens the program, which may then have the number of what is closed.
    for number, _ in re.findall(r"(\d)(<|>)&-", closed) if not EMULATED else ():
        assert os.readlink(f"/proc/{agent.pid}/fd/{number}") == os.devnull  # noqa: PTH115
    agent.client.load(package_of("add_one"), "m")
    assert agent.stop() == 0


def test_a_journal_that_is_another_process_s(agents: Any) -> None:
    agent = agents().start(env={"JOURNAL_STREAM": "8:1"})
    agent.stop()
    assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 INFO edge", agent.log, re.MULTILINE)
    assert not re.search(r"^<\d>", agent.log, re.MULTILINE)


def test_the_journal_s_own_stream(agents: Any) -> None:
    agent = agents()
    agent.log_path.touch()
    status = agent.log_path.stat()
    agent.start(env={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    agent.stop()
    assert re.search(r"^<6>edge", agent.log, re.MULTILINE)
    assert not re.search(r"^\d{4}-", agent.log, re.MULTILINE)


def test_a_peer_s_last_words_are_no_log_lines(agents: Any) -> None:
    agent = agents().start()
    words = b"\n2026-01-01T00:00:00.000+00:00 CRITICAL edge.forged: \x1b[2Jgone"
    with Connection(agent.socket) as connection:
        connection.write(frame(GOAWAY, 0, 0, bytes(4) + (11).to_bytes(4) + words) + frame(PING, 0, 0, bytes(8)))
        eventually(lambda: (connection.read(0.1), connection.answered_pings)[1], 30, "the agent has read it")
    assert agent.client.models() == []
    assert agent.stop() == 0
    assert "forged" not in agent.log and "\x1b" not in agent.log


def test_a_failure_repeated_by_a_client_is_counted(agents: Any, package_of: PackageOf) -> None:
    agent = agents(log_verbose=True).start()
    for _ in range(420):
        with pytest.raises(Exception, match="NOT_FOUND"):
            agent.client.predict("ghost", [])
    agent.stop()
    lines = [line for line in agent.log.splitlines() if "predict: model 'ghost'" in line]
    assert len(lines) < 420
    counted = sum(int(match[1]) for line in lines if (match := re.search(r"… (\d+) more in 10 s, the last: ", line)))
    assert counted + sum("…" not in line for line in lines) == 420


def test_an_engine_that_fails_again_and_again(agents: Any, package_of: PackageOf) -> None:  # [P-6]
    agent = agents().start()
    agent.client.load(package_of("look_up"), "table")
    outside = tensor_of(np.array([9], np.int32), "index")
    for _ in range(1500):
        with pytest.raises(Exception, match="gather index out of bound"):
            agent.client.predict("table", [outside])
    assert array_of(agent.client.predict("table", [tensor_of(np.array([1], np.int32), "index")])[0]).tolist() == [11]
    assert agent.stop() == 0
    assert max(len(line) for line in agent.log.splitlines()) < 1000
    assert agent.log.count("gather index") < 1500 / 3


def test_a_load_without_descriptors(agents: Any, package_of: PackageOf, refused: Any) -> None:  # [L-6]
    agent = agents().start()
    assert agent.client.models() == []
    soft, hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    used = sum(1 for _ in Path(f"/proc/{agent.pid}/fd").iterdir())
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (used + 10, hard))
    with refused("RESOURCE_EXHAUSTED", "descriptors", "LimitNOFILE"):
        agent.client.load(package_of("add_one"), "m")
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (soft, hard))
    agent.client.load(package_of("add_one"), "m")
