"""Calls of the tests of captures by policy: they tell the id that the agent made, and wait for its record."""

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from edge.rpc._generated import agent_pb2 as pb
from tests.fakes import captures
from tests.system.harness import CALL_SECONDS, AgentProcess, tensor_of

KEY = "edge-capture-id"
UNSURE, SURE = 0.0, 1.0  # the grey of a picture of which the digits model says a 3 with 0.15, and an 8 with 0.99


def picture(grey: float) -> Any:
    """A picture of one grey for the digits model."""
    return tensor_of(np.full((1, 8, 8, 1), grey, "<f4"), "image")


def predict(
    agent: AgentProcess, model: str, tensors: Sequence[Any], metadata: Sequence[tuple[str, str]] = ()
) -> tuple[bytes | None, list[str], str]:
    """Predict: the answer, the ids of captures that it told, and the name of its status."""
    call = agent.channel.unary_unary("/AWS.SageMaker.Edge.Agent/Predict")
    request = pb.PredictRequest(name=model, tensors=tensors).SerializeToString()
    try:
        answer, rpc = call.with_call(request, metadata=metadata, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        failed: Any = error
        return None, ids(failed), failed.code().name
    return answer, ids(rpc), "OK"


def ids(rpc: Any) -> list[str]:
    """The ids of captures in a call's trailing metadata."""
    return [value for key, value in rpc.trailing_metadata() or () if key == KEY]


def captured(agent: AgentProcess, capture_id: str) -> dict[str, Any]:
    """The record of a capture once it is SUCCESS."""
    agent.client.wait_captured(capture_id)
    [record] = [one for _, one in captures.records(agent.captures) if one["eventMetadata"]["eventId"] == capture_id]
    return record


def reasons(agent: AgentProcess, capture_id: str) -> list[str]:
    """Why a call was captured."""
    found: list[str] = captured(agent, capture_id)["eventMetadata"]["captureReason"]
    return found
