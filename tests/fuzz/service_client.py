"""One hostile client of the Open Inference Protocol, in rounds: it registers regions, asks, and tidies up what came of it."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, seed, settings

from edge import address
from edge.rpc._generated import open_inference_pb2 as pb
from tests.fuzz import inference
from tests.fuzz.altered import altered
from tests.fuzz.mutate import mutate
from tests.system.hostile_messages import METHODS, PATH, REFUSALS, SERVICE, messages

CALL_SECONDS = 120.0
ROUND = 1000  # requests, at most
FAULTS_TOLD = 10
# Parts of a round. A load may try a model in a process of its own, which takes as long as hundreds of other requests.
SHARES = {
    **dict.fromkeys(METHODS, 4), "ModelInfer": 60, "SystemSharedMemoryRegister": 10, "RepositoryModelLoad": 2,
    "ServerLive": 1, "ServerReady": 1,
}  # fmt: skip
NOT_OFFERED = (
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
    "None",
)
ROWS = np.arange(4, dtype=np.float32)


@dataclass(frozen=True)
class Target:
    """What is aimed at. `served`: models that stay; `package`: one that may be loaded; `keys`: of files in /dev/shm."""

    socket: str
    served: frozenset[str]
    package: str
    keys: tuple[str, ...]


@dataclass
class Found:
    """How many requests of a call ended in which status, and what failed."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    failing: list[bytes] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        """Put another client's to it."""
        self.counts += other.counts
        self.faults += other.faults
        self.failing += other.failing


class Client:
    """Asks by one connection; the same seed makes the same requests."""

    def __init__(self, target: Target, seed: str) -> None:
        self._target = target
        self._chance = Random(seed)
        self._seeds = seeds(target)
        self._tokens = (*inference.TOKENS, *(name.encode() for name in target.served), *map(str.encode, target.keys))
        self._channel = grpc.insecure_channel(address.target(target.socket))
        self.found = Found()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()

    def run(self, requests: int) -> Found:
        """Send so many requests, or until some have failed."""
        while (left := requests - self.found.counts.total()) > 0 and len(self.found.faults) < FAULTS_TOLD:
            self._round(min(left, ROUND))
            self._tidy()
        return self.found

    def _round(self, requests: int) -> None:
        for key in self._target.keys:
            for region in ("region", key):
                asked = pb.SystemSharedMemoryRegisterRequest(name=region, key=key, byte_size=64)
                self._call("SystemSharedMemoryRegister", asked.SerializeToString())
        until = self.found.counts.total() + requests
        weights = list(SHARES.values())
        for method, count in Counter(self._chance.choices(list(SHARES), weights, k=requests // 2)).items():
            self._arbitrary(method, count)
        while self.found.counts.total() < until:
            if self._chance.random() < 0.01:
                self._resize()
            if self._chance.random() < 0.02:
                self.send(self._chance.choice(NOT_OFFERED), self._chance.randbytes(self._chance.randrange(32)))
                continue
            (method,) = self._chance.choices(list(SHARES), weights)
            self.send(method, self._near_a_good_one(method))

    def _arbitrary(self, method: str, count: int) -> None:
        """Messages by hypothesis: at most so many, fewer where the call has no more."""

        @seed(self._chance.randrange(1 << 32))
        @settings(
            max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )  # fmt: skip
        @given(message=messages(SERVICE.methods_by_name[method].input_type))
        def each(message: Any) -> None:
            if method == "ModelInfer" and self._chance.random() < 0.7:  # most others end at the model's name
                message.model_name = self._chance.choice(sorted(self._target.served))
                message.model_version = ""
            self.send(method, message.SerializeToString())

        each()

    def _near_a_good_one(self, method: str) -> bytes:
        """A request that clients send, changed in its bytes or in its values."""
        if self._chance.random() < 0.5:
            return mutate(self._chance, self._seeds[method], self._tokens, is_json=False)
        message = GetMessageClass(SERVICE.methods_by_name[method].input_type)()
        message.ParseFromString(self._chance.choice(self._seeds[method]))
        for _ in range(self._chance.choice((0, 1, 1, 1, 2, 3))):
            altered(self._chance, message)
        return message.SerializeToString()

    def _resize(self) -> None:
        """Make a file in shared memory shorter or longer, as its owner may at any time."""
        path = f"/dev/shm{self._chance.choice(self._target.keys)}"
        os.truncate(path, self._chance.choice((0, 15, 64, 256, 256)))

    def send(self, method: str, raw: bytes) -> None:
        """Send one and judge what became of it."""
        if method == "RepositoryModelUnload" and self._would_end(raw):
            method = "ModelReady"
        status, text = self._call(method, raw)
        self.found.counts[method, status.name] += 1
        if status is not grpc.StatusCode.OK and (status not in REFUSALS or not text):
            self.found.faults.append(f"{method} {raw.hex()}: {status.name} {text}")
            self.found.failing.append(raw)

    def _would_end(self, raw: bytes) -> bool:
        """Whether these bytes unload one of the models that stay."""
        with suppress(DecodeError):
            return pb.RepositoryModelUnloadRequest.FromString(raw).model_name in self._target.served
        return False

    def _tidy(self) -> None:
        """Unload what was loaded, and see that the models that stay are served, with right numbers."""
        _, raw = self._ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=True), pb.RepositoryIndexResponse)
        for model in raw.models if raw else ():
            if model.name not in self._target.served:
                self._call(
                    "RepositoryModelUnload",
                    pb.RepositoryModelUnloadRequest(model_name=model.name).SerializeToString(),
                )
        tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=(1, 4))
        asked = pb.ModelInferRequest(model_name="add-one", inputs=[tensor], raw_input_contents=[ROWS.tobytes()])
        told, answer = self._ask("ModelInfer", asked, pb.ModelInferResponse)
        if answer is None or answer.raw_output_contents[0] != (ROWS + 1).tobytes():
            self.found.faults.append(f"an honest inference afterwards: {told or answer}")

    def _ask(self, method: str, request: Message, kind: Callable[[], Any]) -> tuple[str, Any]:
        """An honest call: the fault in words, or the answer."""
        try:
            raw = self._channel.unary_unary(PATH + method)(request.SerializeToString(), timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()}", None
        answer = kind()
        answer.ParseFromString(raw)
        return "", answer

    def _call(self, method: str, raw: bytes) -> tuple[grpc.StatusCode, str]:
        """The status and what is said beside it."""
        try:
            self._channel.unary_unary(PATH + method)(raw, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""


def seeds(target: Target) -> dict[str, tuple[bytes, ...]]:
    """Good requests of each call, as clients send them."""
    own: dict[str, list[Message]] = {
        "ModelInfer": _inferences(),
        "ModelReady": [pb.ModelReadyRequest(name="scalar", version="1.0")],
        "ModelMetadata": [pb.ModelMetadataRequest(name="mixed-types", version="1.0")],
        "ModelConfig": [pb.ModelConfigRequest(name="dynamic-batch")],
        "ModelStatistics": [pb.ModelStatisticsRequest(name="add-one"), pb.ModelStatisticsRequest()],
        "RepositoryIndex": [pb.RepositoryIndexRequest(ready=True)],
        "RepositoryModelLoad": [_load("spare", target.package), _load("spare", "/none"), _load("add-one", "file:///")],
        "RepositoryModelUnload": [pb.RepositoryModelUnloadRequest(model_name="spare")],
        "SystemSharedMemoryStatus": [pb.SystemSharedMemoryStatusRequest(name="region")],
        "SystemSharedMemoryRegister": [
            pb.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=16, byte_size=64)
            for key in target.keys
            for name in ("region", "other")
        ],
        "SystemSharedMemoryUnregister": [pb.SystemSharedMemoryUnregisterRequest(name="other")],
    }
    return {method: tuple(one.SerializeToString() for one in own.get(method, ())) or (b"",) for method in METHODS}


