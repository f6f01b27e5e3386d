"""The calls of the Agent service and the Operations service, but for Predict (`edge.rpc.predict`).

Each takes the request's bytes and returns the answer's. What it raises becomes a status in `edge.rpc.server`.
"""

import threading
from collections.abc import Callable
from typing import Any

from edge import traceparent
from edge.capture import record
from edge.capture.keeper import Keeper
from edge.capture.record import CaptureRequest
from edge.capture.service import CaptureService
from edge.capture.watch import Watch
from edge.clock import Clock, SystemClock
from edge.deploy.adoption import Models
from edge.engine.placement import Placement
from edge.errors import CaptureContentError, FleetError, SharedMemoryError
from edge.rpc import codec, managed
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import operations_pb2 as ops
from edge.rpc.calls import step_far_aside
from edge.rpc.capture_request import CaptureReader, check_labels
from edge.rpc.plans import PREDICT, Dialect, PlanBook
from edge.rpc.predict import MAX_WAITING_CALLS, Predictions
from edge.rpc.watching import Watching, watchable
from edge.serving.caller import Caller
from edge.serving.loading import LoadedModel
from edge.serving.registry import Registry
from edge.shm.posix import Regions
from edge.shm.sysv import SegmentReader


class Servicer:
    """The Agent service and the Operations service."""

    def __init__(
        self,
        registry: Registry,
        captures: CaptureService,
        segments: SegmentReader,
        *,
        models: Models,
        max_message_bytes: int,
        describe: Callable[[], Any],
        regions: Regions,
        keeper: Keeper | None = None,
        clock: Clock | None = None,
        check_fleet: Callable[[str, Caller], Any] | None = None,
    ) -> None:
        """`keeper`: who keeps the policies of captures; None where there are none."""
        self._registry = registry
        self._models = models
        self._captures = captures
        self.segments = segments
        self.regions = regions
        self._max_message_bytes = max_message_bytes
        self._describe = describe
        self._check_fleet = check_fleet
        self._keeper, self._clock = keeper, clock or SystemClock()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING_CALLS)
        self._placement = Placement()
        self._books: list[PlanBook] = []
        self.predict = self.predictions(PREDICT).predict
        self._list: tuple[tuple[LoadedModel, ...], bytes] = ((), b"")
        registry.on_gone(self._forget)
        if keeper is not None:
            keeper.on_change(self._forget)

    def _forget(self) -> None:
        """A model went, or policies changed: nothing here may keep them."""
        for book in self._books:
            book.forget()
        if self._keeper is not None:
            self._keeper.keep_only(lambda: {model.name: model.outputs for model in self._registry.models()})
        self._list = ((), b"")

    def predictions(self, dialect: Dialect) -> Predictions:
        """What answers the requests of a dialect; all dialects share one bound on calls that wait."""
        keeper = self._keeper
        book = PlanBook(self._registry, dialect, self._watch)
        self._books.append(book)
        watching = Watching(keeper, self._clock, dialect.answered) if keeper is not None else None
        return Predictions(
            book, self.segments, self.regions, placement=self._placement, waiting=self._waiting, watching=watching
        )

    def _watch(self, model: LoadedModel) -> Watch | None:
        if self._keeper is None:
            return None
        return self._keeper.watch(watchable(model, lambda: any(one is model for one in self._registry.models())))

    def load_model(self, raw: bytes, caller: Caller) -> bytes:
        """[L]"""
        step_far_aside(caller)
        request = codec.parse(pb.LoadModelRequest, raw)
        model = self._models.load(codec.model_name(request.name, request.handle), request.url, caller)
        return pb.LoadModelResponse(model=codec.model_message(model)).SerializeToString()

    def unload_model(self, raw: bytes, caller: Caller) -> bytes:
        """[U]"""
        request = codec.parse(pb.UnLoadModelRequest, raw)
        self._models.unload(codec.model_name(request.name, request.handle))
        return b""  # an UnLoadModelResponse has no fields

    def list_models(self, raw: bytes, caller: Caller) -> bytes:
        """[LM] Whatever the request holds: it never fails."""
        models, answer = self._list
        if models is not self._registry.models():
            models = self._registry.models()
            answer = pb.ListModelsResponse(models=[codec.model_message(model) for model in models]).SerializeToString()
            self._list = (models, answer)
        return answer

    def describe_model(self, raw: bytes, caller: Caller) -> bytes:
        """[D]"""
        request = codec.parse(pb.DescribeModelRequest, raw)
        model = self._registry.get(codec.model_name(request.name, request.handle))
        return pb.DescribeModelResponse(model=codec.model_message(model)).SerializeToString()

    def capture_data(self, raw: bytes, caller: Caller) -> bytes:
        """[C]"""
        request, contents = codec.parse_in_place(pb.CaptureDataRequest, raw)
        record.check_id(request.capture_id)
        model = self._registry.get(codec.model_name(request.model_name, request.model_handle))
        timestamp = request.inference_timestamp
        inferred = timestamp.seconds + timestamp.nanos / 1e9 or None  # 0: it was not given
        served = self._registry.as_of(model, inferred)
        self._captures.check_new(request.capture_id, inferred)
        reader = CaptureReader(model, self.segments, self._max_message_bytes, contents)
        try:
            check_labels(request)
            self._captures.submit(
                CaptureRequest(
                    model_name=served.manifest.model_name,
                    model_version=served.manifest.model_version,
                    capture_id=request.capture_id,
                    inference_time=inferred,
                    input_tensors=reader.tensors(request.input_tensors, served.inputs),
                    output_tensors=reader.tensors(request.output_tensors, served.outputs),
                    inputs=reader.auxiliary(request.inputs),
                    outputs=reader.auxiliary(request.outputs),
                    traceparent=traceparent.read(caller.metadata(traceparent.KEY)),
                )
            )
        except (CaptureContentError, SharedMemoryError) as error:
            model.remarks.say_refused(error)
            raise
        if reader.mislabelled:
            model.remarks.count_mislabelled()
        return b""  # a CaptureDataResponse has no fields

    def capture_status(self, raw: bytes, caller: Caller) -> bytes:
        """[G]"""
        request = codec.parse(pb.GetCaptureDataStatusRequest, raw)
        state = self._captures.status(request.capture_id)
        return pb.GetCaptureDataStatusResponse(status=int(state)).SerializeToString()  # type: ignore[arg-type]

    def reset_state(self, raw: bytes, caller: Caller) -> bytes:
        """Let a model forget the state it keeps."""
        self._registry.reset_state(codec.parse(ops.ResetStateRequest, raw).name, caller)
        return b""  # a ResetStateResponse has no fields

    def apply_models(self, raw: bytes, caller: Caller) -> bytes:
        """Bring about what is declared."""
        step_far_aside(caller)
        request = codec.parse(ops.ApplyModelsRequest, raw)
        done = self._models.deployments.apply(list(request.names), caller, retry=request.retry)
        return ops.ApplyModelsResponse(
            models=[managed.message(self._models, self._registry, one.name, one) for one in done]
        ).SerializeToString()

    def rollback_model(self, raw: bytes, caller: Caller) -> bytes:
        """Have the version before serve again."""
        step_far_aside(caller)
        one = self._models.deployments.rollback(codec.parse(ops.RollbackModelRequest, raw).name, caller)
        message: bytes = managed.message(self._models, self._registry, one.name, one).SerializeToString()
        return message

    def check_fleet(self, raw: bytes, caller: Caller) -> bytes:
        """Look for news of the fleet."""
        step_far_aside(caller)
        request = codec.parse(ops.CheckFleetRequest, raw)
        if self._check_fleet is None:
            raise FleetError("the agent is in no fleet: its configuration has no edge_fleet_root")
        message: bytes = self._check_fleet(getattr(request, "from"), caller).SerializeToString()
        return message

    def get_status(self, raw: bytes, caller: Caller) -> bytes:
        """The state of the agent for operators."""
        codec.parse(ops.GetStatusRequest, raw)
        message: bytes = self._describe().SerializeToString()
        return message
