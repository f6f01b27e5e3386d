"""Predict over the socket: every row of its table (P-1 to P-11)."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.engine.child import FLAG
from edge.engine.engine import LITERT, SessionOptions
from edge.engine.probe import task_of
from edge.engine.samples import MADE_UP, Sample
from edge.rpc._generated import agent_pb2 as pb
from tests.data.make_models import add_one
from tests.fakes.engines import litert_serves, plain_engine
from tests.system.conftest import Signer
from tests.system.harness import (
    ENGINE_SLOWDOWN,
    AgentProcess,
    Client,
    agent_command,
    array_of,
    eventually,
    tensor_of,
    zeros_for,
)
from tests.system.segments import Segment, by_segment

PackageOf = Callable[[str], Path]
Refused = Callable[..., Any]
DTYPES = {
    "uint8": np.uint8, "int8": np.int8, "bool": np.bool_, "int16": np.int16, "uint16": np.uint16, "int32": np.int32,
    "uint32": np.uint32, "int64": np.int64, "uint64": np.uint64, "float16": np.float16, "float32": np.float32,
    "float64": np.float64,
}  # fmt: skip


def x_float(values: list[float], name: str = "x") -> Any:
    return tensor_of(np.array([values], np.float32), name)


def test_a_model_that_is_not_loaded(client: Client, refused: Refused) -> None:  # [P-1]
    with refused("NOT_FOUND", "'ghost' is not loaded"):
        client.predict("ghost", [])


def test_inline(client: Client, package_of: PackageOf) -> None:  # [P-9]
    client.load(package_of("add_one"), "add")
    (y,) = client.predict("add", [x_float([1, 2, 3, 4])])
    assert array_of(y).tolist() == [[2, 3, 4, 5]]
    assert (y.tensor_metadata.name, y.tensor_metadata.data_type) == ("y", pb.FLOAT32)
    assert y.WhichOneof("data") == "byte_data"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(client: Client, package_of: PackageOf, dtype: str) -> None:  # [T]
    model = client.load(package_of(f"identity_{dtype}"), "same")
    sent = np.array([[0, 1, 2, 100]]).astype(DTYPES[dtype])
    assert model.input_tensor_metadatas[0].data_type == pb.DataType.Value(dtype.upper())
    (y,) = client.predict("same", [tensor_of(sent, "x")])
    assert array_of(y).tobytes() == sent.tobytes()


def test_without_metadata_in_the_models_order(client: Client, package_of: PackageOf) -> None:  # [P-7]
    client.load(package_of("two_by_two"), "two")
    left, right = np.full((2, 3), 5, np.float32), np.full((2, 3), 3, np.float32)
    answer = client.predict("two", [pb.Tensor(byte_data=a.tobytes()) for a in (left, right)])
    found = {tensor.tensor_metadata.name: array_of(tensor)[0, 0] for tensor in answer}
    assert found == {"sum": 8.0, "difference": 2.0}


def test_with_names_in_any_order(client: Client, package_of: PackageOf) -> None:  # [P-8]
    client.load(package_of("two_by_two"), "two")
    left, right = np.full((2, 3), 5, np.float32), np.full((2, 3), 3, np.float32)
    answer = client.predict("two", [tensor_of(right, "right"), tensor_of(left, "left")])
    assert [tensor.tensor_metadata.name for tensor in answer] == ["sum", "difference"]
    assert array_of(answer[1])[0, 0] == 2.0


def test_dynamic_batch(client: Client, package_of: PackageOf) -> None:  # [P-8]
    model = client.load(package_of("dynamic_batch"), "batch")
    shape = list(model.input_tensor_metadatas[0].shape)
    for batch in (3, 1, 7, 1):
        sent = np.arange(batch * int(np.prod(shape[1:])), dtype=np.float32).reshape(batch, *shape[1:])
        (y,) = client.predict("batch", [tensor_of(sent, model.input_tensor_metadatas[0].name)])
        assert array_of(y).shape[0] == batch
        assert np.array_equal(array_of(y).ravel(), sent.ravel() + 1)


def test_dynamic_picture(client: Client, package_of: PackageOf) -> None:  # [P-8]
    client.load(package_of("dynamic_picture"), "picture")
    picture = np.random.default_rng(1).random((1, 5, 9, 3), np.float32)
    (mean,) = client.predict("picture", [tensor_of(picture, "picture")])
    assert np.allclose(array_of(mean), picture.mean((1, 2)), atol=1e-5)


def test_a_scalar(client: Client, package_of: PackageOf) -> None:  # section 3
    client.load(package_of("scalar"), "scalar")
    (y,) = client.predict("scalar", [tensor_of(np.array(41, np.float32), "x")])
    assert float(array_of(y).reshape(())) == 42.0


def test_leading_ones_are_added_and_dropped(client: Client, package_of: PackageOf) -> None:  # [P-8]
    client.load(package_of("add_one"), "add")
    for shape in ((4,), (1, 1, 4)):
        (y,) = client.predict("add", [tensor_of(np.ones(shape, np.float32), "x")])
        assert array_of(y).tolist() == [[2, 2, 2, 2]]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([], ["takes 1 input tensors, got 0"]),
        ([x_float([1, 2, 3, 4])] * 2, ["takes 1 input tensors, got 2"]),
        ([x_float([1, 2, 3, 4], "z")], ["no input named 'z'", "'x'"]),
        ([tensor_of(np.zeros((1, 4), np.int32), "x")], ["'x'", "INT32", "FLOAT32"]),
        ([tensor_of(np.zeros((2, 4), np.float32), "x")], ["'x'", "[2, 4]", "[1, 4]"]),
        ([pb.Tensor(byte_data=bytes(15))], ["'x'", "15 bytes", "expected 16"]),
        ([pb.Tensor(tensor_metadata=x_float([1, 2, 3, 4]).tensor_metadata)], ["'x'", "0 bytes", "expected 16"]),
    ],
)
def test_tensors_that_do_not_fit(
    client: Client, package_of: PackageOf, refused: Refused, tensors: list[Any], words: list[str]
) -> None:  # [P-2]
    client.load(package_of("add_one"), "add")
    with refused("INVALID_ARGUMENT", *words):
        client.predict("add", tensors)
    assert client.predict("add", [x_float([1, 2, 3, 4])])


def test_a_repeated_name(client: Client, package_of: PackageOf, refused: Refused) -> None:  # [P-2]
    client.load(package_of("two_by_two"), "two")
    left = tensor_of(np.zeros((2, 3), np.float32), "left")
    with refused("INVALID_ARGUMENT", "'left' is given twice"):
        client.predict("two", [left, left])


def test_shared_memory(client: Client, package_of: PackageOf) -> None:  # [P-11]
    model = client.load(package_of("add_one"), "add")
    metadata = model.input_tensor_metadatas[0]
    with Segment(8192) as segment:
        for values in ([1, 2, 3, 4], [5, 6, 7, 8]):
            segment.set_mode(0o600).write(np.array(values, np.float32).tobytes(), 16).set_mode(0o400)
            for size in (0, 16):
                (y,) = client.predict("add", [by_segment(segment, metadata, size, 16)])
                assert array_of(y).tolist() == [[v + 1 for v in values]]
                assert y.WhichOneof("data") == "byte_data"
        before = segment.read()
        client.predict("add", [by_segment(segment)])
        assert segment.read() == before


@pytest.mark.parametrize("offset", [0, 64, 16])
def test_large_inputs_in_shared_memory(client: Client, signer: Signer, offset: int) -> None:  # [P-9] [P-11] ADR 19
    count = 1 << 18
    model = client.load(signer.package(add_one((1, count))), f"large-{offset}")
    metadata = model.input_tensor_metadatas[0]
    with Segment(4 * count + offset) as first, Segment(4 * count + offset) as second:
        for turn in range(3):
            for number, segment in enumerate((first, second)):
                values = np.arange(count, dtype=np.float32) + turn + number
                segment.set_mode(0o600).write(values.tobytes(), offset).set_mode(0o400)
                (y,) = client.predict(model.name, [by_segment(segment, metadata, 0, offset)])
                assert np.array_equal(array_of(y).ravel(), values + 1)
                (y,) = client.predict(model.name, [tensor_of((values + 1).reshape(1, -1), metadata.name)])
                assert np.array_equal(array_of(y).ravel(), values + 2)
    client.unload(model.name)


@pytest.mark.skipif(not litert_serves(), reason="no LiteRT library is installed for this platform")
def test_the_trial_finds_inputs_that_can_be_lent(tmp_path: Path) -> None:  # ADR 19, in the program under test
    (tmp_path / "model.tflite").write_bytes(add_one((1, 8192)))
    lives, lifeline = os.pipe()
    with (tmp_path / "model.tflite").open("rb") as model:
        task = task_of(model.fileno(), SessionOptions(), Sample(), MADE_UP, engines=(LITERT,), lends=True) | {
            "lives": lives
        }
        trial = subprocess.run(
            [*agent_command(), FLAG, json.dumps(task)],
            capture_output=True,
            text=True,
            pass_fds=(model.fileno(), lives),
            check=True,
        )
    os.close(lives)
    os.close(lifeline)
    answer = json.loads(trial.stdout.splitlines()[-1])
    assert (answer["kind"], answer["borrows"]) == ("zeros", [0])


def test_the_runtime_fails(
    client: Client, agent: AgentProcess, package_of: PackageOf, refused: Refused
) -> None:  # [P-6]
    client.load(package_of("look_up"), "table")
    good = pb.Tensor(byte_data=np.array([2], np.int32).tobytes())
    (value,) = client.predict("table", [good])
    assert array_of(value).tolist() == [12]
    with refused("INVALID_ARGUMENT", "the runtime fails on these inputs", "gather"):
        client.predict("table", [pb.Tensor(byte_data=np.array([99], np.int32).tobytes())])
    eventually(lambda: "gather" in agent.log.lower(), what="the log has it")
    (value,) = client.predict("table", [good])
    assert array_of(value).tolist() == [12]


def rounds(count: int) -> Any:
    return pb.Tensor(byte_data=np.array([count], np.int32).tobytes())


class Slow:
    """Predict calls on the slow model, each held in the engine for seconds."""

    ROUNDS = 80_000 // ENGINE_SLOWDOWN

    def __init__(self, agent: AgentProcess, name: str = "slow") -> None:
        self.agent, self.name = agent, name
        self.calls: list[Any] = []
        self.call = agent.channel.unary_unary(
            "/AWS.SageMaker.Edge.Agent/Predict",
            request_serializer=pb.PredictRequest.SerializeToString,
            response_deserializer=pb.PredictResponse.FromString,
        )

    def start(self, count: int = 1, size: int = ROUNDS, timeout: float | None = None) -> None:
        for _ in range(count):
            self.calls.append(
                self.call.future(pb.PredictRequest(name=self.name, tensors=[rounds(size)]), timeout=timeout)
            )

    def lasting(self, seconds: float) -> int:
        """The size of a call that takes about so long, as busy as this machine is."""
        few, begun = 2_000 // ENGINE_SLOWDOWN, time.monotonic()
        self.agent.client.predict(self.name, [rounds(few)])
        return max(1, int(few * seconds / (time.monotonic() - begun)))

    def state(self) -> tuple[int, int]:
        """How many are running and waiting."""
        for model in self.agent.client.status().models:
            if model.name == self.name:
                return model.running, model.waiting
        return 0, 0

    def until(self, running: int, waiting: int) -> None:
        eventually(lambda: self.state() == (running, waiting), 60, f"{running} running, {waiting} waiting")

    def cancel(self) -> None:
        for call in self.calls:
            call.cancel()
        eventually(lambda: self.state() == (0, 0), 120, "nothing runs")


def test_a_full_queue(agents: Any, package_of: PackageOf, refused: Refused) -> None:  # [P-4]
    agent = agents(edge_queue_calls=2).start()
    agent.client.load(package_of("slow"), "slow")
    slow = Slow(agent)
    slow.start(3)
    slow.until(1, 2)
    with refused("RESOURCE_EXHAUSTED", "'slow' is busy", "2 are waiting"):
        agent.client.predict("slow", [rounds(1)])
    slow.cancel()
    assert array_of(agent.client.predict("slow", [rounds(1)])[0]).tolist() == [1]


def test_a_deadline_that_passes_while_waiting(
    agent: AgentProcess, client: Client, package_of: PackageOf
) -> None:  # [P-5]
    client.load(package_of("slow"), "slow")
    slow = Slow(agent)
    slow.start()
    slow.until(1, 0)
    before = next(m.predicted for m in client.status().models if m.name == "slow")
    slow.start(timeout=0.2, size=1)
    with pytest.raises(grpc.RpcError) as raised:
        slow.calls[-1].result()
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    slow.until(1, 0)
    slow.cancel()
    ended = plain_engine() == "litert"  # with its call (P-19)
    assert next(m.predicted for m in client.status().models if m.name == "slow") == before + (0 if ended else 1)


def test_models_and_instances_run_at_the_same_time(agents: Any, package_of: PackageOf, signer: Any) -> None:  # [P-10]
    agent = agents().start()
    two = signer.package(package_of("slow") / "slow.tflite", "slow-two", "--instances", "2", "--threads", "1")
    agent.client.load(two, "slow")
    agent.client.load(package_of("add_one"), "quick")
    slow = Slow(agent)
    slow.start(2)
    slow.until(2, 0)
    (y,) = agent.client.predict("quick", [x_float([1, 2, 3, 4])])
    assert array_of(y).tolist() == [[2, 3, 4, 5]]
    assert slow.state() == (2, 0)
    slow.cancel()


def test_unload_waits_for_calls_in_flight(
    agent: AgentProcess, client: Client, package_of: PackageOf, refused: Refused
) -> None:  # [U-2]
    client.load(package_of("slow"), "slow")
    slow = Slow(agent)
    slow.start(2)
    slow.until(1, 1)
    unload = threading.Thread(target=client.unload, args=("slow",))
    unload.start()
    eventually(lambda: [m.state for m in client.status().models] == ["DRAINING"], 30, "it drains")
    with refused("NOT_FOUND"):
        client.predict("slow", [rounds(1)])
    with refused("NOT_FOUND"):
        client.unload("slow")
    with refused("ALREADY_EXISTS", "being unloaded"):
        client.load(package_of("slow"), "slow")
    assert [array_of(call.result().tensors[0]).tolist() for call in slow.calls] == [[Slow.ROUNDS]] * 2
    unload.join(60)
    assert not client.status().models


def test_the_digits_model(client: Client, digits: Path) -> None:
    model = client.load(digits, "digits")
    assert len(client.predict("digits", [zeros_for(model.input_tensor_metadatas[0])])) == 1


@pytest.mark.parametrize("words", [("--max-message-bytes", "65536"), ("-m", "65536", "-d")])
def test_a_message_over_the_limit(
    agents: Any, package_of: PackageOf, refused: Refused, words: tuple[str, ...]
) -> None:
    agent = agents(*words).start()
    assert ("-d means nothing" in agent.log) == ("-d" in words)
    agent.client.load(package_of("add_one"), "add")
    with refused("RESOURCE_EXHAUSTED"):
        agent.client.predict("add", [pb.Tensor(byte_data=bytes(70_000))])
    assert agent.client.predict("add", [x_float([1, 2, 3, 4])])


def test_bytes_that_are_no_message(agent: AgentProcess, client: Client, refused: Refused) -> None:
    for method in ("Predict", "LoadModel", "UnLoadModel", "DescribeModel", "CaptureData", "GetCaptureDataStatus"):
        with refused("INVALID_ARGUMENT", "not a valid"):
            client.call(method, b"\xff\xff\xff", pb.PredictResponse)
    assert client.call("ListModels", b"\xff\xff\xff", pb.ListModelsResponse) is not None  # [LM]
