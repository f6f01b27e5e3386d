"""The Open Inference Protocol, spoken by an application's own client (docs/spec/open-inference.md)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import address
from edge.rpc._generated import open_inference_pb2 as pb
from tests.fakes.engines import plain_engine
from tests.system import triton as calls
from tests.system.harness import AgentProcess, Client, array_of, tensor_of, zeros_for

Triton = Callable[..., Any]
PackageOf = Callable[[str], Path]


@pytest.fixture
def ask(triton: Triton, agent: AgentProcess) -> Triton:
    """Any call of the client on the module's agent."""
    return lambda *words, **named: triton(calls.call, address.target(agent.socket), *words, **named)


@pytest.fixture
def infer(triton: Triton, agent: AgentProcess) -> Triton:
    """An inference by the client on the module's agent."""
    return lambda *words, **named: triton(calls.infer, address.target(agent.socket), *words, **named)


def test_messages_are_those_of_the_clients_stubs(triton: Triton) -> None:  # [O-1]
    assert triton(calls.unlike, pb.DESCRIPTOR.serialized_pb) == []


def test_server(ask: Triton, agent: AgentProcess) -> None:  # [O-2]
    assert ask("is_server_live") is True
    assert ask("is_server_ready") is True
    found = ask("get_server_metadata")
    assert (found["name"], found["version"]) == ("sagemaker-edge-agent", agent.client.status().version)


def test_model_ready(ask: Triton, client: Client, package_of: PackageOf) -> None:  # [O-3]
    assert ask("is_model_ready", "m") is False
    client.load(package_of("add_one"), "m")
    assert ask("is_model_ready", "m") is True
    assert ask("is_model_ready", "m", "1.0") is True
    assert ask("is_model_ready", "m", "2") is False


def test_model_metadata(ask: Triton, client: Client, package_of: PackageOf) -> None:  # [O-4]
    client.load(package_of("dynamic_batch"), "m")
    found = ask("get_model_metadata", "m")
    assert (found["name"], found["versions"], found["platform"]) == ("m", ["1.0"], plain_engine())
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]
    with pytest.raises(calls.Refused) as refused:
        ask("get_model_metadata", "m", "2")
    assert refused.value.args == ("NOT_FOUND", "model 'm' has version '1.0' here, not '2'")
    with pytest.raises(calls.Refused) as refused:
        ask("get_model_metadata", "other")
    assert refused.value.args[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    "kind",
    ["bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
)
def test_every_datatype(infer: Triton, client: Client, package_of: PackageOf, kind: str) -> None:  # [O-5]
    name = client.load(package_of(f"identity_{kind}"), "m").input_tensor_metadatas[0]
    sent = np.arange(int(np.prod(name.shape))).reshape(tuple(name.shape)).astype(kind)
    found, _ = infer("m", {name.name: sent})
    (answer,) = found.values()
    assert answer.dtype == sent.dtype
    assert (answer == sent).all()


def test_the_answer_is_that_of_predict(infer: Triton, client: Client, digits: Path) -> None:  # [O-6]
    metadata = client.load(digits, "m").input_tensor_metadatas[0]
    sent = np.random.default_rng(1).random(tuple(metadata.shape), np.float32)
    predicted = client.predict("m", [tensor_of(sent, metadata.name)])[0]
    for _ in range(2):  # the second is recognised by its bytes
        found, answer = infer("m", {metadata.name: sent}, request_id="my-id", model_version="1.0")
        (output,) = found.values()
        assert output.tobytes() == predicted.byte_data
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "1.0", "my-id")


def test_outputs_that_are_asked_for(infer: Triton, client: Client, package_of: PackageOf) -> None:  # [O-7]
    model = client.load(package_of("mixed_types"), "m")
    inputs = {one.name: array_of(zeros_for(one)) for one in model.input_tensor_metadatas}
    everything, _ = infer("m", inputs)
    names = list(everything)
    assert len(names) > 1
    for wanted in (names[::-1], names[-1:]):
        found, _ = infer("m", inputs, tuple(wanted))
        assert list(found) == wanted
        assert all((found[name] == everything[name]).all() for name in wanted)
    for wrong, words in ((("nothing",), "no output named 'nothing'"), ((names[0], names[0]), "asked for twice")):
        with pytest.raises(calls.Refused) as refused:
            infer("m", inputs, wrong)
        assert refused.value.args[0] == "INVALID_ARGUMENT"
        assert words in refused.value.args[1]


