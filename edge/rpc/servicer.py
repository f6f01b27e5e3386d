"""The calls: thin, from request bytes to answer bytes. Errors become statuses in `edge.rpc.server`."""

import logging
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from edge import traceparent
from edge.capture.keeper import Keeper
from edge.capture.record import CaptureRequest
from edge.capture.service import CaptureService
from edge.capture.watch import Watch
from edge.clock import Clock, SystemClock
from edge.deploy.adoption import Models
from edge.engine.engine import Output
from edge.engine.lending import ALIGNMENT_BYTES
from edge.engine.placement import Placement
from edge.errors import (
    CaptureContentError,
    DeadlineError,
    FleetError,
    InferenceError,
    ModelGoneError,
    QueueFullError,
    RegionNotFoundError,
    SharedMemoryError,
)
from edge.rpc import codec, managed, status
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import operations_pb2 as ops
from edge.rpc.calls import step_far_aside
from edge.rpc.incoming import Incoming, check_labels
from edge.rpc.plans import PREDICT, Dialect, Plan, PlanBook, SharedInput, is_lent
from edge.rpc.unread import LARGE_BYTES
from edge.rpc.watching import HandOver, Watched, Watching, watchable
from edge.serving.binding import Part
from edge.serving.loading import LoadedModel
from edge.serving.registry import Registry
from edge.serving.scheduler import Caller, Scheduler, Seat
from edge.shm.buffers import Buffer
from edge.shm.posix import Loan, Regions
from edge.shm.sysv import Attachment, SegmentReader
from edge.tensors import Data
from edge.text import shown

log = logging.getLogger(__name__)

LARGE_REQUEST_BYTES = 256 * 1024  # copying one is not quick
MAX_WAITING_CALLS = 96  # Predict calls of all models together; each holds one of the server's 128 threads


