"""Delegates: external libraries that a manifest names and the configuration allows ([L-5], docs/performance.md)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.compiler import shared_library
from tests.system.harness import AgentProcess, array_of, eventually, tensor_of

SOURCE = Path(__file__).resolve().parents[1] / "data" / "delegate" / "delegate.c"
MODEL = Path(__file__).resolve().parents[1] / "data" / "add_one.tflite"

Build = Callable[..., str]
Start = Callable[[str], tuple[AgentProcess, Path]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compile the test delegate; returns its path."""

    def make(*flags: str) -> str:
        return str(shared_library(SOURCE, tmp_path / "libtest_delegate.so", "-O1", *flags))

    return make


@pytest.fixture
def start(agents: Any, signer: Any) -> Start:
    """An agent that allows a delegate, and a package that names it."""

    def make(library: str) -> tuple[AgentProcess, Path]:
        agent = agents(edge_delegate_paths=[library]).start()
        return agent, signer.package(MODEL, "delegated", "--delegate", library)

    return make


def test_a_delegate_is_used(build: Build, start: Start) -> None:
    agent, package = start(build())
    agent.client.load(package, "delegated")
    answer = agent.client.predict("delegated", [tensor_of(np.ones((1, 4), np.float32), "x")])
    assert array_of(answer[0]).tolist() == [[2, 2, 2, 2]]
    assert "test delegate: prepared" in agent.log
    agent.client.unload("delegated")
    eventually(lambda: "test delegate: destroyed" in agent.log, 30, "the delegate is destroyed")


def test_a_delegate_that_finds_no_device(build: Build, start: Start, refused: Any) -> None:  # [L-5]
    agent, package = start(build("-DCREATE_FAILS"))
    with refused("FAILED_PRECONDITION", "cannot be loaded"):
        agent.client.load(package, "delegated")
    assert agent.client.models() == []


def test_a_delegate_that_refuses_the_model(build: Build, start: Start, refused: Any) -> None:  # [L-5]
    agent, package = start(build("-DPREPARE_FAILS"))
    with refused("FAILED_PRECONDITION", "refuses the model"):
        agent.client.load(package, "delegated")
    assert agent.client.models() == []


def test_a_library_that_is_no_delegate(build: Build, start: Start, refused: Any) -> None:  # [L-5]
    library = build("-Dtflite_plugin_create_delegate=another_name")
    agent, package = start(library)
    with refused("FAILED_PRECONDITION", "cannot be loaded"):
        agent.client.load(package, "delegated")
    assert agent.client.models() == []
