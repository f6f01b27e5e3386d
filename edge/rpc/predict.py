"""Predict, from the bytes of a request to those of its answer; ModelInfer, its other dialect, takes the same way.

The way of a call, step by step, each in its module of this folder unless another is named:

    CoreServer._requested                 core       a call has begun: gRPC is asked for its message
        Receiving.begin                    receiving  at once, or when there is room for it
    Call._received                        core       the thread that took the message from gRPC serves the call
        _guarded                          server     errors become statuses, and are counted
        Predictions.predict               here
            PlanBook.plan                 plans      what the request means: known by its template, or parsed and bound
            Scheduler.try_acquire         serving    an instance of the model; if all are busy the call waits (_wait)
            Predictions._infer            here       where each input lies: in the request, or in shared memory (edge.shm)
                Session.run               engine     ended with the call, or when it is stuck (serving.scheduler)
            ResponseEncoder.encode        codec      the only copy of the outputs
    Call.answer                           core       the answer is handed to gRPC
    _Inference.end                        here       the instance and shared memory are free again

The last step comes after the answer, while the client reads it, unless other calls wait for the model. `_infer_plain` is the same
way for most requests of quick models, where only the instance and System V segments have to be given back. A call that is not
quick (edge.rpc.core) steps aside on its way. With `edge_rpc_server` "grpc" the steps of `core` are those of `fallback`.
"""

import threading
import traceback
from collections.abc import Iterable, Sequence
from functools import partial

from edge.engine.engine import Output
from edge.engine.lending import ALIGNMENT_BYTES
from edge.engine.placement import Placement
from edge.errors import (
    CallEndedError,
    DeadlineError,
    EdgeError,
    InferenceEndedError,
    InferenceError,
    ModelGoneError,
    QueueFullError,
    RegionNotFoundError,
    SharedMemoryError,
)
from edge.rpc import status
from edge.rpc.plans import Plan, PlanBook, SharedInput, is_lent
from edge.rpc.unread import LARGE_BYTES
from edge.rpc.watching import LARGE_COPY_BYTES, HandOver, Watched, Watching
from edge.serving.binding import RegionRange, SegmentRange
from edge.serving.caller import Caller
from edge.serving.loading import LoadedModel
from edge.serving.scheduler import End, Scheduler, Seat
from edge.shm.buffers import Buffer
from edge.shm.posix import Loan, Regions
from edge.shm.sysv import Attachment, SegmentReader
from edge.tensors import Data
from edge.text import shown

ENGINE_FAULTS = (InferenceError, InferenceEndedError)
MAX_WAITING_CALLS = 96  # Predict calls of all models together; each holds one of the server's 128 threads


