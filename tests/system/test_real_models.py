"""Models as they are in the field: state, odd shapes, values without an answer, names; none ends the agent.

Each runs on LiteRT, which leaves some to the interpreter, and on the interpreter alone: the binary's, and from source both.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.rpc._generated import operations_pb2 as ops
from tests.data import hard_models, make_models
from tests.fakes.engines import litert_serves
from tests.system.conftest import good_config, run_tool
from tests.system.harness import (
    CALL_SECONDS,
    EMULATED,
    AgentProcess,
    Client,
    array_of,
    eventually,
    from_source,
    tensor_of,
)

Refused = Callable[..., Any]
NEWER, SHIPPED, LITERT = "ai_edge_litert", "tflite_runtime", "LiteRT"
INTERPRETERS = [name for name in (NEWER, SHIPPED) if importlib.util.find_spec(name)] if from_source() else [SHIPPED]
ENGINES = [LITERT] * litert_serves() + INTERPRETERS * (not EMULATED or not litert_serves())


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, signer: Any, engine: str) -> Iterator[AgentProcess]:
    """An agent on an engine; from source the binary's is used where the other is not installed well."""
    folder = tmp_path_factory.mktemp(engine)
    environment = {}
    if engine == SHIPPED and from_source():
        (folder / "path" / NEWER).mkdir(parents=True)
        (folder / "path" / NEWER / "__init__.py").write_text("raise ImportError('left out')\n")
        environment["PYTHONPATH"] = str(folder / "path")
    changes = {"edge_engine": "litert" if engine == LITERT else "tflite"}
    made = AgentProcess(folder, good_config(folder, signer.roots, changes)).start(env=environment)
    yield made
    assert made.stop() == 0, made.log


@pytest.fixture
def load(client: Client, signer: Any) -> Callable[..., Any]:
    """Packages a model and loads it as `m`."""
    return lambda model, *words: client.load(signer.package(model, "m", *words), "m")


def values(client: Client, *arrays: Any, names: tuple[str, ...] = ()) -> list[Any]:
    """The outputs of `m`, as lists; without `names` the inputs go by position."""
    tensors = [tensor_of(array, names[at] if names else "") for at, array in enumerate(arrays)]
    return [array_of(tensor).tolist() for tensor in client.predict("m", tensors)]


def f32(*numbers: float, shape: tuple[int, ...] = (-1,)) -> Any:
    return np.asarray(numbers, np.float32).reshape(shape)


def i32(number: int) -> Any:
    return np.asarray([number], np.int32)


def reset(agent: AgentProcess, name: str) -> None:
    agent.channel.unary_unary(
        "/edge.v1.Operations/ResetState",
        request_serializer=ops.ResetStateRequest.SerializeToString,
        response_deserializer=ops.ResetStateResponse.FromString,
    )(ops.ResetStateRequest(name=name), timeout=CALL_SECONDS)


def test_the_engine_is_the_one_meant(client: Client, engine: str, load: Callable[..., Any]) -> None:
    load(make_models.add_one())
    assert client.status().engine.startswith(engine)


def test_a_shape_that_the_engine_refuses(
    client: Client, load: Callable[..., Any], refused: Refused, engine: str
) -> None:  # [P-13]
    """A convolution over less than its window: ai_edge_litert refuses it, tflite_runtime answers with nothing."""
    load(hard_models.convolution(8))
    if engine == NEWER:
        with refused("INVALID_ARGUMENT", "[1, 2, 2, 3]"):
            client.predict("m", [tensor_of(np.zeros((1, 2, 2, 3), np.float32), "x")])
    for side in (8, 5, 3, 5):
        (y,) = values(client, np.ones((1, side, side, 3), np.float32))
        assert np.array_equal(y, np.full((1, side - 2, side - 2, 2), 27))


