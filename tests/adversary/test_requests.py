"""Requests that are small to send and dear to understand: bounds come before allocation and arithmetic ([B-1], [P-2])."""

from collections.abc import Callable
from typing import Any

import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.adversary.conftest import HONEST_MODEL, Stand
from tests.fakes.fields import sized


def tensor(shape: list[int]) -> Any:
    metadata = pb.TensorMetadata(name="x", data_type=pb.FLOAT32, shape=shape)
    return pb.Tensor(tensor_metadata=metadata, byte_data=bytes(16))


def predict(*tensors: Any) -> bytes:
    raw: bytes = pb.PredictRequest(name=HONEST_MODEL, tensors=tensors).SerializeToString()
    return raw


DEAR: dict[str, Callable[[], bytes]] = {
    "many dimensions": lambda: predict(tensor([2**31 - 1] * 300_000)),
    "many dimensions of one byte": lambda: predict(tensor([127] * 1_250_000)),
    "many dimensions, not packed": lambda: predict() + sized(2, sized(1, b"\x18\x7f" * 300_000)),
    "more dimensions than any tensor has": lambda: predict(tensor([2**31 - 1] * 3000)),
    "empty tensors": lambda: predict() + sized(2, b"") * 3_000_000,
    "empty metadata": lambda: predict() + sized(2, sized(1, b"")) * 1_000_000,
    "unknown fields": lambda: predict() + b"\x78\0" * 3_000_000,
}


@pytest.mark.parametrize("name", DEAR)
def test_requests_that_are_dear_to_read(stand: Stand, refused: Any, name: str) -> None:
    raw = DEAR[name]()
    with stand.attack() as going_on:
        while going_on():
            with refused("INVALID_ARGUMENT", "dimensions"):
                stand.agent.client.call("Predict", raw, pb.PredictResponse)