def _load(name: str, url: str) -> pb.RepositoryModelLoadRequest:
    return pb.RepositoryModelLoadRequest(
        model_name=name, parameters={"url": pb.ModelRepositoryParameter(string_param=url)}
    )


def _inferences() -> list[Message]:
    """Raw and typed contents, parameters, chosen outputs, and tensors in shared memory."""
    kind, wanted = pb.ModelInferRequest.InferInputTensor, pb.ModelInferRequest.InferRequestedOutputTensor
    place = {
        "shared_memory_region": pb.InferParameter(string_param="region"),
        "shared_memory_byte_size": pb.InferParameter(int64_param=16),
        "shared_memory_offset": pb.InferParameter(int64_param=4),
    }
    raw = kind(name="x", datatype="FP32", shape=(1, 4))
    typed = kind(name="x", datatype="FP32", shape=(1, 4), contents=pb.InferTensorContents(fp32_contents=[1, 2, 3, 4]))
    shared = kind(name="x", datatype="FP32", shape=(1, 4), parameters=place)
    flags = kind(name="x", datatype="BOOL", shape=(1, 4))
    parameters = {"sequence_id": pb.InferParameter(uint64_param=1), "priority": pb.InferParameter(double_param=0.5)}
    request = pb.ModelInferRequest
    return [
        request(model_name="add-one", inputs=[raw], raw_input_contents=[bytes(16)]),
        request(model_name="add-one", id="1", inputs=[typed], parameters=parameters, outputs=[wanted(name="y")]),
        request(model_name="dynamic-batch", inputs=[raw], raw_input_contents=[bytes(16)]),
        request(model_name="identity-bool", inputs=[flags], raw_input_contents=[bytes(4)]),
        request(model_name="add-one", inputs=[shared], outputs=[wanted(name="y", parameters=place)]),
        request(model_name="dynamic-batch", inputs=[shared]),
    ]