def test_a_batch_that_the_engine_writes_past_its_memory_for_is_refused(
    agent: AgentProcess, client: Client, load: Callable[..., Any], refused: Refused, engine: str
) -> None:  # [P-13]
    """Of a constant output shape tflite_runtime believes that it holds for any batch."""
    load(hard_models.transposed_convolution())
    for batch in (2, 2, 7, 1):
        if engine == SHIPPED and batch > 1:
            with refused("INVALID_ARGUMENT", f"[{batch}, 8, 8, 4]", "crashes, SIG"):
                client.predict("m", [tensor_of(np.zeros((batch, 8, 8, 4), np.float32), "x")])
        else:
            assert np.shape(values(client, np.ones((batch, 8, 8, 4), np.float32))[0]) == (batch, 16, 16, 4)
    if engine == SHIPPED:
        verdict = "edge.engine.shapes: model m: the model cannot take input shapes [{}, 8, 8, 4]"
        eventually(lambda: verdict.format(7) in agent.log, what="the second verdict is logged")
        assert agent.log.count(verdict.format(2)) == 1  # the first is remembered


def test_shapes_that_nobody_gave_may_fail(
    client: Client, load: Callable[..., Any], refused: Refused
) -> None:  # [L-10] [P-13]
    """All ones for a window of three: the application sends others."""
    load(hard_models.convolution(1))
    (status,) = client.status().models
    assert status.state == "READY" and status.warning
    assert list(status.inputs[0].shape) == [1, -1, -1, 3] and status.inputs[0].data_type == "FLOAT32"
    assert list(client.describe("m").input_tensor_metadatas[0].shape) == [1, 1, 1, 3]
    assert values(client, np.ones((1, 3, 3, 3), np.float32)) == [[[[[27, 27]]]]]


def test_a_sample_gives_shapes_that_do_not_fail(client: Client, load: Callable[..., Any]) -> None:  # [L-10]
    load(hard_models.convolution(1), "--sample", "x=1,4,4,3")
    assert not client.status().models[0].warning
    assert np.shape(values(client, np.ones((1, 4, 4, 3), np.float32))[0]) == (1, 2, 2, 2)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [("x", (1, 4, 4, 5), ("'x'", "[1, 4, 4, 5]", "[1, ?, ?, 3]")), ("z", (1, 4, 4, 3), ("'z'",))],
)
def test_a_sample_that_does_not_fit(
    client: Client, signer: Any, refused: Refused, name: str, shape: tuple[int, ...], words: tuple[str, ...]
) -> None:  # [L-10]
    """The tool does not sign it, and the agent does not load it."""
    model = hard_models.convolution(8)
    with pytest.raises(AssertionError, match="package's sample"):
        signer.package(model, "misfit", "--sample", f"{name}={','.join(map(str, shape))}")
    with refused("FAILED_PRECONDITION", "sample", *words):
        client.load(signer.sign_anything(model, sample=((name, shape),)), "misfit")


def test_an_empty_batch(client: Client, load: Callable[..., Any], refused: Refused, engine: str) -> None:  # [P-8]
    load(make_models.add_one((-1, 4)))
    with refused("INVALID_ARGUMENT", "[0, 4]") if engine == LITERT else contextlib.nullcontext():
        (y,) = client.predict("m", [tensor_of(np.zeros((0, 4), np.float32), "x")])
        assert list(y.tensor_metadata.shape) == [0, 4] and y.byte_data == b""
    assert values(client, f32(1, 2, 3, 4, shape=(1, 4))) == [[[2, 3, 4, 5]]]


@pytest.mark.parametrize("version", [1, 4, 8])
def test_weights_in_blocks(
    client: Client, load: Callable[..., Any], refused: Refused, engine: str, version: int
) -> None:  # [L-5]
    if engine == SHIPPED:
        with refused("FAILED_PRECONDITION", "in blocks", "tflite_runtime 2.14", "ai_edge_litert"):
            load(hard_models.blockwise(version))
        return
    try:
        load(hard_models.blockwise(version))
    except grpc.RpcError as error:
        # Its kernels for them ask more of an aarch64 processor than an emulated one has: refused, and nothing dies.
        assert EMULATED and "the runtime refuses the model file" in str(error)
    else:
        assert values(client, np.ones((1, 64), np.float32)) == [[[32.0] * 16]]


