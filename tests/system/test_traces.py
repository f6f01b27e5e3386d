"""A call's traceparent, over both servers, in the log and in captures [Q-6]."""

import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.system.harness import AgentProcess, eventually, tensor_of

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def call(agent: AgentProcess, method: str, request: Any, trace: str = TRACE) -> None:
    """A call with that metadata; the answer is not looked at."""
    agent.channel.unary_unary(
        f"/AWS.SageMaker.Edge.Agent/{method}", request_serializer=lambda one: one.SerializeToString()
    )(request, timeout=60, metadata=(("other", "x"), ("traceparent", trace)))


def records(agent: AgentProcess) -> dict[str, Any]:
    """The metadata of every capture, by its id."""
    lines = [line for path in agent.captures.rglob("*.jsonl") for line in path.read_text().splitlines()]
    found = [json.loads(line)["eventMetadata"] for line in lines]
    return {one["eventId"]: one for one in found}


@pytest.mark.parametrize("kind", ["core", "grpc"])
def test_it_is_kept(agents: Any, package_of: Any, kind: str) -> None:
    policies = {"*": {"on_request": "keep-this"}}
    agent = agents(edge_rpc_server=kind, log_verbose=True, edge_capture_policies=policies).start()
    package = Path(package_of("add_one"))
    call(agent, "LoadModel", pb.LoadModelRequest(url=str(package), name="m"))
    eventually(lambda: "model m loaded" in agent.log)
    assert any("edge.serving" in line and line.endswith(f"[traceparent {TRACE}]") for line in agent.log.splitlines())
    shape = agent.client.describe("m").input_tensor_metadatas[0].shape
    good = pb.PredictRequest(name="m", tensors=[tensor_of(np.zeros(tuple(shape), np.float32))])
    with pytest.raises(grpc.RpcError):
        call(agent, "Predict", pb.PredictRequest(name="none", tensors=[]))
    refusal = f"model 'none' is not loaded [traceparent {TRACE}]"
    eventually(lambda: refusal in agent.log, what=refusal)
    for number, trace in enumerate((TRACE, TRACE.upper(), "x" * 1000)):
        call(agent, "CaptureData", pb.CaptureDataRequest(model_name="m", capture_id=f"c{number}"), trace)
    agent.client.capture(model_name="m", capture_id="c3")
    predict = agent.channel.unary_unary(
        "/AWS.SageMaker.Edge.Agent/Predict", request_serializer=pb.PredictRequest.SerializeToString
    )
    _, done = predict.with_call(good, timeout=60, metadata=(("keep-this", "1"), ("traceparent", TRACE)))
    by_policy = dict(done.trailing_metadata())["edge-capture-id"]
    for capture_id in ("c0", "c1", "c2", "c3", by_policy):
        agent.client.wait_captured(str(capture_id))
    traces = {capture_id: one.get("traceparent") for capture_id, one in records(agent).items()}
    assert traces == {"c0": TRACE, "c1": None, "c2": None, "c3": None, by_policy: TRACE}
    assert "TRACEPARENT" not in agent.log and "x" * 1000 not in agent.log
    assert agent.stop() == 0
