"""The calls of the protocol's service: thin, from request bytes to answer bytes."""

from collections.abc import Callable
from typing import Any

from edge.clock import Clock
from edge.deploy.adoption import Models
from edge.errors import NotOfferedError
from edge.rpc import status
from edge.rpc._generated import open_inference_pb2 as pb
from edge.rpc.calls import Stream
from edge.rpc.codec import parse
from edge.rpc.oip import codec, facts
from edge.rpc.oip.regions import RegionCalls
from edge.rpc.oip.repository import Repository
from edge.rpc.servicer import Servicer
from edge.serving.caller import Caller
from edge.serving.loading import LoadedModel
from edge.serving.registry import Registry

# What other servers offer beside the protocol, and why this one does not (O-11).
NOT_OFFERED = {
    "ModelStreamInfer": "streams are not offered: no model here answers a request more than once; call ModelInfer",
    **dict.fromkeys(
        ("CudaSharedMemoryStatus", "CudaSharedMemoryRegister"),
        "CUDA shared memory is not offered: inputs are read by the processor",
    ),
    "TraceSetting": "traces are not offered",
    "LogSettings": "the log is set by the agent's configuration alone",
}
SERVER_NAME = "sagemaker-edge-agent"
EXTENSIONS = ("model_configuration", "model_repository", "statistics", "system_shared_memory")

Handler = Callable[[bytes, Caller], bytes]


class InferenceServicer:
    """The GRPCInferenceService, on the models that the Agent service has."""

    def __init__(self, servicer: Servicer, registry: Registry, models: Models, clock: Clock, *, version: str) -> None:
        self._registry = registry
        self._clock = clock
        self._models = models
        self._repository = Repository(registry, models)
        self._regions = RegionCalls(servicer.regions)
        self.model_infer = servicer.predictions(codec.dialect(servicer.regions)).predict
        self._server: bytes = pb.ServerMetadataResponse(
            name=SERVER_NAME, version=version, extensions=EXTENSIONS
        ).SerializeToString()

    def quick_calls(self) -> dict[str, Handler]:
        """The calls, by their names, that are over at once, or step aside by themselves."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
            "ModelConfig": self.model_config,
            "CudaSharedMemoryUnregister": _nothing,
            **{name: not_offered(name) for name in NOT_OFFERED if name != "ModelStreamInfer"},
        }

    def other_calls(self) -> dict[str, Handler]:
        """The calls that may take longer."""
        return {
            "ModelStatistics": self.model_statistics,
            "SystemSharedMemoryStatus": self._regions.status,
            "SystemSharedMemoryRegister": self._regions.register,
            "SystemSharedMemoryUnregister": self._regions.unregister,
            "RepositoryIndex": self._repository.index,
            "RepositoryModelLoad": self._repository.load,
            "RepositoryModelUnload": self._repository.unload,
        }

    def server_live(self, raw: bytes, caller: Caller) -> bytes:
        """Whoever answers lives."""
        parse(pb.ServerLiveRequest, raw)
        return _LIVE

    def server_ready(self, raw: bytes, caller: Caller) -> bytes:
        """Whether what is to serve from the start does, as the empty name's health says (M-4)."""
        parse(pb.ServerReadyRequest, raw)
        return _serialised(pb.ServerReadyResponse(ready=self._models.is_ready))

    def server_metadata(self, raw: bytes, caller: Caller) -> bytes:
        """Name, version, extensions."""
        parse(pb.ServerMetadataRequest, raw)
        return self._server

    def model_ready(self, raw: bytes, caller: Caller) -> bytes:
        """Whether a model serves; one that is not known does not."""
        request = parse(pb.ModelReadyRequest, raw)
        ready = any(
            model.name == request.name and request.version in ("", model.manifest.model_version)
            for model in self._registry.models()
        )
        return _serialised(pb.ModelReadyResponse(ready=ready))

    def model_metadata(self, raw: bytes, caller: Caller) -> bytes:
        """Inputs and outputs of a model."""
        request = parse(pb.ModelMetadataRequest, raw)
        return _serialised(facts.metadata(self._model(request)))

    def model_config(self, raw: bytes, caller: Caller) -> bytes:
        """How a model is served."""
        request = parse(pb.ModelConfigRequest, raw)
        return _serialised(pb.ModelConfigResponse(config=facts.config(self._model(request))))

    def model_statistics(self, raw: bytes, caller: Caller) -> bytes:
        """What was counted of a model, or of all."""
        request = parse(pb.ModelStatisticsRequest, raw)
        models = [self._model(request)] if request.name else self._registry.models()
        return _serialised(
            pb.ModelStatisticsResponse(model_stats=[facts.statistics(model, self._clock) for model in models])
        )

    def _model(self, request: Any) -> LoadedModel:
        model = self._registry.get(request.name)
        codec.check_version(model, request.version)
        return model


def _nothing(raw: bytes, caller: Caller) -> bytes:
    """Unregister regions of which there are none, as clients do that clean up; the answer has no fields."""
    return b""


def not_offered(name: str) -> Handler:
    """The handler of a call in NOT_OFFERED."""

    def refuse(raw: bytes, caller: Caller) -> bytes:
        raise NotOfferedError(f"{name}: {NOT_OFFERED[name]}")

    return refuse


class NoStream:
    """The handler of a stream in NOT_OFFERED."""

    goes_on = False

    def __init__(self, name: str, stream: Stream) -> None:
        self._name, self._stream = name, stream

    def message(self, raw: bytes) -> None:
        """Refuse it, whatever it is."""
        self.half_closed()

    def half_closed(self) -> None:
        """Refuse it."""
        self._stream.finish(status.UNIMPLEMENTED, f"{self._name}: {NOT_OFFERED[self._name]}")

    def closed(self) -> None:
        """Nothing was kept."""


_LIVE: bytes = pb.ServerLiveResponse(live=True).SerializeToString()


def _serialised(message: Any) -> bytes:
    raw: bytes = message.SerializeToString()
    return raw
