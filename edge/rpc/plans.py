"""Predict requests that are parsed once, and recognised by their bytes from then on.

An application sends the same request again and again: model, names, dtypes, shapes and lengths stay, only the tensors'
bytes differ. The first such request is parsed (`Dialect.read`), checked and bound to the model's inputs; the result, a plan, is kept
with the bytes that do not change, the request's template. A later request of the same length with the same bytes in the same
places can only mean the same, so its tensors are read where they lie, without parsing, checking or copying them again.
Shared-memory handles are among the bytes that do not change; the segment itself is checked at every call.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from edge.capture.record import CapturedTensor
from edge.capture.watch import Watch
from edge.engine.engine import Output, Shapes
from edge.engine.lending import ALIGNMENT_BYTES
from edge.errors import EdgeError, ModelGoneError, TensorError
from edge.rpc.calls import step_far_aside
from edge.rpc.codec import ResponseEncoder, answered_tensors, byte_data_ranges, parse_predict
from edge.rpc.status import name_of
from edge.rpc.wire import Contents
from edge.serving.binding import RegionRange, SegmentRange, TensorArgument, declaration
from edge.serving.caller import Caller
from edge.serving.loading import LoadedModel
from edge.serving.registry import Registry
from edge.tensors import Data

log = logging.getLogger(__name__)

MAX_CONSTANT_BYTES = 4096  # of one request; a longer one is parsed each time
MAX_SAME_LENGTH = 16  # requests of one length that are recognised by their bytes; the oldest are forgotten
MAX_LENGTHS = 64  # lengths of such requests


class Encoder(Protocol):
    """Makes answers of one model; `written_bytes` of the outputs go into shared memory."""

    written_bytes: int

    def encode(self, outputs: Sequence[Output]) -> bytes:
        """The serialised answer; the outputs are in the model's order."""
        ...


class ParsedRequest(NamedTuple):
    """A request as its dialect reads it, not yet compared with its model.

    `arguments()` are its tensors; it raises TensorError if one is malformed. `contents`: where its inline tensors lie. `encoder` makes the
    answers' encoder and raises EdgeError if the model cannot answer so; None: all outputs, as Predict has them. `recurs`: later
    requests may have the same template.
    """

    name: str
    arguments: Callable[[], list[TensorArgument]]
    contents: Contents
    encoder: Callable[[LoadedModel], Encoder] | None = None
    recurs: bool = True


class Dialect(NamedTuple):
    """How the requests of one call are read.

    `read` parses a request; the caller steps aside first if that takes long. `ranges`: where the bytes of its inline tensors begin
    and end, in order; None if that cannot be told. `answered`: the outputs in an answer, for its capture.
    """

    read: Callable[[bytes, Caller], ParsedRequest]
    ranges: Callable[[bytes], list[tuple[int, int]] | None]
    answered: Callable[[bytes], tuple[CapturedTensor, ...]]


def _read_predict(raw: bytes, caller: Caller) -> ParsedRequest:
    name, arguments, contents = parse_predict(raw)
    return ParsedRequest(name, lambda: arguments, contents)


PREDICT = Dialect(_read_predict, byte_data_ranges, answered_tensors)


@dataclass(frozen=True, slots=True)
class SharedInput:
    """The `size` bytes of one input that lie in a client's shared memory; `position` among the model's inputs."""

    position: int
    segment: SegmentRange | RegionRange
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How to answer requests of one template, or a single request.

    `slices`: where a request holds each input's data, in the model's order; empty for one in shared memory. `constants`: the
    template, each piece with its offset. A plan for a single request has its inputs in `once` instead. `plain`: shared memory is
    only read, and only in `segments` (position, segment, bytes), and no policy watches the call.
    """

    model: LoadedModel
    encoder: Encoder
    shapes: Shapes
    shared: tuple[SharedInput, ...]
    slices: tuple[slice, ...] = ()
    constants: tuple[tuple[int, bytes], ...] = ()
    once: tuple[Data, ...] | None = None
    copied_bytes: int = 0  # out of shared memory, and into it
    watch: Watch | None = None  # of the model's capture policy; None: there is none
    plain: bool = False
    segments: tuple[tuple[int, SegmentRange, int], ...] = ()

    def data(self, raw: bytes) -> list[Data]:
        """The inputs where they lie in the request, in the model's order; empty for one in shared memory."""
        if self.once is not None:
            return list(self.once)
        view = memoryview(raw)
        slices = self.slices
        return [view[slices[0]]] if len(slices) == 1 else [view[place] for place in slices]


