"""The process that a model is tried in: it ends with the agent, and one without threads or end holds nobody up."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from edge.engine.litert import LIBRARY, PACKAGE, RELEASE
from tests.data import hard_models, make_models
from tests.fakes.compiler import shared_library
from tests.fakes.engines import litert_serves
from tests.system.harness import EMULATED, ROOT, AgentProcess, Client, array_of, eventually, from_source, tensor_of

PIDS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
Refused = Callable[..., Any]
ONE = np.ones((1, 4), np.float32)


@pytest.fixture
def pids_group() -> Iterator[Path]:
    """A control group that limits processes and threads."""
    group = next(filter(None, map(_group_below, PIDS)), None)
    if group is None:
        pytest.skip("no control group of processes can be made here")
    yield group
    eventually(lambda: not (group / "cgroup.procs").read_text(), what="the group is empty")
    group.rmdir()


def _group_below(root: Path) -> Path | None:
    group = root / "edge-agent-test"
    try:
        group.mkdir(exist_ok=True)
        (group / "pids.max").read_text()
    except OSError:
        with suppress(OSError):
            group.rmdir()
        return None
    return group


def in_the_background(call: Callable[[], object]) -> tuple[threading.Thread, list[str]]:
    """Start a call; the list gets its status."""
    said: list[str] = []

    def run() -> None:
        try:
            call()
            said.append("OK")
        except grpc.RpcError as error:
            said.append(error.code().name)  # type: ignore[attr-defined]

    thread = threading.Thread(target=run)
    thread.start()
    return thread, said


def add_one(client: Client) -> list[float]:
    (y,) = client.predict("add", [tensor_of(ONE, "x")])
    return array_of(y).ravel().tolist()  # type: ignore[no-any-return]


@pytest.mark.skipif(EMULATED, reason="the emulator's own threads count against the limit as well")
@pytest.mark.parametrize("spare", [2, 4, 6, 8])
def test_too_few_threads_refuse_a_load_and_hold_nobody_up(
    agents: Callable[..., AgentProcess], signer: Any, pids_group: Path, spare: int
) -> None:  # [L-6] [L-8]
    """Whatever the place where the system gives no more threads: the process, the engine in it, or the agent's own."""
    agent = agents().start()
    client = agent.client
    client.load(signer.package(make_models.add_one((1, 4)), "add"), "add")
    package = signer.package(hard_models.convolution(8), "conv", "--threads", "4")
    (pids_group / "cgroup.procs").write_text(str(agent.pid))
    tasks = psutil.Process(agent.pid).num_threads()
    (pids_group / "pids.max").write_text(str(tasks + spare))
    thread, said = in_the_background(lambda: client.load(package, "conv"))
    while thread.is_alive():
        assert add_one(client) == [2] * 4
    thread.join()
    (pids_group / "pids.max").write_text("max")
    if spare < 8:
        assert said == ["RESOURCE_EXHAUSTED"], agent.log
    else:
        assert said in (["RESOURCE_EXHAUSTED"], ["OK"]), agent.log
    assert add_one(client) == [2] * 4
    if said != ["OK"]:
        client.load(package, "conv")
    assert agent.stop() == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_trial_ends_with_the_agent(  # [L-7]
    agents: Callable[..., AgentProcess], signer: Any, end: int
) -> None:
    """With the load in flight, in the middle of an inference that never ends."""
    agent = agents().start()
    package = signer.package(hard_models.endless_on_zeros(), "endless", "--trial-seconds", "3600")
    thread, said = in_the_background(lambda: agent.client.load(package, "endless"))
    me = psutil.Process(agent.pid)
    eventually(lambda: any("--probe-model" in child.cmdline() for child in me.children()), what="the trial runs")
    (trial,) = me.children()
    eventually(lambda: trial.cpu_times().user > 1, what="the inference has begun")
    assert trial.is_running()
    agent.signal(end)
    thread.join()
    assert said != ["OK"]
    assert agent.wait() == (0 if end == signal.SIGTERM else -end)
    eventually(lambda: not trial.is_running() or trial.status() == psutil.STATUS_ZOMBIE, what="the trial has ended")
    agent.close_channel()


@pytest.mark.skipif(
    not (from_source() and litert_serves()), reason="needs an agent that finds its engine by PYTHONPATH"
)
def test_a_library_that_crashes_when_it_is_loaded(  # [L-7]
    agents: Callable[..., AgentProcess], package_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """The trial is the first to load it, so that the agent survives, and another engine serves the model."""
    package = tmp_path / "first" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n")
    source = tmp_path / "crash.c"
    source.write_text("#include <stdlib.h>\n__attribute__((constructor)) static void load(void) { abort(); }\n")
    shared_library(source, package / f"{LIBRARY}.{RELEASE}.0")
    agent = agents(edge_engine="litert").start(env={"PYTHONPATH": str(package.parent)})
    agent.client.load(package_of("add_one"), "add")
    assert add_one(agent.client) == [2] * 4
    assert f"the runtime (LiteRT {RELEASE}.0) crashes, SIGABRT" in agent.log, agent.log
    assert agent.stop() == 0


def test_the_trial_of_shapes_ends_with_the_agent(agents: Callable[..., AgentProcess], signer: Any) -> None:  # [P-13]
    agent = agents().start()
    agent.client.load(signer.package(make_models.add_one((-1, 4)), "add"), "add")
    agent.client.predict("add", [tensor_of(np.ones((3, 4), np.float32), "x")])
    (trial,) = psutil.Process(agent.pid).children()
    agent.kill()
    eventually(lambda: not trial.is_running() or trial.status() == psutil.STATUS_ZOMBIE, what="the trial has ended")


def test_the_trial_of_shapes_ends_with_the_model(agents: Callable[..., AgentProcess], signer: Any) -> None:  # [U-3]
    agent = agents().start()
    agent.client.load(signer.package(make_models.add_one((-1, 4)), "add"), "add")
    for rows in (3, 5, 3):
        agent.client.predict("add", [tensor_of(np.ones((rows, 4), np.float32), "x")])
    assert len(psutil.Process(agent.pid).children()) == 1
    agent.client.unload("add")
    assert not psutil.Process(agent.pid).children()


@pytest.mark.skipif(not from_source(), reason="a binary's constants cannot be changed")
def test_the_trial_of_shapes_ends_when_no_more_come(
    agents: Callable[..., AgentProcess], signer: Any, tmp_path: Path
) -> None:  # [P-13]
    """No zombie is left of it; shapes that come later are tried in another."""
    (tmp_path / "sitecustomize.py").write_text("from edge.engine import shapes\nshapes.IDLE_SECONDS = 0\n")
    agent = agents().start(env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    agent.client.load(signer.package(make_models.add_one((-1, 4)), "add"), "add")
    for rows in (3, 5):
        agent.client.predict("add", [tensor_of(np.ones((rows, 4), np.float32), "x")])
        eventually(lambda: not psutil.Process(agent.pid).children(), what="the trial has ended")
    assert agent.stop() == 0