class Predictions:
    """Answers the requests of one dialect: those that its book of plans can read."""

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

    def predict(self, raw: bytes, caller: Caller) -> bytes:
        """[P]"""
        if len(raw) > LARGE_COPY_BYTES:
            caller.step_aside()
        while True:
            try:
                plan = self._plans.plan(raw, caller)
                scheduler = plan.model.scheduler
                seat = scheduler.try_acquire()
                quick = scheduler.quick and plan.copied_bytes <= LARGE_COPY_BYTES
                if quick and plan.plain and seat is not None:
                    return self._infer_plain(plan, seat, raw, caller)
                inference = _Inference(self, scheduler, seat or self._wait(plan.model, caller))
                break
            except ModelGoneError:  # since it was looked up: the name means another model now, or none (W-2)
                continue
        try:
            if not quick:
                inference.core = self.placement.begin()
            # The outputs are the session's own memory, which its next call overwrites: nothing may keep them.
            if plan.watch is None:
                answer = plan.encoder.encode(self._infer(inference, plan, raw, caller, quick=quick))
            else:
                answer = self._infer_watched(inference, plan, raw, caller, quick=quick)
        except BaseException as error:
            self._end_failed(inference, plan, raw, caller, error)
            raise
        if scheduler.waiting and len(answer) <= LARGE_BYTES:
            inference.end()
        else:  # while the client has its answer to read; a large one may have to wait for room first
            caller.after_answer(inference.end)
        return answer

    def _infer_plain(self, plan: Plan, seat: Seat, raw: bytes, caller: Caller) -> bytes:
        """The answer to a plain request (`Plan.plain`) of a quick model: nothing is given back but the instance and segments."""
        scheduler = plan.model.scheduler
        attached: list[Attachment] = []
        try:
            data = plan.data(raw)
            for position, segment, size in plan.segments:
                data[position] = self._segment(attached, segment, size)
            try:
                # The outputs are the session's own memory, as in `predict`.
                answer = plan.encoder.encode(seat.session.run(data, plan.shapes))
            except ENGINE_FAULTS as error:
                raise self._fault(plan, data, seat, caller, error) from None
        except BaseException as error:
            self._end_failed(_Inference(self, scheduler, seat, attached), plan, raw, caller, error)
            raise
        end = partial(self._give_back, seat, attached) if attached else seat.answered
        if scheduler.waiting and len(answer) <= LARGE_BYTES:
            end()
        else:
            caller.after_answer(end)
        return answer

    def _give_back(self, seat: Seat, attached: Iterable[Attachment]) -> None:
        for attachment in attached:
            self.segments.give_back(attachment)
        seat.answered()

    def _fault(self, plan: Plan, data: Sequence[Data], seat: Seat, caller: Caller, error: EdgeError) -> EdgeError:
        """The error that the caller gets for one of the engine's; a model on trial has its inputs kept, to compare versions (W-6)."""
        calls = plan.model.remarks.failed_calls
        if calls is not None and seat.end is not End.CALL:
            calls.keep(data, plan.shapes)
        return plan.model.scheduler.why_ended(seat, caller) if isinstance(error, InferenceEndedError) else error

    def _end_failed(
        self, inference: "_Inference", plan: Plan, raw: bytes, caller: Caller, error: BaseException
    ) -> None:
        """Count a call that failed, capture it if a policy says so, and give everything back."""
        traceback.clear_frames(error.__traceback__)  # they may keep outputs
        if isinstance(error, SharedMemoryError | RegionNotFoundError):
            plan.model.remarks.say_refused(error)
        plan.model.remarks.count_failed(status.name_of(error))
        if plan.watch is not None:
            self._capture_failed(inference, plan, raw, caller, error)
        inference.end(done=False)

    def _infer_watched(self, inference: "_Inference", plan: Plan, raw: bytes, caller: Caller, *, quick: bool) -> bytes:
        """The answer of a model with a capture policy, which decides on the call before the answer is sent (K-2)."""
        outputs = self._infer(inference, plan, raw, caller, quick=quick)
        answer = plan.encoder.encode(outputs)
        watch, since = plan.watch, inference.seat.since
        if watch is not None and self._watching is not None and (number := watch.number(since)):
            call = Watched(plan, raw, caller, inference.data, since)
            inference.hand_over = self._watching.answered(watch, number, call, outputs, answer)
        inference.data = ()
        return answer

    def _capture_failed(
        self, inference: "_Inference", plan: Plan, raw: bytes, caller: Caller, error: BaseException
    ) -> None:
        """Capture a failed call, if the policy asks for it and the model or the agent failed; a refused request is not captured."""
        code = status.status_of(error)[0]
        if (
            plan.watch is None
            or self._watching is None
            or not (isinstance(error, InferenceError) or code is status.INTERNAL)
        ):
            return
        call = Watched(plan, raw, caller, inference.data, inference.seat.since)
        inference.hand_over = self._watching.failed(plan.watch, call, code.name)

    def _wait(self, model: LoadedModel, caller: Caller) -> Seat:
        """An instance of a busy model, after waiting in its queue.

        Raises:
            QueueFullError, DeadlineError, CallEndedError, ModelGoneError: as `Scheduler.acquire`.
            QueueFullError: too many calls wait for all models together.
        """
        try:
            if not self._waiting.acquire(blocking=False):
                raise QueueFullError(
                    f"{MAX_WAITING_CALLS} Predict calls are waiting already, the most this agent lets wait"
                )
            try:
                if not caller.step_aside():  # waiting on this thread would keep every other call waiting
                    raise QueueFullError(
                        f"model {shown(model.name)} is busy, and no thread is left to serve other calls while this one waits for it"
                    )
                return model.scheduler.acquire(caller)
            finally:
                self._waiting.release()
        except (QueueFullError, DeadlineError, CallEndedError) as error:
            model.remarks.count_failed(status.name_of(error))
            raise

    def _infer(
        self, inference: "_Inference", plan: Plan, raw: bytes, caller: Caller, *, quick: bool
    ) -> Sequence[Output]:
        """The outputs of the inference, in the session's memory.

        A call that is not quick steps aside right before the engine runs: the engine gives up the interpreter lock, so the thread
        that is woken finds it free.
        """
        data = plan.data(raw)
        for item in plan.shared:
            segment = item.segment
            if isinstance(segment, RegionRange):
                data[item.position] = self._region(inference, plan, item, segment, caller)
            else:
                data[item.position] = self._segment(inference.attached, segment, item.size)
        seat = inference.seat
        if not quick:
            caller.step_aside()
            inference.scheduler.end_with(seat, caller)
        if plan.watch is not None:
            inference.data = data
        try:
            return seat.session.run(data, plan.shapes)
        except ENGINE_FAULTS as error:
            raise self._fault(plan, data, seat, caller, error) from None  # while shared memory is still lent
        finally:
            if inference.loans and (fault := inference.return_loans()):
                raise fault from None

    def _segment(self, attached: list[Attachment], segment: SegmentRange, size: int) -> Data:
        """An input in a segment, which is attached for as long as the call needs it."""
        attachment = self.segments.take(segment.segment_id, segment.offset, size)
        attached.append(attachment)
        return attachment.data(segment.offset, size)

    def _region(
        self, inference: "_Inference", plan: Plan, item: SharedInput, part: RegionRange, caller: Caller
    ) -> Data:
        """An input in POSIX shared memory: read in place where it may be, else copied."""
        if is_lent(item, plan.model, plan.watch):
            loan = self.regions.lend(part.region, part.offset, item.size, ALIGNMENT_BYTES)
            if loan is not None:
                inference.loans = (*inference.loans, loan)
                return loan.lent
        if item.size > LARGE_COPY_BYTES:
            caller.step_aside()
        buffer = self.regions.read(part.region, part.offset, item.size)
        inference.buffers = (*inference.buffers, buffer)
        return buffer.lent(item.size)


class _Inference:
    """What one call holds while it infers: an instance of the model, a processor core, and shared memory."""

    __slots__ = ("attached", "buffers", "core", "data", "hand_over", "loans", "predictions", "scheduler", "seat")

    def __init__(
        self, predictions: Predictions, scheduler: Scheduler, seat: Seat, attached: list[Attachment] | None = None
    ) -> None:
        self.predictions, self.scheduler, self.seat = predictions, scheduler, seat
        self.core: int | None = None
        self.attached = attached or []
        self.buffers: tuple[Buffer, ...] = ()
        self.loans: tuple[Loan, ...] = ()
        self.hand_over: HandOver | None = None  # passes the call's capture on
        self.data: Sequence[Data] = ()  # the model's inputs, where a policy may capture them

    def return_loans(self) -> SharedMemoryError | None:
        """Give back the regions that are read in place; an error if a client truncated one meanwhile."""
        loans, self.loans = self.loans, ()
        faults = [self.predictions.regions.take_back(loan) for loan in loans]
        return next(filter(None, faults), None)

    def end(self, *, done: bool = True) -> None:
        """Give everything back, then hand over the capture if there is one; `done`: the model answered."""
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
