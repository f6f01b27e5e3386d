"""A model that goes on for hours on some values: its inference ends with its call, or when it is stuck ([P-19], [P-20])."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import open_inference_pb2 as oip
from tests.adversary.http2 import DATA, END_STREAM, PREDICT, Connection, frame, message
from tests.fakes.engines import plain_engine
from tests.system.conftest import run_tool
from tests.system.harness import CALL_SECONDS, EVENT_PATIENCE, AgentProcess, array_of, eventually, tensor_of

pytestmark = pytest.mark.skipif(plain_engine() != "litert", reason="the interpreter's bindings cannot end an inference")

INFER = "/inference.GRPCInferenceService/ModelInfer"
FOR_EVER, SHORT = 2**31 - 1, 3  # rounds of the slow model: hours, and no time
CANCELLED = "the call was cancelled and its inference on model 'slow' was ended after"
LATE = "the call's time ran out and its inference on model 'slow' was ended after"


@pytest.fixture(params=["core", "grpc"])
def agent(request: pytest.FixtureRequest, agents: Any, package_of: Any) -> Iterator[AgentProcess]:
    """An agent with the model, by each of the two servers."""
    made: AgentProcess = agents(edge_rpc_server=request.param).start()
    made.client.load(package_of("slow"), "slow")
    yield made
    made.close_channel()


def predict(rounds: int) -> bytes:
    tensor = tensor_of(np.asarray([rounds], np.int32), "rounds")
    raw: bytes = pb.PredictRequest(name="slow", tensors=[tensor]).SerializeToString()
    return raw


def infer(rounds: int) -> bytes:
    tensor = oip.ModelInferRequest.InferInputTensor(name="rounds", datatype="INT32", shape=[1])
    request = oip.ModelInferRequest(model_name="slow", inputs=[tensor])
    request.raw_input_contents.append(np.asarray([rounds], np.int32).tobytes())
    raw: bytes = request.SerializeToString()
    return raw


def begin(channel: grpc.Channel, raw: bytes, method: str = PREDICT, timeout: float | None = CALL_SECONDS) -> Any:
    """A call under way."""
    return channel.unary_unary(method).future(raw, timeout=timeout)


def status(agent: AgentProcess) -> Any:
    return next(model for model in agent.client.status().models if model.name == "slow")


def with_another_waiting(agent: AgentProcess) -> Any:
    """A call that waits while the one before goes on."""
    eventually(lambda: status(agent).running == 1, what="the call runs")
    waiting = begin(agent.channel, predict(SHORT))
    eventually(lambda: status(agent).waiting == 1, what="another waits")
    return waiting


def answer(call: Any) -> list[int]:
    numbers: list[int] = array_of(pb.PredictResponse.FromString(call.result()).tensors[0]).tolist()
    return numbers


def served_again(agent: AgentProcess, waiting: Any, told: str, times: int = 1) -> None:
    """The waiting call is answered, and so are others; the log told why, once."""
    assert answer(waiting) == [SHORT]
    for rounds in range(5):
        assert answer(begin(agent.channel, predict(rounds))) == [rounds]
    assert agent.log.count(told) == times, agent.log
    assert "ERROR" not in agent.log and "Traceback" not in agent.log, agent.log


@pytest.mark.parametrize(("method", "make"), [(PREDICT, predict), (INFER, infer)])
def test_an_inference_ends_with_its_call(agent: AgentProcess, method: str, make: Any) -> None:  # [P-19] [O-6]
    call = begin(agent.channel, make(FOR_EVER), method)
    waiting = with_another_waiting(agent)
    call.cancel()
    served_again(agent, waiting, CANCELLED)

    call = begin(agent.channel, make(FOR_EVER), method, timeout=1.0 * EVENT_PATIENCE)
    waiting = with_another_waiting(agent)
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    served_again(agent, waiting, LATE)


def test_an_inference_ends_with_its_client(agent: AgentProcess) -> None:  # [P-19]
    with Connection(agent.socket) as connection:
        connection.request(PREDICT, predict(FOR_EVER))
        waiting = with_another_waiting(agent)
    served_again(agent, waiting, CANCELLED)


def test_a_deadline_is_kept_by_the_agent(agent: AgentProcess) -> None:  # [P-19]
    """The client neither ends its call nor goes away."""
    with Connection(agent.socket) as connection:
        number, headers = connection.call(extra=(("grpc-timeout", f"{500 * EVENT_PATIENCE}m"),))
        raw = predict(FOR_EVER)
        connection.write(headers + frame(DATA, END_STREAM, number, message(len(raw), raw)))
        served_again(agent, with_another_waiting(agent), LATE)


def test_a_call_that_waits_for_it_is_dropped(agent: AgentProcess) -> None:  # [P-5]
    first = begin(agent.channel, predict(FOR_EVER))
    second = with_another_waiting(agent)
    second.cancel()
    eventually(lambda: status(agent).waiting == 0, what="its place is free")
    waiting = with_another_waiting(agent)
    first.cancel()
    served_again(agent, waiting, CANCELLED)


def test_an_inference_that_is_stuck_is_ended(agents: Any, package_of: Any) -> None:  # [P-20]
    agent = agents(edge_inference_stuck_seconds=1 * EVENT_PATIENCE)
    agent.start(env={"WATCHDOG_USEC": str(8 * EVENT_PATIENCE * 1_000_000), "NOTIFY_SOCKET": os.devnull})
    agent.client.load(package_of("slow"), "slow")
    call = begin(agent.channel, infer(FOR_EVER), INFER, timeout=None)
    waiting = with_another_waiting(agent)
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "longer than this agent lets one run (edge_inference_stuck_seconds)" in call.details()
    served_again(agent, waiting, "model slow: an inference is ended that has been running for")
    assert "an inference has been running for" not in agent.log, agent.log
    agent.close_channel()


def test_the_client_passes_on_why_its_call_was_ended(agents: Any, package_of: Any, tmp_path: Path) -> None:  # [P-20]
    agent = agents(edge_inference_stuck_seconds=EVENT_PATIENCE).start()
    agent.client.load(package_of("slow"), "slow")
    (tmp_path / "rounds.json").write_text(json.dumps([FOR_EVER]))
    said = run_tool("predict", "slow", str(tmp_path / "rounds.json"), "--socket", agent.socket, check=False)
    assert said.returncode == 1 and "DEADLINE_EXCEEDED: the inference on model 'slow' was ended" in said.stderr, (
        said.stderr
    )
    assert "edge_inference_stuck_seconds" in said.stderr
    late = run_tool(
        "predict", "--timeout", "1", "slow", str(tmp_path / "rounds.json"), "--socket", agent.socket, check=False
    )
    assert "no answer within 1 s" in late.stderr or LATE in late.stderr, late.stderr
    agent.close_channel()