def test_shapes_that_the_caller_chooses(infer: Triton, client: Client, package_of: PackageOf) -> None:  # [O-6]
    client.load(package_of("dynamic_batch"), "m")
    for rows in (3, 1, 3):
        found, _ = infer("m", {"x": np.ones((rows, 4), np.float32)})
        (answer,) = found.values()
        assert answer.shape[0] == rows


def test_refusals(infer: Triton, client: Client, package_of: PackageOf) -> None:  # [O-8]
    client.load(package_of("dynamic_batch"), "m")
    good = np.ones((1, 4), np.float32)
    for model, inputs, named, status, words in (
        ("other", {"x": good}, {}, "NOT_FOUND", "model 'other' is not loaded"),
        ("m", {"x": good}, {"model_version": "2"}, "NOT_FOUND", "has version '1.0' here, not '2'"),
        ("other", {"x": np.array([["a"] * 4], object)}, {}, "NOT_FOUND", "model 'other' is not loaded"),
        ("m", {"x": good.astype("i4")}, {"model_version": "2"}, "NOT_FOUND", "has version '1.0' here, not '2'"),
        ("m", {"y": good}, {}, "INVALID_ARGUMENT", "no input named 'y'; its inputs are 'x'"),
        ("m", {"x": good, "y": good}, {}, "INVALID_ARGUMENT", "takes 1 input tensors, got 2"),
        ("m", {"x": good[:, :2]}, {}, "INVALID_ARGUMENT", "got shape [1, 2], expected [?, 4]"),
        ("m", {"x": good.astype("i4")}, {}, "INVALID_ARGUMENT", "got data type INT32, expected FLOAT32"),
        ("m", {"x": np.array([["a"] * 4], object)}, {}, "INVALID_ARGUMENT", "got datatype 'BYTES', expected one of"),
    ):  # fmt: skip
        with pytest.raises(calls.Refused) as refused:
            infer(model, inputs, **named)
        assert refused.value.args[0] == status, refused.value
        assert words in refused.value.args[1]
    infer("m", {"x": good})


