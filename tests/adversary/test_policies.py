"""Captures by policy under a client that wants the disk, and on a disk that does not answer ([K-4], [K-6])."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.adversary.conftest import HONEST_MODEL, start_stand
from tests.fakes.compiler import shared_library
from tests.system.harness import eventually, tensor_of
from tests.system.policies import predict

ALIASES = 8
ROWS = 4096  # of 16 bytes, in and out
BUDGET_MIB = 2
TRIES = 80  # of 128 KiB each: five times the budget


def size_of(folder: Path) -> int:
    """Bytes of captures, in their places and on their way."""
    paths = [path for path in folder.rglob("*") if path.suffix in (".jsonl", ".bin", ".open")]
    return sum(path.lstat().st_size for path in paths)


def test_no_client_fills_the_disk(tmp_path: Path, signer: Any, package_of: Any) -> None:  # [K-4]
    """Whatever is asked for, under however many names: what one policy keeps in a day is bounded, the honest one is served."""
    policies = {HONEST_MODEL: {}, "*": {"every_nth": 1, "on_request": "x-keep", "mib_per_day": BUDGET_MIB}}
    changes = {"edge_capture_policies": policies, "core_capture_data_buffer_size": 1000}
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"), **changes)
    agent = stand.agent
    big = [tensor_of(np.ones((ROWS, 4), "<f4"), "x")]
    told: list[str] = []

    def attack(number: int) -> None:
        alias = f"a{number % ALIASES}"
        _, ids, status = predict(agent, alias, big, [("x-keep", "1")])
        assert status in ("OK", "RESOURCE_EXHAUSTED")
        told.extend(ids)

    try:
        for number in range(ALIASES):
            agent.client.load(package_of("dynamic_batch"), f"a{number}")
        with stand.attack() as goes_on, ThreadPoolExecutor(ALIASES) as callers:
            done = 0
            while done < TRIES or goes_on():
                list(callers.map(attack, range(done, done + 2 * ALIASES)))
                done += 2 * ALIASES
        eventually(lambda: "capture policy *: its budget of the day is spent" in agent.log)
        assert 0 < size_of(agent.captures) <= BUDGET_MIB << 20
        eventually(lambda: all(agent.client.capture_status(one) != pb.IN_PROGRESS for one in told[-1000:]))
        for number in range(ALIASES):  # a model that is loaded anew has no budget of its own
            agent.client.unload(f"a{number}")
            agent.client.load(package_of("dynamic_batch"), f"b{number}")
        for number in range(ALIASES):
            predict(agent, f"b{number}", big)
        assert size_of(agent.captures) <= BUDGET_MIB << 20
    finally:
        stand.close()
        assert agent.stop() == 0, agent.log


@pytest.mark.skipif("AGENT_EMULATED" in os.environ, reason="an emulator is what would be preloaded")
def test_no_call_waits_for_a_disk(tmp_path: Path, signer: Any, package_of: Any) -> None:  # [K-6]
    """A write that stalls: every call that is to be captured is answered, and what finds no room is not captured."""
    source, flag = Path(__file__).with_name("stalling_write.c"), tmp_path / "stall"
    library = shared_library(source, tmp_path / "stalling_write.so")
    environment = {"LD_PRELOAD": str(library), "STALL_WORD": ".jsonl.open", "STALL_WHILE": str(flag)}
    policies = {"*": {"every_nth": 1, "records_per_day": 10**6}}
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"), environment, edge_capture_policies=policies)
    agent, small = stand.agent, [tensor_of(np.ones((1, 4), "<f4"), "x")]
    try:
        [first] = predict(agent, HONEST_MODEL, small)[1]
        agent.client.wait_captured(first)
        flag.touch()
        with stand.attack():
            eventually(lambda: not predict(agent, HONEST_MODEL, small)[1])  # what waits is bounded
        assert agent.client.status().captures.policy_full > 0
        flag.unlink()
        eventually(lambda: predict(agent, HONEST_MODEL, small)[1])
        assert agent.client.status().captures.policy_kept > 0
    finally:
        flag.unlink(missing_ok=True)
        stand.close()
        assert agent.stop() == 0, agent.log
