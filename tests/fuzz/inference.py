"""Requests of the Open Inference Protocol, answered by the agent's own handlers on real models [O-8]."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edge.clock import SystemClock
from edge.engine.engine import SessionOptions
from edge.engine.tflite import TfliteEngine
from edge.errors import EdgeError, ModelNotFoundError, PackageNotFoundError
from edge.rpc import status
from edge.rpc._generated import open_inference_pb2 as pb
from edge.rpc.oip.codec import raw_ranges
from edge.rpc.oip.servicer import Handler, InferenceServicer
from edge.rpc.servicer import Servicer
from edge.serving.aliases import ModelState
from edge.serving.binding import InputBinder
from edge.serving.remarks import Remarks
from edge.serving.scheduler import Scheduler
from edge.shm.posix import Regions
from edge.shm.sysv import SegmentReader

DATA = Path(__file__).parents[1] / "data"
MODELS = ("add_one", "mixed_types", "scalar", "identity_bool")  # with fixed shapes: others are tried in a process first
TOKENS = (b"add_one", b"mixed_types", b"FP32", b"INT8", b"BYTES", b"\x3a\x10", b"\x2a\x04", b"\x18\xff\xff\xff\xff\x0f",
          b"\x80" * 10, b"\xff" * 5, b"\x32\x05url", b"\x0b", b"\x0c",
          b"shared_memory_offset")  # fmt: skip


class Call:
    """A caller that waits for ever."""

    def time_remaining(self) -> None:
        """There is no deadline."""

    def step_aside(self) -> bool:
        """Nobody else is served here."""
        return True

    def after_answer(self, callback: Callable[[], None]) -> None:
        callback()

    def add_callback(self, callback: object) -> bool:
        return True


class _Registry:
    """The models of MODELS; none comes or goes."""

    def __init__(self) -> None:
        self._models = {name: _model(name) for name in MODELS}

    def get(self, name: str) -> Any:
        if name not in self._models:
            raise ModelNotFoundError.of(name)
        return self._models[name]

    def models(self) -> tuple[Any, ...]:
        return tuple(self._models.values())

    def states(self) -> list[tuple[str, ModelState, Any]]:
        return [(name, ModelState.READY, model) for name, model in self._models.items()]

    def on_gone(self, callback: object) -> None:
        """None goes."""


class _Models:
    """What loads them: nothing more, and nothing goes."""

    is_ready = True

    def replace(self, name: str, url_of: Callable[[], str], caller: object) -> None:
        raise PackageNotFoundError(url_of())

    def unload(self, name: str) -> None:
        """It stays."""

    def released(self, name: str) -> bool:
        return False


def _model(name: str) -> Any:
    session = TfliteEngine().open(str(DATA / f"{name}.tflite"), SessionOptions())
    return SimpleNamespace(
        name=name,
        url=f"/models/{name}",
        manifest=SimpleNamespace(model_version="1.0", engine="tflite"),
        binder=InputBinder(session.inputs),
        inputs=session.inputs,
        outputs=session.outputs,
        scheduler=Scheduler(name, [session], queue_calls=1, clock=SystemClock()),
        instances=1,
        borrows=frozenset(),
        engine_name="tflite",
        remarks=Remarks(name),
        shape_trials=None,
    )


@cache
def handlers() -> tuple[Handler, ...]:
    """Every handler of the service."""
    registry: Any = _Registry()
    captures: Any = None
    models: Any = _Models()
    servicer = Servicer(
        registry,
        captures,
        SegmentReader(SystemClock()),
        models=models,
        max_message_bytes=1 << 20,
        describe=lambda: None,
        regions=Regions(SystemClock()),
    )
    made = InferenceServicer(servicer, registry, models, SystemClock(), version="1")
    return (*made.quick_calls().values(), *made.other_calls().values())


def seeds() -> tuple[bytes, ...]:
    """Good requests."""
    tensor = pb.ModelInferRequest.InferInputTensor
    raw = tensor(name="x", datatype="FP32", shape=(1, 4))
    typed = tensor(name="x", datatype="FP32", shape=(1, 4), contents=pb.InferTensorContents(fp32_contents=[1, 2, 3, 4]))
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name="y")
    parameters = {"sequence_id": pb.InferParameter(int64_param=1), "a": pb.InferParameter(string_param="b")}
    config = pb.ModelRepositoryParameter(string_param='{"parameters": {"url": {"string_value": "/models/m"}}}')
    region = {
        "shared_memory_region": pb.InferParameter(string_param="r"),
        "shared_memory_byte_size": pb.InferParameter(int64_param=16),
    }
    made = (
        pb.ModelInferRequest(model_name="add_one", inputs=[raw], raw_input_contents=[bytes(16)]),
        pb.ModelInferRequest(model_name="add_one", id="1", inputs=[typed], outputs=[wanted], parameters=parameters),
        pb.ModelInferRequest(model_name="identity_bool", inputs=[tensor(name="x", datatype="BOOL", shape=(1, 4))]),
        pb.ModelMetadataRequest(name="mixed_types", version="1.0"),
        pb.RepositoryIndexRequest(ready=True),
        pb.RepositoryModelLoadRequest(model_name="m", parameters={"config": config}),
        pb.RepositoryModelUnloadRequest(model_name="scalar"),
        pb.SystemSharedMemoryRegisterRequest(name="r", key="/none", offset=0, byte_size=16),
        pb.ModelInferRequest(
            model_name="add_one",
            inputs=[tensor(name="x", datatype="FP32", shape=(1, 4), parameters=region)],
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="y", parameters=region)],
        ),
    )
    return tuple(one.SerializeToString() for one in made)


def check(data: bytes) -> None:
    """Any bytes are answered or refused by every call, and never as a fault of the agent's own."""
    for handler in handlers():
        with suppress(EdgeError):
            try:
                handler(data, Call())
            except EdgeError as error:
                assert status.status_of(error)[0] is not status.INTERNAL, error
                raise
    for begin, end in raw_ranges(data) or ():
        assert 0 <= begin <= end <= len(data)