def ask_raw(agent: AgentProcess, method: str, request: Any, answer: Any) -> Any:
    """A call with a message that the client would not make."""
    return agent.channel.unary_unary(
        f"/inference.GRPCInferenceService/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )(request, timeout=60)


def model_infer(agent: AgentProcess, tensor: Any, **more: Any) -> Any:
    return ask_raw(
        agent, "ModelInfer", pb.ModelInferRequest(model_name="m", inputs=[tensor], **more), pb.ModelInferResponse
    )


LISTS = {
    "BOOL": ("bool", "bool_contents", [True, False]),
    "UINT8": ("uint8", "uint_contents", [0, 255]),
    "UINT16": ("uint16", "uint_contents", [0, 65_535]),
    "UINT32": ("uint32", "uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64", "uint64_contents", [0, 2**64 - 1]),
    "INT8": ("int8", "int_contents", [-128, 127]),
    "INT16": ("int16", "int_contents", [-32_768, 32_767]),
    "INT32": ("int32", "int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64", "int64_contents", [-(2**63), 2**63 - 1]),
    "FP32": ("float32", "fp32_contents", [-1.5, 2.0**100]),
    "FP64": ("float64", "fp64_contents", [-1.5, 2.0**1000]),
}


@pytest.mark.parametrize("datatype", LISTS)
def test_typed_contents(agent: AgentProcess, client: Client, package_of: PackageOf, datatype: str) -> None:  # [O-9]
    kind, name, ends = LISTS[datatype]
    metadata = client.load(package_of(f"identity_{kind}"), "m").input_tensor_metadatas[0]
    shape = tuple(metadata.shape)
    numbers = (ends * int(np.prod(shape)))[: int(np.prod(shape))]
    contents = pb.InferTensorContents(**{name: numbers})
    tensor = pb.ModelInferRequest.InferInputTensor(
        name=metadata.name, datatype=datatype, shape=shape, contents=contents
    )
    (raw,) = model_infer(agent, tensor).raw_output_contents
    assert np.frombuffer(raw, kind).tolist() == numbers


@pytest.mark.parametrize(
    ("kind", "datatype", "contents", "words"),
    [
        ("float32", "FP32", {"fp64_contents": [1.0]}, "got fp64_contents, expected fp32_contents for FP32"),
        ("float32", "FP32", {}, "got 0 bytes, expected"),
        ("int8", "INT8", {"int_contents": [128]}, "int_contents has a number that does not fit INT8"),
        ("float16", "FP16", {"fp32_contents": [1.0]}, "typed contents cannot hold FP16"),
        ("float32", "BF16", {"fp32_contents": [1.0]}, "got datatype 'BF16', expected one of BOOL"),
        ("uint8", "UINT8", {"uint_contents": [1] * ((1 << 20) + 1)}, "more than 1048576 bytes of typed contents"),
    ],
)
def test_typed_contents_that_are_refused(
    agent: AgentProcess, client: Client, package_of: PackageOf, refused: Any, kind: str, datatype: str, contents: Any, words: str
) -> None:  # [O-9] # fmt: skip
    metadata = client.load(package_of(f"identity_{kind}"), "m").input_tensor_metadatas[0]
    tensor = pb.ModelInferRequest.InferInputTensor(
        name=metadata.name,
        datatype=datatype,
        shape=tuple(metadata.shape),
        contents=pb.InferTensorContents(**contents),
    )
    with refused("INVALID_ARGUMENT", words):
        model_infer(agent, tensor)


def test_what_is_declared_is_held_to(
    agent: AgentProcess, client: Client, package_of: PackageOf, refused: Any
) -> None:  # [O-8]
    client.load(package_of("dynamic_batch"), "m")
    for shape, raw, words in (
        ((2, 4), [bytes(16)], "got 16 bytes, expected 32"),
        ((-1, -4), [bytes(16)], "got shape [?, -4], expected no negative dimension"),
        ((1,) * 33, [bytes(4)], "got a shape of 33 dimensions; at most 32"),
        ((1, 4), [bytes(16)] * 2, "got 2 raw_input_contents for 1 inputs"),
    ):
        with refused("INVALID_ARGUMENT", words):
            model_infer(
                agent,
                pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=shape),
                raw_input_contents=raw,
            )
    with refused("INVALID_ARGUMENT", "got typed contents and raw_input_contents"):
        model_infer(
            agent,
            pb.ModelInferRequest.InferInputTensor(
                name="x", datatype="FP32", shape=(1, 4), contents=pb.InferTensorContents(fp32_contents=[1, 2, 3, 4])
            ),
            raw_input_contents=[bytes(16)],
        )


def test_parameters_are_passed_over(infer: Triton, client: Client, package_of: PackageOf) -> None:  # [O-10]
    client.load(package_of("dynamic_batch"), "m")
    one = np.ones((1, 4), np.float32)
    plain, _ = infer("m", {"x": one})
    found, _ = infer("m", {"x": one}, parameters={"a": 1, "b": "c", "d": True}, priority=1, timeout=1_000_000)
    assert [array.tobytes() for array in found.values()] == [array.tobytes() for array in plain.values()]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (("get_cuda_shared_memory_status",), "CUDA shared memory is not offered"),
        (("get_trace_settings",), "traces are not offered"),
        (("get_log_settings",), "the log is set by the agent's configuration alone"),
    ],
)
def test_what_is_not_offered(ask: Triton, call: tuple[str, ...], words: str) -> None:  # [O-11]
    with pytest.raises(calls.Refused) as refused:
        ask(*call)
    assert refused.value.args[0] == "UNIMPLEMENTED"
    assert words in refused.value.args[1]


def test_an_output_by_classes(
    agent: AgentProcess, client: Client, package_of: PackageOf, refused: Any
) -> None:  # [O-7]
    name = client.load(package_of("dynamic_batch"), "m").output_tensor_metadatas[0].name
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name=name)
    wanted.parameters["classification"].int64_param = 2  # as tritonclient sends its class_count
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=(1, 4))
    with refused("INVALID_ARGUMENT", "classification is not done here"):
        model_infer(agent, tensor, raw_input_contents=[bytes(16)], outputs=[wanted])


def test_there_are_no_cuda_regions_to_unregister(ask: Triton) -> None:  # [O-11]
    ask("unregister_cuda_shared_memory")


def test_streams_are_not_offered(agent: AgentProcess, refused: Any) -> None:  # [O-11]
    with refused("UNIMPLEMENTED", "call ModelInfer"):
        list(agent.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter([b""]), timeout=60))