def test_sparse_weights(client: Client, load: Callable[..., Any]) -> None:  # [L-7] [P-6]
    """tflite_runtime answers right, and crashes when its bindings are asked for the details of all tensors."""
    load(hard_models.sparse_layer())
    numbers = f32(*range(1, 7), shape=(1, 6))
    assert values(client, numbers) == [(numbers @ hard_models.SPARSE_LAYER.T).tolist()]
    client.unload("m")
    load(hard_models.sparse_convolution())
    numbers = f32(*range(16), shape=(1, 2, 2, 4))
    assert values(client, numbers) == [(numbers @ hard_models.SPARSE_WINDOWS.reshape(2, 4).T).tolist()]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (hard_models.custom("FlexErf"), ("FlexErf", "TFLITE_BUILTINS")),
        (hard_models.custom("edgetpu-custom-op"), ("Edge TPU", "--delegate")),
        (hard_models.custom("Mystery"), ("Mystery",)),
        (make_models.string(), ("takes text", "'x'")),
    ],
)
def test_what_to_do_is_in_the_refusal(
    load: Callable[..., Any], refused: Refused, model: bytes, words: tuple[str, ...]
) -> None:  # [L-5] [L-7]
    with refused("FAILED_PRECONDITION", *words):
        load(model)


def test_an_empty_output(client: Client, load: Callable[..., Any]) -> None:  # [P-14]
    load(hard_models.where_zero())
    (nothing,) = client.predict("m", [tensor_of(f32(1, 2, 3, 4), "x")])
    assert list(nothing.tensor_metadata.shape) == [0, 1] and nothing.byte_data == b""
    assert values(client, f32(0, 2, 0, 4)) == [[[0], [2]]]
    client.capture(
        model_name="m", capture_id="empty", output_tensors=[nothing], input_tensors=[tensor_of(f32(1, 2, 3, 4), "x")]
    )
    client.wait_captured("empty")


def test_zeros_without_an_answer(
    client: Client, load: Callable[..., Any], refused: Refused, engine: str
) -> None:  # [L-10] [P-6]
    if engine == SHIPPED:  # whose process a division by zero ends, in the trial
        with refused("FAILED_PRECONDITION", "crashes, SIGFPE, on zeros", SHIPPED):
            load(hard_models.division())
        return
    load(hard_models.division())
    assert not client.status().models[0].warning  # it has run on ones
    assert values(client, i32(6), i32(3)) == [[2]]
    with refused("INVALID_ARGUMENT", "the runtime fails on these inputs"):
        client.predict("m", [tensor_of(i32(6), "n"), tensor_of(i32(0), "d")])
    assert values(client, i32(9), i32(3)) == [[3]]


def test_zeros_that_make_nothing(client: Client, load: Callable[..., Any]) -> None:  # [L-10] [P-14]
    load(hard_models.fill())
    assert values(client, i32(0)) == [[]]
    assert values(client, i32(2)) == [[7, 7]]


def test_an_endless_trial_is_bounded_and_holds_nobody_up(
    agent: AgentProcess, client: Client, signer: Any, load: Callable[..., Any]
) -> None:  # [L-8] [L-10]
    """Zeros go on for ever, ones do not; meanwhile another model is loaded."""
    import threading

    package = signer.package(hard_models.endless_on_zeros(), "endless", "--trial-seconds", "4")
    thread = threading.Thread(target=lambda: client.load(package, "endless"))
    thread.start()
    load(make_models.add_one())
    assert "endless" not in [model.name for model in client.models()]
    thread.join()
    assert {model.name for model in client.models()} == {"m", "endless"}
    assert not [model for model in client.status().models if model.warning]


