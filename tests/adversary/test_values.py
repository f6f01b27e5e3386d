"""Values that ended in INTERNAL, or make a good model work for long: refused, or nobody else's business ([P-6] [C-5] [L-3])."""

import itertools
import os
import uuid
from typing import Any

import grpc
import numpy as np

from edge.rpc._generated import agent_pb2 as pb
from tests.adversary.conftest import HONEST_MODEL, Stand
from tests.system.harness import ENGINE_SLOWDOWN, tensor_of

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


def test_values_that_make_a_model_work_for_long(stand: Stand, package_of: Any) -> None:
    client = stand.agent.client
    client.load(package_of("slow"), "slow")
    metadata = client.describe("slow").input_tensor_metadatas[0]
    rounds = tensor_of(np.full(tuple(metadata.shape), 20_000 // ENGINE_SLOWDOWN, np.int32), metadata.name)
    with stand.attack(seconds=3) as going_on:
        while going_on():
            client.predict("slow", [rounds])
    client.unload("slow")
