"""Arbitrary messages at every call of the Open Inference Protocol: never a crash, never INTERNAL [O-8]."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.rpc._generated import open_inference_pb2 as pb
from tests.system.harness import AgentProcess
from tests.system.hostile import hostile, send, with_models
from tests.system.hostile_messages import METHODS, PATH, REFUSALS, SERVICE, messages


@pytest.fixture(scope="module")
def loaded(agent: AgentProcess, package_of: Any) -> Iterator[AgentProcess]:
    """The agent with two models to aim at."""
    with with_models(agent, package_of, "add_one", "dynamic_batch") as aimed_at:
        yield aimed_at


@pytest.mark.parametrize("method", METHODS)
def test_arbitrary_messages(loaded: AgentProcess, method: str) -> None:
    @given(message=messages(SERVICE.methods_by_name[method].input_type))
    @hostile
    def check(message: Any) -> None:
        if method == "RepositoryModelUnload" and message.model_name in ("add-one", "dynamic-batch"):
            return
        send(loaded, PATH + method, message.SerializeToString(), REFUSALS)

    check()


@given(name=st.sampled_from(["x", "", "input"]), shape=st.lists(st.sampled_from([0, 1, 2, 4, -1, 2**62]), max_size=4),
       datatype=st.sampled_from(["FP32", "INT32", "BOOL", "BYTES", ""]), size=st.sampled_from([0, 4, 15, 16, 32]),
       cut=st.integers(0, 40), flip=st.integers(0, 639))  # fmt: skip
@hostile
def test_a_damaged_inference(
    loaded: AgentProcess, name: str, shape: list[int], datatype: str, size: int, cut: int, flip: int
) -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    request = pb.ModelInferRequest(model_name="dynamic-batch", inputs=[tensor], raw_input_contents=[bytes(size)])
    send(loaded, PATH + "ModelInfer", request.SerializeToString())
    raw = bytearray(request.SerializeToString())
    raw[flip // 8 % len(raw)] ^= 1 << flip % 8
    send(loaded, PATH + "ModelInfer", bytes(raw[: len(raw) - cut] if cut < len(raw) else raw))


def test_it_still_serves(loaded: AgentProcess) -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=(1, 4))
    request = pb.ModelInferRequest(model_name="dynamic-batch", inputs=[tensor], raw_input_contents=[bytes(16)])
    assert loaded.channel.unary_unary(f"/{SERVICE.full_name}/ModelInfer")(request.SerializeToString(), timeout=60)
    assert "INTERNAL" not in Path(loaded.log_path).read_text()
    assert "Traceback" not in Path(loaded.log_path).read_text()
