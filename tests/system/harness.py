"""The agent under test as a process, and a client of it.

AGENT_COMMAND names the agent (default: this tree's agent.py under this Python), so that the same tests run on the
binaries.
"""

import json
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edge import address
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import operations_pb2 as ops

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "sagemaker_edge_"
START_SECONDS = float(os.environ.get("AGENT_START_SECONDS", "60"))
CALL_SECONDS = float(os.environ.get("AGENT_CALL_SECONDS", "60"))


EMULATED = "AGENT_EMULATED" in os.environ
EVENT_PATIENCE = 6 if EMULATED else 1  # how many times longer an event may take
# How many times less the engine is asked to do: an emulator takes a thousand times longer for products of float32.
ENGINE_SLOWDOWN = 400 if EMULATED else 1


def agent_command() -> list[str]:
    """The words that start the agent under test."""
    given = os.environ.get("AGENT_COMMAND")
    return shlex.split(given) if given else [sys.executable, str(ROOT / "agent.py")]


def client_command() -> list[str]:
    """The words that start the command-line client and packaging tool of the program under test."""
    return agent_command()


def from_source() -> bool:
    """Whether the agent under test is this source tree, not a binary."""
    return "AGENT_COMMAND" not in os.environ


class AgentProcess:
    """A running agent; `command` starts another one than the agent under test."""

    def __init__(
        self, folder: Path, config: Mapping[str, Any], arguments: Sequence[str] = (), command: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.socket = str(folder / "agent.sock")
        self.captures = Path(config.get(PREFIX + "core_capture_data_disk_path", folder / "captures"))
        self.config_path = folder / "config.json"
        # AGENT_SETTINGS: keys and values, as JSON, that every agent of this run gets beside its own.
        self.config_path.write_text(json.dumps({**json.loads(os.environ.get("AGENT_SETTINGS", "{}")), **config}))
        self.log_path = folder / "agent.log"
        self.cwd: Path | None = None  # its working folder, where it is not ours
        self._arguments = list(arguments)
        self._command = list(command) or agent_command()
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    def start(self, *, force: bool = False, env: Mapping[str, str] | None = None) -> "AgentProcess":
        """Start it and wait until its health says SERVING."""
        self.begin(force=force, env=env)
        self.wait_serving()
        return self

    def begin(self, *, force: bool = False, env: Mapping[str, str] | None = None) -> None:
        """Start it, and wait for nothing."""
        command = [*self._command, "-a", self.socket, "-c", str(self.config_path), *self._arguments]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-f"] if force else command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.cwd,
                env={**os.environ, **(env or {})},
            )

    def wait_serving(self) -> None:
        """Wait until the health service answers SERVING, or fail with the agent's log."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            code = self.process.poll() if self.process else None
            assert code is None, f"the agent ended with {code}:\n{self.log}"
            if Path(self.socket).exists():
                with grpc.insecure_channel(address.target(self.socket)) as channel:
                    stub = health_pb2_grpc.HealthStub(channel)
                    try:
                        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                        if answer.status == health_pb2.HealthCheckResponse.SERVING:
                            return
                    except grpc.RpcError:
                        pass
            assert time.monotonic() < deadline, f"the agent does not serve:\n{self.log}"
            selectors.DefaultSelector().select(0.02)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def own_bytes(self) -> int:
        """The memory that it has without the pages of its files, which come and go as the kernel likes."""
        info = psutil.Process(self.pid).memory_info()
        return int(info.rss - info.shared)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def channel(self) -> grpc.Channel:
        """A channel to it, made at first use."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(
                address.target(self.socket),
                options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
            )
        return self._channel

    @property
    def client(self) -> "Client":
        """A client on `channel`."""
        return Client(self.channel)

    def close_channel(self) -> None:
        """Close `channel`; the next use makes a new one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end; returns its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> int:
        """Stop it by SIGTERM; returns its exit code."""
        self.close_channel()
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.close_channel()
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class Client:
    """The calls, by name, on a channel; an error is grpc.RpcError."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(self, method: str, request: Any, answer: Any, timeout: float | None = CALL_SECONDS) -> Any:
        """Any call of the Agent service."""
        return self._channel.unary_unary(
            f"/AWS.SageMaker.Edge.Agent/{method}",
            request_serializer=lambda r: r if isinstance(r, bytes) else r.SerializeToString(),
            response_deserializer=answer.FromString,
        )(request, timeout=timeout)

    def load(self, url: Any, name: str) -> Any:
        """LoadModel."""
        return self.call("LoadModel", pb.LoadModelRequest(url=str(url), name=name), pb.LoadModelResponse).model

    def unload(self, name: str) -> None:
        """UnLoadModel."""
        self.call("UnLoadModel", pb.UnLoadModelRequest(name=name), pb.UnLoadModelResponse)

    def models(self) -> list[Any]:
        """ListModels."""
        return list(self.call("ListModels", pb.ListModelsRequest(), pb.ListModelsResponse).models)

    def describe(self, name: str) -> Any:
        """DescribeModel."""
        return self.call("DescribeModel", pb.DescribeModelRequest(name=name), pb.DescribeModelResponse).model

    def predict(self, name: str, tensors: Sequence[Any], timeout: float | None = CALL_SECONDS) -> list[Any]:
        """Predict."""
        request = pb.PredictRequest(name=name, tensors=tensors)
        return list(self.call("Predict", request, pb.PredictResponse, timeout).tensors)

    def capture(self, **fields: Any) -> None:
        """CaptureData."""
        self.call("CaptureData", pb.CaptureDataRequest(**fields), pb.CaptureDataResponse)

    def capture_status(self, capture_id: str) -> int:
        """GetCaptureDataStatus."""
        request = pb.GetCaptureDataStatusRequest(capture_id=capture_id)
        return int(self.call("GetCaptureDataStatus", request, pb.GetCaptureDataStatusResponse).status)

    def status(self) -> Any:
        """Operations.GetStatus."""
        return self._channel.unary_unary(
            "/edge.v1.Operations/GetStatus",
            request_serializer=ops.GetStatusRequest.SerializeToString,
            response_deserializer=ops.GetStatusResponse.FromString,
        )(ops.GetStatusRequest(), timeout=CALL_SECONDS)

    def wait_captured(self, capture_id: str, seconds: float = 60) -> None:
        """Ask until the capture is SUCCESS."""
        try:
            eventually(lambda: self.capture_status(capture_id) == pb.SUCCESS, seconds)
        except AssertionError:
            state = pb.CaptureDataStatus.Name(self.capture_status(capture_id))
            raise AssertionError(
                f"after {seconds} s capture {capture_id} is {state}: {self.status().captures}"
            ) from None