class MislabelledPlan(Plan):
    """A plan for requests in which a tensor's declaration contradicts its bytes (P-12): each is counted."""

    __slots__ = ()

    def data(self, raw: bytes) -> list[Data]:
        """See `Plan.data`; the one place that every such request passes."""
        self.model.remarks.count_mislabelled()
        return super().data(raw)


class PlanBook:
    """The plans of the models that are loaded. Safe to use from any thread."""

    def __init__(
        self,
        registry: Registry,
        dialect: Dialect = PREDICT,
        watch: Callable[[LoadedModel], Watch | None] = lambda model: None,
    ) -> None:
        """`watch` gives the watch of a model's capture policy, or None."""
        self._registry = registry
        self._watch = watch
        self.dialect = dialect
        self._plans: dict[int, tuple[Plan, ...]] = {}
        self._encoders: dict[str, tuple[LoadedModel, ResponseEncoder]] = {}
        self._said = set[str]()

    def plan(self, raw: bytes, caller: Caller) -> Plan:
        """The plan of a request. If its shapes are new to the model they are tried first, and the `caller` steps aside.

        Raises:
            RequestError: it is not such a request.
            ModelNotFoundError: its model is not loaded (P-1).
            ModelGoneError: its model went meanwhile; ask again, another may serve in its place (W-2).
            TensorError: its tensors do not fit the model (P-2, P-13).
            MemoryLimitError, QueueFullError: its shapes cannot be tried now.
        """
        for plan in self._plans.get(len(raw), ()):
            for start, constant in plan.constants:
                if not raw.startswith(constant, start):
                    break
            else:
                if not plan.model.scheduler.closing:
                    return plan
        return self._parse(raw, caller)

    def forget(self) -> None:
        """Drop everything: a model went, or was replaced."""
        self._plans = {}
        self._encoders = {}

    def _encoder(self, model: LoadedModel) -> ResponseEncoder:
        kept = self._encoders.get(model.name)
        if kept is None or kept[0] is not model:
            kept = self._encoders[model.name] = (model, ResponseEncoder(model.outputs))
            if model.scheduler.closing:  # it went meanwhile, perhaps after `forget`
                self._encoders.pop(model.name, None)
        return kept[1]

    def _parse(self, raw: bytes, caller: Caller) -> Plan:
        """The plan of a request with an unknown template; a refusal is logged once, and counted for its model."""
        try:
            request = self.dialect.read(raw, caller)
            model = self._registry.get(request.name)
        except EdgeError as error:
            self._say_refused(error)
            raise
        try:
            return self._build(raw, request, model, caller)
        except EdgeError as error:
            if isinstance(error, TensorError):
                model.remarks.say_refused(error)
            if not isinstance(error, ModelGoneError):
                model.remarks.count_failed(name_of(error))
            raise

    def _build(self, raw: bytes, request: ParsedRequest, model: LoadedModel, caller: Caller) -> Plan:
        _, take_arguments, contents, make_encoder, recurs = request
        encoder = make_encoder(model) if make_encoder else self._encoder(model)
        arguments = take_arguments()
        bound = model.binder.bind(arguments)
        kind: type[Plan] = Plan
        for spec, tensor in zip(model.inputs, bound, strict=True):
            if tensor.declared:
                kind = MislabelledPlan
                model.remarks.say_mislabelled(spec.name, tensor.declared, declaration(spec.dtype, tensor.shape))
        shapes = tuple(tensor.shape for tensor in bound)
        if model.shape_trials is not None and not model.shape_trials.known(shapes):
            step_far_aside(caller)
            model.shape_trials.check(shapes, sum(tensor.size for tensor in bound))
        shared = tuple(
            SharedInput(position, tensor.data, tensor.size)
            for position, tensor in enumerate(bound)
            if isinstance(tensor.data, SegmentRange | RegionRange)
        )
        once = tuple(b"" if isinstance(tensor.data, SegmentRange | RegionRange) else tensor.data for tensor in bound)
        watch = self._watch(model)
        copied_bytes = encoder.written_bytes + sum(one.size for one in shared if not is_lent(one, model, watch))
        segments = tuple(
            (one.position, one.segment, one.size) for one in shared if isinstance(one.segment, SegmentRange)
        )
        plain = not encoder.written_bytes and len(segments) == len(shared) and watch is None
        plan = kind(
            model,
            encoder,
            shapes,
            shared,
            once=once,
            copied_bytes=copied_bytes,
            watch=watch,
            plain=plain,
            segments=segments,
        )
        if not recurs:
            return plan
        places = _places(raw, self.dialect.ranges(raw), [argument.data for argument in arguments], contents)
        if places is not None:
            slices = tuple(
                places[id(tensor.data)] if isinstance(tensor.data, bytes | memoryview) else slice(0, 0)
                for tensor in bound
            )
            constants = _constants(raw, places.values())
            if sum(len(constant) for _, constant in constants) <= MAX_CONSTANT_BYTES:
                self._keep(len(raw), replace(plan, slices=slices, constants=constants, once=None))
        return plan

    def _say_refused(self, error: EdgeError) -> None:
        """Log the first refusal of each kind of requests that reach no model, for clients repeat themselves."""
        kind = type(error).__name__
        if kind not in self._said:
            self._said.add(kind)
            log.warning("a request is refused: %s; others like it are not logged", error)

    def _keep(self, length: int, plan: Plan) -> None:
        plans = self._plans
        if length not in plans and len(plans) >= MAX_LENGTHS:
            plans.pop(next(iter(plans)), None)
        plans[length] = (plan, *plans.get(length, ())[: MAX_SAME_LENGTH - 1])
        if plan.model.scheduler.closing:  # it went meanwhile, perhaps after `forget`
            plans.pop(length, None)


