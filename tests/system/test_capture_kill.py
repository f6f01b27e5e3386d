"""SIGKILL of the agent at random moments while captures pour in over its socket (R-5).

KILL_ROUNDS sets the number of rounds.
"""

import os
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.fakes import captures
from tests.system.harness import AgentProcess, eventually, tensor_of

ROUNDS = int(os.environ.get("KILL_ROUNDS", "50"))
CLIENTS = 4
LONGEST_LIFE_SECONDS = 0.3  # of captures pouring in, before the kill
MODEL = "digits"


def content(capture_id: str) -> bytes:
    """What a capture's tensor holds: its id, and for some more than is embedded."""
    return capture_id.encode().ljust(5000 if hash(capture_id) % 2 else 100, b"x")


def pour(agent: AgentProcess, name: str, accepted: list[str]) -> None:
    """Capture until the agent is gone; the ids that it answered OK to are appended."""
    with grpc.insecure_channel(f"unix:{agent.socket}") as channel:
        call = channel.unary_unary(
            "/AWS.SageMaker.Edge.Agent/CaptureData",
            request_serializer=pb.CaptureDataRequest.SerializeToString,
            response_deserializer=pb.CaptureDataResponse.FromString,
        )
        number = 0
        while True:
            number += 1
            capture_id = f"{name}-{number}"
            tensor = tensor_of(np.frombuffer(content(capture_id), np.uint8), "input")
            try:
                call(pb.CaptureDataRequest(model_name=MODEL, capture_id=capture_id, input_tensors=[tensor]))
            except grpc.RpcError as error:
                status: Any = error
                if status.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    continue
                return
            accepted.append(capture_id)


@pytest.mark.parametrize(("compress", "rounds"), [("none", ROUNDS - ROUNDS // 5), ("gzip", max(1, ROUNDS // 5))])
def test_kills_lose_nothing(agents: Any, digits: Path, compress: str, rounds: int) -> None:  # [R-5] [G-3] [G-5]
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    agent: AgentProcess = agents(core_capture_data_batch_size=5, edge_capture_compress=compress)
    accepted: list[str] = []
    for number in range(rounds):
        agent.start(force=number > 0)
        agent.client.load(digits, MODEL)
        clients = [
            threading.Thread(target=pour, args=(agent, f"r{number}-{client}", accepted)) for client in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        threading.Event().wait(moments.uniform(0, LONGEST_LIFE_SECONDS))
        agent.kill()
        for client in clients:
            client.join()
    assert len(accepted) >= rounds, seed
    agent.start(force=True)
    states = Counter(agent.client.capture_status(capture_id) for capture_id in accepted)
    assert set(states) <= {pb.IN_PROGRESS, pb.SUCCESS}, (seed, states)
    for capture_id in accepted:
        agent.client.wait_captured(capture_id)
    eventually(lambda: agent.client.status().captures.pending == 0)
    assert agent.stop() == 0
    assert not captures.stray_files(agent.captures), seed
    seen: Counter[str] = Counter()
    for _, event in captures.records(agent.captures):
        capture_id = event["eventMetadata"]["eventId"]
        seen[capture_id] += 1
        [entry] = event["deviceFleetInputs"]
        data = captures.entry_bytes(entry, agent.captures)
        assert len(data) in (100, 5000) and data.rstrip(b"x").decode() == capture_id, seed
    assert not [capture_id for capture_id, times in seen.items() if times > 1], seed
    assert not set(accepted) - set(seen), seed