class Predictions:
    """Inferences, from request bytes to answer bytes, for the requests that a book of plans reads."""

    def __init__(
        self,
        plans: PlanBook,
        segments: SegmentReader,
        regions: Regions,
        *,
        placement: Placement,
        waiting: threading.BoundedSemaphore,
        watching: Watching | None,
    ) -> None:
        self._plans = plans
        self._watching = watching
        self.segments = segments
        self.regions = regions
        self.placement = placement
        self._waiting = waiting

    def predict(self, raw: bytes, context: Caller) -> bytes:
        """[P]"""
        if len(raw) > LARGE_REQUEST_BYTES:
            context.step_aside()
        while True:
            try:
                plan = self._plans.plan(raw, context)
                scheduler = plan.model.scheduler
                quick = scheduler.quick and plan.copied_bytes <= LARGE_REQUEST_BYTES
                stay = _Stay(self, scheduler, scheduler.try_acquire() or self._queue(plan.model, context))
                break
            except ModelGoneError:  # since it was looked up: the name means another model now, or none (W-2)
                continue
        try:
            if not quick:
                stay.core = self.placement.begin()
            # The outputs are the session's own memory, and the next call's as well: nothing may hold them.
            if plan.watch is None:
                answer = plan.encoder.encode(self._run(stay, plan, raw, context, quick=quick))
            else:
                answer = self._watched(stay, plan, raw, context, quick=quick)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they may hold outputs
            if isinstance(error, SharedMemoryError | RegionNotFoundError):
                plan.model.remarks.say_refused(error)
            plan.model.remarks.count_failed(status.name_of(error))
            if plan.watch is not None:
                self._failed(stay, plan, raw, context, error)
            stay.end(done=False)
            raise
        if scheduler.waiting and len(answer) <= LARGE_BYTES:
            stay.end()
        else:  # while the client has its answer to read; a large one may have to wait for room first
            context.after_answer(stay.end)
        return answer

    def _watched(self, stay: "_Stay", plan: Plan, raw: bytes, context: Caller, *, quick: bool) -> bytes:
        """The answer of a model that is watched: whether to capture the call is known before it leaves (K-2)."""
        outputs = self._run(stay, plan, raw, context, quick=quick)
        answer = plan.encoder.encode(outputs)
        watch, since = plan.watch, stay.seat.since
        if watch is not None and self._watching is not None and (number := watch.number(since)):
            call = Watched(plan, raw, context, stay.data, since)
            stay.hand_over = self._watching.answered(watch, number, call, outputs, answer)
        stay.data = ()
        return answer

    def _failed(self, stay: "_Stay", plan: Plan, raw: bytes, context: Caller, error: BaseException) -> None:
        """A call ended in an error: what the model or the agent failed on may be captured, what was refused is not."""
        code = status.status_of(error)[0]
        if (
            plan.watch is None
            or self._watching is None
            or not (isinstance(error, InferenceError) or code is status.INTERNAL)
        ):
            return
        call = Watched(plan, raw, context, stay.data, stay.seat.since)
        stay.hand_over = self._watching.failed(plan.watch, call, code.name)

    def _queue(self, model: LoadedModel, caller: Caller) -> Seat:
        try:
            if not self._waiting.acquire(blocking=False):
                raise QueueFullError(
                    f"{MAX_WAITING_CALLS} Predict calls are waiting already, the most this agent lets wait"
                )
            try:
                if not caller.step_aside():  # whoever waited for the model now would keep all others waiting too
                    raise QueueFullError(
                        f"model {shown(model.name)} is busy, and no thread is left to serve other calls while this one waits for it"
                    )
                return model.scheduler.acquire(caller)
            finally:
                self._waiting.release()
        except (QueueFullError, DeadlineError) as error:
            model.remarks.count_failed(status.name_of(error))
            raise

    def _run(self, stay: "_Stay", plan: Plan, raw: bytes, context: Caller, *, quick: bool) -> Sequence[Output]:
        """Infer; unless it is quick it steps aside last of all: whom that wakes then finds the interpreter lock free."""
        data = plan.data(raw)
        for item in plan.shared:
            segment = item.segment
            if isinstance(segment, Part):
                data[item.position] = self._part(stay, plan, item, segment, context)
                continue
            attachment = self.segments.take(segment.segment_id, segment.offset, item.size)
            stay.attached.append(attachment)
            data[item.position] = attachment.data(segment.offset, item.size)
        if not quick:
            context.step_aside()
        if plan.watch is not None:
            stay.data = data
        try:
            return stay.seat.session.run(data, plan.shapes)
        except InferenceError:
            if (calls := plan.model.remarks.failed_calls) is not None:  # while shared memory is still lent
                calls.keep(data, plan.shapes)
            raise
        finally:
            if stay.loans and (fault := stay.return_loans()):
                raise fault from None

    def _part(self, stay: "_Stay", plan: Plan, item: SharedInput, part: Part, context: Caller) -> Data:
        """An input in a client's file, where it lies or copied."""
        if is_lent(item, plan.model, plan.watch):
            loan = self.regions.lend(part.region, part.offset, item.size, ALIGNMENT_BYTES)
            if loan is not None:
                stay.loans = (*stay.loans, loan)
                return loan.lent
        if item.size > LARGE_REQUEST_BYTES:
            context.step_aside()
        buffer = self.regions.read(part.region, part.offset, item.size)
        stay.buffers = (*stay.buffers, buffer)
        return buffer.lent(item.size)


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

    def predictions(self, dialect: Dialect) -> "Predictions":
        """Inferences for requests of a dialect; all dialects share one bound on calls that wait."""
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

    def load_model(self, raw: bytes, context: Caller) -> bytes:
        """[L]"""
        step_far_aside(context)
        request = codec.parse(pb.LoadModelRequest, raw)
        model = self._models.load(codec.model_name(request.name, request.handle), request.url, context)
        return pb.LoadModelResponse(model=codec.model_message(model)).SerializeToString()

    def unload_model(self, raw: bytes, context: Caller) -> bytes:
        """[U]"""
        request = codec.parse(pb.UnLoadModelRequest, raw)
        self._models.unload(codec.model_name(request.name, request.handle))
        return b""  # an UnLoadModelResponse has no fields

    def list_models(self, raw: bytes, context: Caller) -> bytes:
        """[LM] Whatever the request holds: it never fails."""
        models, answer = self._list
        if models is not self._registry.models():
            models = self._registry.models()
            answer = pb.ListModelsResponse(models=[codec.model_message(model) for model in models]).SerializeToString()
            self._list = (models, answer)
        return answer

    def describe_model(self, raw: bytes, context: Caller) -> bytes:
        """[D]"""
        request = codec.parse(pb.DescribeModelRequest, raw)
        model = self._registry.get(codec.model_name(request.name, request.handle))
        return pb.DescribeModelResponse(model=codec.model_message(model)).SerializeToString()

    def capture_data(self, raw: bytes, context: Caller) -> bytes:
        """[C]"""
        request, contents = codec.parse_in_place(pb.CaptureDataRequest, raw)
        self._captures.check_id(request.capture_id)
        model = self._registry.get(codec.model_name(request.model_name, request.model_handle))
        at = request.inference_timestamp
        seconds = at.seconds + at.nanos / 1e9
        then = self._registry.as_of(model, seconds or None)
        self._captures.check_new(request.capture_id, seconds or None)
        incoming = Incoming(model, self.segments, self._max_message_bytes, contents)
        try:
            check_labels(request)
            self._captures.submit(
                CaptureRequest(
                    model_name=then.manifest.model_name,
                    model_version=then.manifest.model_version,
                    capture_id=request.capture_id,
                    inference_time=seconds or None,
                    input_tensors=incoming.tensors(request.input_tensors, then.inputs),
                    output_tensors=incoming.tensors(request.output_tensors, then.outputs),
                    inputs=incoming.auxiliary(request.inputs),
                    outputs=incoming.auxiliary(request.outputs),
                    traceparent=traceparent.read(context.metadata(traceparent.KEY)),
                )
            )
        except (CaptureContentError, SharedMemoryError) as error:
            model.remarks.say_refused(error)
            raise
        if incoming.mislabelled:
            model.remarks.count_mislabelled()
        return b""  # a CaptureDataResponse has no fields

    def capture_status(self, raw: bytes, context: Caller) -> bytes:
        """[G]"""
        request = codec.parse(pb.GetCaptureDataStatusRequest, raw)
        state = self._captures.status(request.capture_id)
        return pb.GetCaptureDataStatusResponse(status=int(state)).SerializeToString()  # type: ignore[arg-type]

    def reset_state(self, raw: bytes, context: Caller) -> bytes:
        """Let a model forget the state it keeps."""
        self._registry.reset_state(codec.parse(ops.ResetStateRequest, raw).name, context)
        return b""  # a ResetStateResponse has no fields

    def apply_models(self, raw: bytes, context: Caller) -> bytes:
        """Bring about what is declared."""
        step_far_aside(context)
        request = codec.parse(ops.ApplyModelsRequest, raw)
        done = self._models.deployments.apply(list(request.names), context, retry=request.retry)
        return ops.ApplyModelsResponse(
            models=[managed.message(self._models, self._registry, one.name, one) for one in done]
        ).SerializeToString()

    def rollback_model(self, raw: bytes, context: Caller) -> bytes:
        """Have the version before serve again."""
        step_far_aside(context)
        one = self._models.deployments.rollback(codec.parse(ops.RollbackModelRequest, raw).name, context)
        message: bytes = managed.message(self._models, self._registry, one.name, one).SerializeToString()
        return message

    def check_fleet(self, raw: bytes, context: Caller) -> bytes:
        """Look for news of the fleet."""
        step_far_aside(context)
        request = codec.parse(ops.CheckFleetRequest, raw)
        if self._check_fleet is None:
            raise FleetError("the agent is in no fleet: its configuration has no edge_fleet_root")
        message: bytes = self._check_fleet(getattr(request, "from"), context).SerializeToString()
        return message

    def get_status(self, raw: bytes, context: Caller) -> bytes:
        """The state of the agent for operators."""
        codec.parse(ops.GetStatusRequest, raw)
        message: bytes = self._describe().SerializeToString()
        return message


