"""Arbitrary bytes and arbitrary messages at every call: never a crash, never INTERNAL [N]."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from edge.rpc._generated import agent_pb2 as pb
from tests.system.harness import AgentProcess
from tests.system.hostile import hostile, send, with_models

AGENT = "/AWS.SageMaker.Edge.Agent/"
METHODS = ["Predict", "LoadModel", "UnLoadModel", "ListModels", "DescribeModel", "CaptureData", "GetCaptureDataStatus"]


@pytest.fixture(scope="module")
def loaded(agent: AgentProcess, package_of: Any) -> Iterator[AgentProcess]:
    """The agent with two models to aim at."""
    with with_models(agent, package_of, "add_one", "dynamic_picture") as aimed_at:
        yield aimed_at


def messages(kind: type[Message]) -> st.SearchStrategy[Any]:
    """Messages of a kind with arbitrary fields, small numbers and known names preferred."""
    fields = {field.name: _field(field) for field in kind.DESCRIPTOR.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _made(kind, values))


def _made(kind: type[Message], values: dict[str, Any]) -> Message:
    message = kind()
    for name, value in values.items():
        message.MergeFrom(kind(**{name: value}))
    return message


def _field(field: Any) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        one = messages(getattr(pb, field.message_type.name))
    elif field.enum_type is not None:
        one = st.integers(0, 13)
    elif field.type == field.TYPE_STRING:
        known = ["add-one", "dynamic-picture", "x", "picture", "", "/", "/tmp", "file:///tmp", "a" * 300]
        one = st.sampled_from(known) | st.text(max_size=8)
    elif field.type == field.TYPE_BYTES:
        one = st.sampled_from([bytes(16), bytes(12), b""]) | st.binary(max_size=32)
    elif field.name in ("shape", "nanos"):
        one = st.sampled_from([1, 4, 3, 0, -1, 2**31 - 1, -(2**31)])
    elif field.name == "seconds":
        one = st.sampled_from([0, 1, -1, 10**9, 2**63 - 1, -(2**63)])
    else:
        one = st.sampled_from([0, 1, 16, 2**31, 2**63, 2**64 - 1])
    return st.lists(one, max_size=4) if field.is_repeated else one


@given(raw=st.binary(max_size=200), method=st.sampled_from(METHODS))
@hostile
def test_arbitrary_bytes(loaded: AgentProcess, raw: bytes, method: str) -> None:
    send(loaded, AGENT + method, raw)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "ListModels"])
def test_arbitrary_messages(loaded: AgentProcess, method: str) -> None:
    @given(message=messages(getattr(pb, method + "Request")))
    @hostile
    def check(message: Message) -> None:
        if method == "UnLoadModel" and {message.name, message.handle} & {"add-one", "dynamic-picture"}:
            return
        send(loaded, AGENT + method, message.SerializeToString())

    check()


@given(cut=st.integers(0, 60), flip=st.integers(0, 479))
@hostile
def test_a_damaged_predict(loaded: AgentProcess, cut: int, flip: int) -> None:
    metadata = pb.TensorMetadata(name="x", data_type=pb.FLOAT32, shape=[1, 4])
    request = pb.PredictRequest(name="add-one", tensors=[pb.Tensor(tensor_metadata=metadata, byte_data=bytes(16))])
    raw = bytearray(request.SerializeToString())
    raw[flip // 8 % len(raw)] ^= 1 << flip % 8
    send(loaded, AGENT + "Predict", bytes(raw[: len(raw) - cut] if cut < len(raw) else raw))


def test_it_still_serves(loaded: AgentProcess) -> None:
    tensor = pb.Tensor(byte_data=bytes(16))
    assert loaded.client.predict("add-one", [tensor])
    assert "INTERNAL" not in Path(loaded.log_path).read_text()