def eventually(condition: Callable[[], object], seconds: float = 30, what: str = "it holds") -> None:
    """Ask again and again until `condition` is true; fail after `seconds`, which are those of a machine not emulated."""
    deadline = time.monotonic() + seconds * EVENT_PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        selectors.DefaultSelector().select(0.02)


_NUMPY = {
    pb.UINT8: "u1", pb.INT16: "<i2", pb.INT32: "<i4", pb.INT64: "<i8", pb.FLOAT16: "<f2", pb.FLOAT32: "<f4",
    pb.FLOAT64: "<f8", pb.INT8: "i1", pb.BOOL: "?", pb.UINT16: "<u2", pb.UINT32: "<u4", pb.UINT64: "<u8",
}  # fmt: skip


def array_of(tensor: Any) -> np.ndarray[Any, Any]:
    """The numpy array of an answered tensor."""
    metadata = tensor.tensor_metadata
    return np.frombuffer(tensor.byte_data, _NUMPY[metadata.data_type]).reshape(tuple(metadata.shape))


def tensor_of(array: np.ndarray[Any, Any], name: str = "", dtype: int | None = None) -> Any:
    """An inline tensor with metadata."""
    number = dtype if dtype is not None else next(n for n, t in _NUMPY.items() if np.dtype(t) == array.dtype)
    metadata = pb.TensorMetadata(name=name, data_type=number, shape=array.shape)
    return pb.Tensor(tensor_metadata=metadata, byte_data=array.tobytes())


def zeros_for(metadata: Any) -> Any:
    """An inline tensor of zeros for an input that ListModels described."""
    return tensor_of(np.zeros(tuple(metadata.shape), _NUMPY[metadata.data_type]), metadata.name, metadata.data_type)