def test_a_model_that_ends_on_nothing(signer: Any, client: Client, refused: Refused) -> None:  # [L-7]
    package = signer.package(make_models.slow(1024), "slow", "--trial-seconds", "1", "--sample", "rounds=1")
    client.load(package, "slow")  # zeros are quick
    folder = package.parent / "never.npz"
    np.savez(folder, rounds=np.asarray([1 << 30], np.int32))
    with refused("FAILED_PRECONDITION", "the sample", "1 s", "trial_seconds"):
        client.load(
            signer.package(make_models.slow(), "slow", "--trial-seconds", "1", "--sample", str(folder)), "never"
        )


def test_a_sample_with_values(
    client: Client, load: Callable[..., Any], tmp_path: Path, refused: Refused
) -> None:  # [L-10]
    np.savez(tmp_path / "good.npz", n=i32(6), d=i32(2))
    load(hard_models.division(), "--sample", str(tmp_path / "good.npz"))
    assert values(client, i32(6), i32(3)) == [[2]]
    client.unload("m")
    np.savez(tmp_path / "bad.npz", n=f32(6), d=i32(2))
    with refused("FAILED_PRECONDITION", "sample", "float32", "'n'", "INT32"):
        load(hard_models.division(), "--sample", str(tmp_path / "bad.npz"))


@pytest.mark.parametrize("rows", [1, -1])
def test_every_call_starts_anew(
    client: Client, load: Callable[..., Any], refused: Refused, rows: int
) -> None:  # [P-15]
    load(hard_models.counter(rows), "--instances", "2")
    for _ in range(5):
        assert values(client, f32(1, shape=(1, 1))) == [[[2]]]
    with refused("INVALID_ARGUMENT"):
        client.predict("m", [tensor_of(f32(1, 1), "x")])
    assert values(client, f32(1, shape=(1, 1))) == [[[2]]]


def test_state_is_kept_where_the_package_says_so(
    agent: AgentProcess, client: Client, load: Callable[..., Any], refused: Refused
) -> None:  # [P-16]
    """The first client finds what a fresh interpreter has; a refused call changes nothing; ResetState starts anew."""
    load(hard_models.counter(), "--state", "keep")
    assert client.status().models[0].instances == 1
    assert [values(client, f32(0, shape=(1, 1)))[0][0][0] for _ in range(3)] == [1, 2, 3]
    for shape in ((2, 1), (1, 2)):
        with refused("INVALID_ARGUMENT"):
            client.predict("m", [tensor_of(np.zeros(shape, np.float32), "x")])
    assert values(client, f32(0, shape=(1, 1))) == [[[4]]]
    reset(agent, "m")
    assert values(client, f32(0, shape=(1, 1))) == [[[1]]]


def test_resource_variables(
    agent: AgentProcess, client: Client, load: Callable[..., Any], refused: Refused
) -> None:  # [P-15] [P-16]
    with refused("FAILED_PRECONDITION", "ASSIGN_VARIABLE", "--state keep"):
        load(hard_models.accumulator())
    load(hard_models.accumulator(), "--state", "keep")
    assert [values(client, f32(2))[0][0] for _ in range(3)] == [2, 4, 6]
    reset(agent, "m")
    assert [values(client, f32(1))[0][0] for _ in range(2)] == [1, 2]


def test_state_is_reset_by_the_client(agent: AgentProcess, client: Client, load: Callable[..., Any]) -> None:  # [P-16]
    load(hard_models.counter(), "--state", "keep")
    assert values(client, f32(5, shape=(1, 1))) == [[[6]]]
    assert "starts anew" in run_tool("reset", "-a", agent.socket, "m").stdout
    assert values(client, f32(5, shape=(1, 1))) == [[[6]]]


