"""`python -m bench.inference [--rounds N]`: ModelInfer beside Predict, on one agent, one model and one connection each, by turns.

Tiny calls inline, and by shared memory 0.6 MB to a model that reads all of it, and 12.6 MB to one that reads its first row alone: a
System V segment with Predict, and a file in /dev/shm with ModelInfer; both are read where they are. The
requests are serialised once and both go through the same client library, so what differs is the agent's work. The ratio is that
of the medians of a turn; the figure is the median of all turns, with its quartiles.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.rig import MODELS, Rig
from edge.rpc._generated import agent_pb2 as api
from edge.rpc._generated import open_inference_pb2 as pb
from tests.system.harness import AgentProcess, Client, tensor_of
from tests.system.segments import Segment, ShmFile

CALLS = {"tiny": 200, "float32": 15, "large": 30}  # of a turn
SHARED = {"float32": "0.6 MB shared, MobileNetV2", "large": "12.6 MB shared, one row is read"}
WARMUP = 20


def median_us(call: Callable[[], Any], calls: int) -> float:
    """The median of so many calls, in microseconds."""
    took = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1e6


def calls(agent: AgentProcess, method: str, message: Any) -> Callable[[], bytes]:
    """One request again and again."""
    stub, raw = agent.channel.unary_unary(method), message.SerializeToString()
    return lambda: stub(raw)


def inline(agent: AgentProcess, client: Client, model: str) -> list[Callable[[], bytes]]:
    """Predict and ModelInfer with the bytes in the request."""
    metadata = client.describe(model).input_tensor_metadatas[0]
    array = np.random.default_rng(1).random(tuple(metadata.shape), np.float32)
    predict = api.PredictRequest(name=model, tensors=[tensor_of(array, metadata.name)])
    given = pb.ModelInferRequest.InferInputTensor(name=metadata.name, datatype="FP32", shape=array.shape)
    infer = pb.ModelInferRequest(model_name=model, inputs=[given], raw_input_contents=[array.tobytes()])
    return [
        calls(agent, "/AWS.SageMaker.Edge.Agent/Predict", predict),
        calls(agent, "/inference.GRPCInferenceService/ModelInfer", infer),
    ]


def shared(
    agent: AgentProcess, client: Client, model: str, segment: Segment, file: ShmFile
) -> list[Callable[[], bytes]]:
    """Predict and ModelInfer with the bytes in shared memory."""
    metadata = client.describe(model).input_tensor_metadatas[0]
    tensor = api.Tensor(tensor_metadata=metadata, shared_memory_handle=api.SharedMemoryHandle(segment_id=segment.id))
    given = pb.ModelInferRequest.InferInputTensor(name=metadata.name, datatype="FP32", shape=metadata.shape)
    given.parameters["shared_memory_region"].string_param = model
    given.parameters["shared_memory_byte_size"].int64_param = segment.size
    register = pb.SystemSharedMemoryRegisterRequest(name=model, key=file.key, byte_size=segment.size)
    calls(agent, "/inference.GRPCInferenceService/SystemSharedMemoryRegister", register)()
    return [
        calls(agent, "/AWS.SageMaker.Edge.Agent/Predict", api.PredictRequest(name=model, tensors=[tensor])),
        calls(
            agent,
            "/inference.GRPCInferenceService/ModelInfer",
            pb.ModelInferRequest(model_name=model, inputs=[given]),
        ),
    ]


def compare(case: str, pair: list[Callable[[], bytes]], number: int, rounds: int) -> None:
    """Print the medians and the ratio."""
    for call in pair:
        median_us(call, WARMUP)
    found: list[list[float]] = [[], []]
    for turn in range(rounds):
        for which in (turn % 2, 1 - turn % 2):
            found[which].append(median_us(pair[which], number))
    ratios = [infer / predict for predict, infer in zip(*found, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"{case}: Predict {statistics.median(found[0]):.0f} us, ModelInfer {statistics.median(found[1]):.0f} us, "
        f"ratio {middle:.2f} ({low:.2f} to {high:.2f}, {rounds} turns)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    if not MODELS["large"].exists():
        parser.error("make the models first: python -m bench.models")
    with Rig() as rig:
        agent = rig.agent()
        for model in CALLS:
            agent.client.load(rig.package(model), model)
        compare("tiny inline", inline(agent, agent.client, "tiny"), CALLS["tiny"], options.rounds)
        for model, case in SHARED.items():
            shape = tuple(agent.client.describe(model).input_tensor_metadatas[0].shape)
            array = np.random.default_rng(1).random(shape, np.float32)
            with Segment(array.nbytes) as segment, ShmFile(array.nbytes) as file:
                segment.write(array.tobytes()).set_mode(0o400)
                file.write(array.tobytes())
                compare(case, shared(agent, agent.client, model, segment, file), CALLS[model], options.rounds)


if __name__ == "__main__":
    main()
