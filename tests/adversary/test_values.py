"""Values that ended in INTERNAL, or make a good model work for long: refused, or nobody else's business ([P-6] [C-5] [L-3])."""

import itertools
import os
import uuid
from typing import Any

import grpc
import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.adversary.conftest import HONEST_MODEL, Stand
from tests.adversary.http2 import PREDICT, Connection
from tests.fakes.engines import plain_engine
from tests.system.harness import ENGINE_SLOWDOWN, array_of, tensor_of

ODD_FILES = ("/proc/self/mem", "/dev/zero", "/dev/full", "/proc/kmsg", "/proc/self/fd")


def test_values_that_no_call_may_have(stand: Stand, package_of: Any, refused: Any) -> None:
    client = stand.agent.client
    client.load(package_of("look_up"), "look-up")
    metadata = client.describe("look-up").input_tensor_metadatas[0]
    index = tensor_of(np.full(tuple(metadata.shape), 9, np.int32), metadata.name)
    deep = pb.Tensor(
        tensor_metadata=pb.TensorMetadata(name="x", data_type=pb.FLOAT32, shape=[1] * 470), byte_data=b"1234"
    )
    with stand.attack(seconds=2) as going_on:
        for file in itertools.cycle(ODD_FILES):
            if not going_on():
                break
            with refused("INVALID_ARGUMENT"):
                client.predict("look-up", [index])
            with refused("INVALID_ARGUMENT", "dimensions"):
                client.capture(model_name=HONEST_MODEL, capture_id=str(uuid.uuid4()), input_tensors=[deep])
            try:
                client.load(file, f"odd-{os.path.basename(file)}")  # noqa: PTH119 - a name, not a path of ours
            except grpc.RpcError as error:
                assert error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND), error.details()
    client.unload("look-up")
    assert [model.name for model in client.models()] == [HONEST_MODEL]


@pytest.mark.skipif(plain_engine() != "litert", reason="the interpreter's bindings cannot end an inference")
def test_values_that_make_a_model_work_without_end(stand: Stand, package_of: Any) -> None:  # [P-19]
    """Clients ask for hours of work, and go; another of the same model gets in between, again and again."""
    client = stand.agent.client
    client.load(package_of("slow"), "slow")
    few, without_end = (tensor_of(np.asarray([rounds], np.int32), "rounds") for rounds in (3, 2**31 - 1))
    raw = pb.PredictRequest(name="slow", tensors=[without_end]).SerializeToString()
    begin = stand.agent.channel.unary_unary(PREDICT)
    with stand.attack(seconds=3) as going_on:
        while going_on():
            calls = [begin.future(raw) for _ in range(4)]
            with Connection(stand.agent.socket) as connection:
                connection.request(PREDICT, raw)
            for call in calls:
                call.cancel()
            assert array_of(client.predict("slow", [few])[0]).tolist() == [3]
    client.unload("slow")


def test_values_that_make_a_model_work_for_long(stand: Stand, package_of: Any) -> None:
    client = stand.agent.client
    client.load(package_of("slow"), "slow")
    metadata = client.describe("slow").input_tensor_metadatas[0]
    rounds = tensor_of(np.full(tuple(metadata.shape), 20_000 // ENGINE_SLOWDOWN, np.int32), metadata.name)
    with stand.attack(seconds=3) as going_on:
        while going_on():
            client.predict("slow", [rounds])
    client.unload("slow")
