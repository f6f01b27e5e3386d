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
from tests.adversary.conftest import FLOOR_MILLISECONDS, HONEST_MODEL, MAX_GROWTH_BYTES, Stand, start_stand
from tests.fakes.fields import sized
from tests.system.harness import EMULATED, ENGINE_SLOWDOWN, Client, eventually, tensor_of

SENDERS, MANY_SENDERS = 8, 16
MIB = 1 << 20
LARGE_BYTES = 12_600_000  # an image of 1024 x 1024 in float32


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


def send_large(
    stand: Stand, raw: bytes, senders: int, seconds: float, floor: float = FLOOR_MILLISECONDS
) -> Counter[str]:
    """Have a request sent by so many clients at a time, again and again; what they were answered."""
    answers: Counter[str] = Counter()

    def send(going_on: Callable[[], bool]) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{stand.agent.socket}", options=options) as channel:
            while going_on():
                try:
                    Client(channel).call("Predict", raw, pb.PredictResponse)
                    answers["OK"] += 1
                except grpc.RpcError as error:
                    answers[error.code().name] += 1

    attack = stand.attack(seconds=seconds, max_growth_bytes=MAX_GROWTH_BYTES * (2 if EMULATED else 1), floor=floor)
    with attack as going_on, ThreadPoolExecutor(senders) as threads:
        for done in [threads.submit(send, going_on) for _ in range(senders)]:
            done.result()
    return answers


def slow_request(stand: Stand, package_of: Any, padding: int) -> bytes:
    """A request to a slow model, with so many bytes that mean nothing."""
    stand.agent.client.load(package_of("slow"), "slow")
    metadata = stand.agent.client.describe("slow").input_tensor_metadatas[0]
    rounds = tensor_of(np.full(tuple(metadata.shape), 200_000 // ENGINE_SLOWDOWN, np.int32), metadata.name)
    return pb.PredictRequest(name="slow", tensors=[rounds]).SerializeToString() + sized(15, bytes(padding))


def test_large_requests_that_wait_for_a_slow_model(tmp_path: Path, signer: Any, package_of: Any) -> None:
    """[B-4] [B-5] What comes, what waits and what was freed is bounded in all, however many send."""
    bounds = {"edge_receive_max_mib": 8, "edge_requests_max_mib": 24}
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"), arguments=("-m", str(8 << 20)), **bounds)
    try:
        answers = send_large(stand, slow_request(stand, package_of, 7 << 20), SENDERS, 2)
        assert answers.keys() == {"OK", "RESOURCE_EXHAUSTED"}, answers
    finally:
        stand.close()
        assert stand.agent.stop() == 0, stand.agent.log


def test_large_requests_of_many_clients(tmp_path: Path, signer: Any, package_of: Any) -> None:
    """[B-4] [B-5] Complete ones, with the bounds that are there by default: a few come at a time."""
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"))
    try:
        raw = slow_request(stand, package_of, LARGE_BYTES)
        # A small call waits for its turn among them, which on a busy machine is half a second.
        answers = send_large(stand, raw, MANY_SENDERS, 3, 4 * FLOOR_MILLISECONDS)
        assert answers["OK"] and answers.keys() <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}, answers
    finally:
        stand.close()
        assert stand.agent.stop() == 0, stand.agent.log


def test_the_memory_of_large_requests_that_are_refused_comes_back(
    tmp_path: Path, signer: Any, package_of: Any, refused: Any
) -> None:  # [U-3]
    """As soon as calls pause: it may be kept while the honest client makes some."""
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"))
    agent = stand.agent
    raw = pb.PredictRequest(name="unknown", tensors=[pb.Tensor(byte_data=bytes(16 * MIB))]).SerializeToString()
    before = psutil.Process(agent.pid).memory_info().rss
    with stand.attack() as going_on:
        while going_on():
            with refused("NOT_FOUND"):
                agent.client.call("Predict", raw, pb.PredictResponse)
            with refused("NOT_FOUND"):
                agent.client.call("Predict", raw + sized(15, bytes(8 * MIB)), pb.PredictResponse)
            with refused("RESOURCE_EXHAUSTED"):  # more than a message may have
                agent.client.call("Predict", raw + sized(15, bytes(50 * MIB)), pb.PredictResponse)
    stand.close()
    eventually(lambda: psutil.Process(agent.pid).memory_info().rss < before + (64 << 20), what="most of it comes back")
    assert agent.stop() == 0, agent.log


def test_the_largest_message_takes_three_times_its_size(
    tmp_path: Path, signer: Any, package_of: Any, refused: Any
) -> None:
    """For a moment, in gRPC's binding: as it came, while it is put together, and as bytes."""
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"))
    raw = pb.PredictRequest(name="unknown", tensors=[pb.Tensor(byte_data=bytes(64 * MIB - 64))]).SerializeToString()
    # The binding holds the interpreter lock while it puts 64 MiB together: others wait for all of that, and longer where cores are busy.
    with stand.attack(max_growth_bytes=(3 * 64 + 32) * MIB, floor=5000) as going_on:
        while going_on():
            with refused("NOT_FOUND"):
                stand.agent.client.call("Predict", raw, pb.PredictResponse)
    stand.close()
    assert stand.agent.stop() == 0, stand.agent.log
