"""Captures by policy, at the call: whether to capture it, and what of it (K).

The decision comes before the answer, which tells the capture's id; the record is made afterwards, from the bytes that the
call has anyway. Shared memory is the client's again once it has its answer, so that is copied before.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from edge import traceparent
from edge.capture.keeper import Chosen, Keeper, Sample
from edge.capture.record import ByPolicy, CapturedTensor, CaptureRequest
from edge.capture.summaries import CallCounts, Collector, Watchable, first_rows, spread
from edge.capture.watch import Watch
from edge.clock import Clock
from edge.engine.engine import Output
from edge.rpc.plans import Plan
from edge.serving.caller import Caller
from edge.serving.loading import LoadedModel
from edge.tensors import Data, Lent, TensorSpec

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

log = logging.getLogger(__name__)

CAPTURE_ID_KEY = "edge-capture-id"  # in the trailing metadata of a call that is captured

LARGE_COPY_BYTES = 256 * 1024  # copying more is not quick (edge.rpc.core)

HandOver = Callable[[], None]
Outputs = Callable[[], tuple[CapturedTensor, ...]]


class Watched(NamedTuple):
    """A call on a model that is watched; `data` is what it was given, `since` when it began, on the monotonic clock."""

    plan: Plan
    raw: bytes
    caller: Caller
    data: Sequence[Data]
    since: float


class Watching:
    """Asks the watch of a plan, and hands what it chose to the keeper."""

    def __init__(self, keeper: Keeper, clock: Clock, answered: Callable[[bytes], tuple[CapturedTensor, ...]]) -> None:
        """`answered`: the outputs that an answer has."""
        self._keeper = keeper
        self._clock = clock
        self._outputs_of = answered

    def answered(
        self, watch: Watch, number: int, call: Watched, outputs: Sequence[Output], answer: bytes
    ) -> HandOver | None:
        """What hands over what is kept of the call once its answer is sent, if anything is; its outputs are not held.

        `number` is the watch's own for it.
        """
        sample = capture = None
        try:
            collector = watch.collector
            if collector is not None and collector.wants(call.since):
                sample = self._sample(collector, call, outputs)
            if reasons := watch.reasons(number, call.since, call.caller.metadata, outputs):
                capture = self._capture(watch, call, outputs, reasons, answer)
        except Exception:  # of its memory, say: the call has its answer all the same
            log.exception("model %s: a call that was chosen is not captured", watch.alias)
        return partial(_both, sample, capture) if sample and capture else sample or capture

    def _capture(
        self, watch: Watch, call: Watched, outputs: Sequence[Output], reasons: tuple[str, ...], answer: bytes
    ) -> HandOver | None:
        if call.plan.encoder.written_bytes:  # into shared memory, in place of the answer
            return self._promise(watch, call, reasons, partial(tuple, _outputs(call.plan.model, outputs)))
        return self._promise(watch, call, reasons, partial(self._outputs_of, answer), size=len(answer))

    def failed(self, watch: Watch, call: Watched, status: str) -> HandOver | None:
        """As `answered`, of a call that the model failed on; `status` is what its caller gets."""
        try:
            return self._promise(watch, call, ("errors",), tuple, status=status) if watch.errors else None
        except Exception:  # its caller is to get the model's failure, not this one
            log.exception("model %s: a call that was chosen is not captured", watch.alias)
            return None

    def _sample(self, collector: Collector, call: Watched, outputs: Sequence[Output]) -> HandOver | None:
        """Values of the call for the summary of its model; None where there is no room for them."""
        model = call.plan.model
        shared = {item.position for item in call.plan.shared}
        inputs = [
            spread(spec, one.memory if isinstance(one, Lent) else one, copied=position in shared)
            for position, (spec, one) in enumerate(zip(model.inputs, call.data, strict=True))
        ]
        first = [first_rows(spec, output, output.shape) for spec, output in zip(model.outputs, outputs, strict=True)]
        size = len(call.raw) + sum(one.nbytes for one in (*inputs, *first))
        if not self._keeper.reserve_sample(size):
            return None
        return partial(self._keeper.hand_over, Sample(collector, size, inputs, first))

    def _promise(
        self,
        watch: Watch,
        call: Watched,
        reasons: tuple[str, ...],
        outputs: Outputs,
        *,
        size: int = 0,
        status: str = "",
    ) -> HandOver | None:
        """Promise the capture, and tell the caller its id; None where there is no room for it.

        `size` are the bytes that its `outputs` keep, besides those in shared memory.
        """
        plan = call.plan
        shared_bytes = sum(item.size for item in plan.shared)
        size += len(call.raw) + shared_bytes + plan.encoder.written_bytes
        capture_id = str(uuid.uuid4())
        if not self._keeper.reserve(watch, capture_id, size):
            return None
        try:
            if shared_bytes > LARGE_COPY_BYTES:
                call.caller.step_aside()
            inputs = _inputs(call)
        except BaseException:
            self._keeper.withdraw(watch, capture_id, size)
            raise
        call.caller.trail(CAPTURE_ID_KEY, capture_id)
        chosen = ByPolicy(reasons, watch.alias, 1000 * (self._clock.monotonic() - call.since), status)
        make = partial(
            _request,
            names=(plan.model.manifest.model_name, plan.model.manifest.model_version),
            capture_id=capture_id,
            at=self._clock.now(),
            chosen=chosen,
            trace=traceparent.read(call.caller.metadata(traceparent.KEY)),
            inputs=inputs,
            outputs=outputs,
        )
        return partial(self._keeper.hand_over, Chosen(watch, capture_id, size, make))


def watchable(model: LoadedModel, serves: Callable[[], bool]) -> Watchable:
    """A model as it is watched; `serves`: whether its name means it now."""
    names = model.manifest.model_name, model.manifest.model_version
    return Watchable(model.name, *names, model.inputs, model.outputs, partial(_counts, model), serves)


def _counts(model: LoadedModel) -> CallCounts:
    counts = model.scheduler.counts()
    statuses = {"OK": counts.answered, **model.remarks.failed.counts()}
    return CallCounts(statuses, counts.answered_seconds, counts.answered_buckets)


def _both(first: HandOver, second: HandOver) -> None:
    first()
    second()


def _request(
    *,
    names: tuple[str, str],
    capture_id: str,
    at: float,
    chosen: ByPolicy,
    trace: str,
    inputs: tuple[CapturedTensor, ...],
    outputs: Outputs,
) -> CaptureRequest:
    return CaptureRequest(
        model_name=names[0],
        model_version=names[1],
        capture_id=capture_id,
        inference_time=at,
        input_tensors=inputs,
        output_tensors=outputs(),
        chosen=chosen,
        traceparent=trace,
    )


def _inputs(call: Watched) -> tuple[CapturedTensor, ...]:
    """The inputs of a call: parts of its request, and copies of what lies in shared memory."""
    shared = {item.position for item in call.plan.shared}
    given = [one.memory if isinstance(one, Lent) else one for one in call.data]
    return tuple(
        CapturedTensor(spec.name, spec.dtype, _seen(spec, shape), _copy(one) if position in shared else one)
        for position, (spec, shape, one) in enumerate(zip(call.plan.model.inputs, call.plan.shapes, given, strict=True))
    )


def _outputs(model: LoadedModel, outputs: Sequence[Output]) -> tuple[CapturedTensor, ...]:
    """Copies of a model's outputs."""
    return tuple(
        CapturedTensor(spec.name, spec.dtype, output.shape, _copy(output))
        for spec, output in zip(model.outputs, outputs, strict=True)
    )


def _copy(memory: "ReadableBuffer") -> bytes:
    return b"".join((memory,))  # as bytes(), but others may run meanwhile


def _seen(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The application's shape for one that the model has."""
    order = spec.order
    return shape if order is None else tuple(shape[order.index(at)] for at in range(len(order)))
