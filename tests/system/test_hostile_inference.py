"""Arbitrary messages at every call of the Open Inference Protocol: never a crash, never INTERNAL [O-8]."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from edge.rpc._generated import open_inference_pb2 as pb
from tests.system.harness import AgentProcess
from tests.system.hostile import ALLOWED, hostile, send, with_models

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PATH = f"/{SERVICE.full_name}/"
REFUSALS = ALLOWED | {grpc.StatusCode.UNIMPLEMENTED}
METHODS = [method.name for method in SERVICE.methods]
WORDS = [
    "add-one",
    "dynamic-batch",
    "x",
    "input",
    "1.0",
    "",
    "FP32",
    "INT8",
    "BYTES",
    "url",
    "config",
    "file:m",
    "/tmp",
    "{}",
]


@pytest.fixture(scope="module")
def loaded(agent: AgentProcess, package_of: Any) -> Iterator[AgentProcess]:
    """The agent with two models to aim at."""
    with with_models(agent, package_of, "add_one", "dynamic_batch") as aimed_at:
        yield aimed_at


def messages(kind: Any) -> st.SearchStrategy[Any]:
    """Messages of a descriptor with arbitrary fields, known words preferred."""
    return st.fixed_dictionaries({}, optional={field.name: _field(field) for field in kind.fields}).map(
        lambda values: _made(GetMessageClass(kind), values)
    )


def _made(kind: type[Message], values: dict[str, Any]) -> Message:
    message = kind()
    for name, value in values.items():
        message.MergeFrom(kind(**{name: value}))
    return message


def _field(field: Any) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return st.dictionaries(st.sampled_from(WORDS), messages(kind.fields_by_name["value"].message_type), max_size=3)
    if kind is not None:
        one = messages(kind)
    elif field.type == field.TYPE_STRING:
        one = st.sampled_from(WORDS) | st.text(max_size=8)
    elif field.type == field.TYPE_BYTES:
        one = st.sampled_from([bytes(16), bytes(32), b""]) | st.binary(max_size=32)
    elif field.type == field.TYPE_BOOL:
        one = st.booleans()
    elif field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        one = st.floats(width=32)
    elif field.type in (field.TYPE_INT32, field.TYPE_UINT32):
        one = st.sampled_from([0, 1, 127, 128, 2**31 - 1])
    else:
        one = st.sampled_from([0, 1, 4, 16, 2**31, 2**63 - 1])
    return st.lists(one, max_size=4) if field.is_repeated else one


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