class _Stay:
    """A call's time on a model: its seat, the core that its inference began on, the shared memory that it reads."""

    __slots__ = ("attached", "buffers", "core", "data", "hand_over", "loans", "predictions", "scheduler", "seat")

    def __init__(self, predictions: Predictions, scheduler: Scheduler, seat: Seat) -> None:
        self.predictions, self.scheduler, self.seat = predictions, scheduler, seat
        self.core: int | None = None
        self.attached: list[Attachment] = []
        self.buffers: tuple[Buffer, ...] = ()
        self.loans: tuple[Loan, ...] = ()
        self.hand_over: HandOver | None = None  # to capture the call
        self.data: Sequence[Data] = ()  # what the model was given, where the call is watched

    def return_loans(self) -> SharedMemoryError | None:
        """Nothing reads clients' files any more; what to say where one was cut short meanwhile."""
        loans, self.loans = self.loans, ()
        faults = [self.predictions.regions.take_back(loan) for loan in loans]
        return next(filter(None, faults), None)

    def end(self, *, done: bool = True) -> None:
        """Give everything back; `done` where the model answered."""
        if self.loans:
            self.return_loans()
        for attachment in self.attached:
            self.predictions.segments.give_back(attachment)
        for buffer in self.buffers:
            self.predictions.regions.buffers.give_back(buffer)
        if self.core is not None:
            self.predictions.placement.end(self.core)
        self.scheduler.release(self.seat, done=done)
        if self.hand_over is not None:
            self.hand_over()
