"""Calls that make a good model dear ([L-6], [P-13])."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.adversary.conftest import Stand, start_stand
from tests.system.harness import tensor_of
from tests.system.segments import Segment

BUDGET_MIB = 64


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, signer: Any, package_of: Any) -> Iterator[Stand]:
    """A stand of an agent with little memory for models."""
    folder = tmp_path_factory.mktemp("small")
    made = start_stand(folder, signer.roots, package_of("add_one"), edge_memory_budget_mib=BUDGET_MIB)
    made.agent.client.load(package_of("dynamic_picture"), "picture")
    yield made
    made.close()
    assert made.agent.stop() == 0, made.agent.log


def test_a_shape_that_takes_more_than_the_budget(small: Stand, refused: Any) -> None:  # [L-6] [P-13]
    """From a segment that costs its client nothing."""
    client = small.agent.client
    with Segment(12_000 * 12_000 * 3 * 4) as segment, small.attack() as going_on:
        segment.set_mode(0o400)
        handle = pb.SharedMemoryHandle(segment_id=segment.id)
        side = 12_000
        while going_on():
            metadata = pb.TensorMetadata(name="picture", data_type=pb.FLOAT32, shape=[1, side, side, 3])
            with refused("RESOURCE_EXHAUSTED", "needs", "MiB are available"):
                client.predict("picture", [pb.Tensor(tensor_metadata=metadata, shared_memory_handle=handle)])
            side -= 1


def test_shapes_that_fit_count(small: Stand, package_of: Any, refused: Any) -> None:  # [L-6]
    client = small.agent.client
    client.load(package_of("dynamic_picture"), "another")
    before = client.status().memory_reserved_bytes
    client.predict("picture", [tensor_of(np.zeros((1, 1024, 2048, 3), np.float32), "picture")])  # 24 MiB
    assert client.status().memory_reserved_bytes - before >= 24 << 20
    with refused("RESOURCE_EXHAUSTED", "MiB are available"):
        client.predict("another", [tensor_of(np.zeros((1, 2048, 2048, 3), np.float32), "picture")])  # 48 MiB
