"""Requests that are small to send and dear to understand: bounds come before allocation and arithmetic ([B-1], [P-2])."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.adversary.conftest import HONEST_MODEL, MAX_GROWTH_BYTES, Stand, start_stand
from tests.fakes.fields import sized
from tests.system.harness import ENGINE_SLOWDOWN, Client, eventually, tensor_of

SENDERS = 8


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


def capture(**fields: Any) -> bytes:
    raw: bytes = pb.CaptureDataRequest(model_name=HONEST_MODEL, capture_id="dear", **fields).SerializeToString()
    return raw


DEAR_CAPTURES: dict[str, Callable[[], bytes]] = {
    "many names, the last two equal": lambda: capture(
        inputs=[pb.AuxiliaryData(name=str(min(number, 39_998))) for number in range(40_000)]
    ),
    "as many as are parsed": lambda: capture(inputs=[pb.AuxiliaryData(name=str(number)) for number in range(8000)]),
    "a name of control characters": lambda: capture(inputs=[pb.AuxiliaryData(name="\x1b" * (8 << 20))]),
    "many dimensions": lambda: capture(input_tensors=[tensor([2**31 - 1] * 470)]),
}


@pytest.mark.parametrize("name", DEAR_CAPTURES)
def test_captures_that_are_dear_to_read(stand: Stand, refused: Any, name: str) -> None:  # [B-1] [C-5]
    raw = DEAR_CAPTURES[name]()
    with stand.attack() as going_on:
        while going_on():
            with refused("INVALID_ARGUMENT", "allowed"):
                stand.agent.client.call("CaptureData", raw, pb.CaptureDataResponse)


def test_large_requests_that_wait_for_a_slow_model(tmp_path: Path, signer: Any, package_of: Any) -> None:
    """[B-4] [B-5] What comes, what waits and what was freed is bounded in all, however many send."""
    bounds = {"edge_receive_max_mib": 8, "edge_requests_max_mib": 24}
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"), arguments=("-m", str(8 << 20)), **bounds)
    agent = stand.agent
    agent.client.load(package_of("slow"), "slow")
    metadata = agent.client.describe("slow").input_tensor_metadatas[0]
    rounds = tensor_of(np.full(tuple(metadata.shape), 200_000 // ENGINE_SLOWDOWN, np.int32), metadata.name)
    raw = pb.PredictRequest(name="slow", tensors=[rounds]).SerializeToString() + sized(15, bytes(7 << 20))
    answers: Counter[str] = Counter()

    def send(going_on: Callable[[], bool]) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{agent.socket}", options=options) as channel:
            while going_on():
                try:
                    Client(channel).call("Predict", raw, pb.PredictResponse)
                    answers["OK"] += 1
                except grpc.RpcError as error:
                    answers[error.code().name] += 1

    try:
        with (
            stand.attack(seconds=2, max_growth_bytes=2 * MAX_GROWTH_BYTES) as going_on,
            ThreadPoolExecutor(SENDERS) as senders,
        ):
            for done in [senders.submit(send, going_on) for _ in range(SENDERS)]:
                done.result()
        assert answers.keys() == {"OK", "RESOURCE_EXHAUSTED"}, answers
    finally:
        stand.close()
        assert agent.stop() == 0, agent.log


def test_the_memory_of_large_requests_that_are_refused_comes_back(
    tmp_path: Path, signer: Any, package_of: Any, refused: Any
) -> None:  # [U-3]
    """As soon as calls pause: it may be kept while the honest client makes some."""
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"))
    agent = stand.agent
    raw = pb.PredictRequest(name="unknown", tensors=[pb.Tensor(byte_data=bytes(40 << 20))]).SerializeToString()
    before = psutil.Process(agent.pid).memory_info().rss
    # Of one message of 53 MiB gRPC's binding has four copies for a moment, and malloc keeps two of the largest.
    with stand.attack(max_growth_bytes=3 * MAX_GROWTH_BYTES) as going_on:
        while going_on():
            with refused("NOT_FOUND"):
                agent.client.call("Predict", raw, pb.PredictResponse)
            with refused("NOT_FOUND"):
                agent.client.call("Predict", raw + sized(15, bytes(13 << 20)), pb.PredictResponse)
            with refused("RESOURCE_EXHAUSTED"):  # more than a message may have
                agent.client.call("Predict", raw + sized(15, bytes(26 << 20)), pb.PredictResponse)
    stand.close()
    eventually(lambda: psutil.Process(agent.pid).memory_info().rss < before + (64 << 20), what="most of it comes back")
    assert agent.stop() == 0, agent.log