def test_only_state_that_is_kept_can_be_reset(
    agent: AgentProcess, load: Callable[..., Any], refused: Refused
) -> None:  # [P-16]
    with refused("NOT_FOUND"):
        reset(agent, "ghost")
    load(hard_models.counter())
    with refused("FAILED_PRECONDITION", "keeps no state"):
        reset(agent, "m")


def test_tensors_without_a_name_are_served_by_position(
    agent: AgentProcess, client: Client, load: Callable[..., Any]
) -> None:  # [P-7]
    model = load(hard_models.no_names())
    assert [m.name for m in model.input_tensor_metadatas] == ["input_0", "input_1"]
    a, b = f32(5, 7), f32(1, 2)
    assert values(client, a, b) == values(client, b, a, names=("input_1", "input_0")) == [[4, 5]]
    sent = [tensor_of(a, "input_0"), tensor_of(b, "input_1")]
    client.capture(
        model_name="m", capture_id="unnamed", input_tensors=sent, output_tensors=client.predict("m", sent)
    )  # [C-5]
    client.wait_captured("unnamed")
    assert agent.log.count("without a name of their own") == 1


def test_an_output_that_comes_twice(client: Client, load: Callable[..., Any]) -> None:  # [P-7]
    model = load(hard_models.same_output_twice())
    assert [m.name for m in model.output_tensor_metadatas] == ["output_0", "output_1"]
    assert values(client, f32(1, 2)) == [[2, 3], [2, 3]]


@pytest.mark.parametrize("names", ["tensor", "signature"])
def test_requests_may_use_either_name(client: Client, load: Callable[..., Any], names: str) -> None:  # [P-17]
    model = load(hard_models.signatures(several=False), "--names", names)
    expected = ["first:0", "second:0"] if names == "tensor" else ["a", "b"]
    assert [m.name for m in model.input_tensor_metadatas] == expected
    assert [m.name for m in model.output_tensor_metadatas] == ["out:0" if names == "tensor" else "difference"]
    first, second = f32(1, 2), f32(5, 7)
    for called in (("b", "a"), ("second:0", "first:0"), ("second:0", "a")):
        assert values(client, second, first, names=called) == [[4, 5]]
    assert values(client, first, second) == [[4, 5]]


@pytest.mark.parametrize(("key", "name", "answer"), [("serve", "a", [4]), ("twice", "value", [2])])
def test_one_of_several_signatures(
    client: Client, load: Callable[..., Any], key: str, name: str, answer: list[int]
) -> None:  # [P-17]
    model = load(hard_models.signatures(several=True), "--signature", key, "--names", "signature")
    assert model.input_tensor_metadatas[0].name == name
    if key == "serve":
        assert values(client, f32(1, 2), f32(5, 7)) == [[4, 5]]
    else:
        for numbers in ([1.0], [1.0, 2.0, 3.0], [4.0, 5.0]):
            assert values(client, f32(*numbers)) == [[2 * number for number in numbers]]


def test_the_packaging_tool_does_not_guess_a_signature(signer: Any, tmp_path: Path) -> None:  # [P-17]
    model = tmp_path / "model.tflite"
    model.write_bytes(hard_models.signatures(several=True))
    words = ("package", "--model", str(model), "--name", "m", "--version", "1", "--key", str(signer.key))
    words += ("--cert", str(signer.certificate), "--out", str(tmp_path / "out"))
    said = run_tool(*words, check=False)
    assert said.returncode == 2 and "serve, twice" in said.stderr and "--signature" in said.stderr
    said = run_tool(*words, "--signature", "train", check=False)
    assert said.returncode == 2 and "'train'" in said.stderr


def test_nothing_of_this_ended_the_agent(agent: AgentProcess) -> None:
    assert agent.process is not None and agent.process.poll() is None
    assert isinstance(grpc.channel_ready_future(agent.channel).result(timeout=CALL_SECONDS), type(None))