def is_lent(shared: SharedInput, model: LoadedModel, watch: Watch | None) -> bool:
    """Whether the engine may read an input where it lies.

    A part of a file is for the engine alone (edge.shm.guard), so not where the call may be captured.
    """
    segment = shared.segment
    if shared.position not in model.borrows or segment.offset % ALIGNMENT_BYTES:
        return False
    return watch is None or isinstance(segment, SegmentRange)


def _places(
    raw: bytes, ranges: list[tuple[int, int]] | None, sent: Sequence[object], contents: Contents
) -> dict[int, slice] | None:
    """Where in the request each inline tensor's bytes lie, in order, by the id of the bytes object; None if that is uncertain."""
    inline = [data for data in sent if isinstance(data, bytes | memoryview)]
    # The scan must have found exactly what the parser found; everything else is left to the parser.
    if ranges is None or len(ranges) != len(inline) or any(data is None for data in sent):
        return None
    places = {}
    for (start, stop), data in zip(ranges, inline, strict=True):
        place = contents.place(data)
        if place != slice(start, stop) if place is not None else raw[start:stop] != data:
            return None
        places[id(data)] = slice(start, stop)
    return places if len(places) == len(inline) else None


def _constants(raw: bytes, places: Iterable[slice]) -> tuple[tuple[int, bytes], ...]:
    """The request without the tensors' bytes: each piece and where it begins."""
    constants, end = [], 0
    for place in places:
        constants.append((end, raw[end : place.start]))
        end = place.stop
    constants.append((end, raw[end:]))
    return tuple(constant for constant in constants if constant[1])
