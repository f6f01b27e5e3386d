"""Predict requests understood once and recognised by their bytes from then on.

An application sends the same request again and again: model, names, dtypes, shapes and lengths stay, only the tensors'
bytes differ. The first such request is parsed, checked and bound to the model's inputs; what is learnt is kept with the
bytes that do not change. A later request of the same length with the same bytes in the same places can only mean the
same, so its tensors are read where they lie, without parsing, checking or copying them again. Shared-memory handles are
among the bytes that do not change; the segment itself is checked at every call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.models.binding import Segment
from edge.models.registry import LoadedModel, Registry
from edge.rpc.codec import ResponseEncoder, byte_data_ranges, parse_predict

MAX_CONSTANT_BYTES = 4096  # of one request; a longer one is parsed each time
MAX_SAME_LENGTH = 16
MAX_LENGTHS = 64


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """Where the `size` bytes of one input come from: `segment`, or the request from `start`; and its shape."""

    shape: tuple[int, ...]
    size: int
    segment: Segment | None
    start: int
    data: bytes | memoryview | None = None  # outside a plan that is kept


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request asks for. `constants` are its unchanging bytes and where they begin."""

    model: LoadedModel
    encoder: ResponseEncoder
    inputs: tuple[PlannedInput, ...]
    shared: bool
    constants: tuple[tuple[int, bytes], ...] = ()


class PlanBook:
    """The plans of the models that are loaded. Safe to use from any thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._plans: dict[int, tuple[Plan, ...]] = {}
        self._encoders: dict[str, tuple[LoadedModel, ResponseEncoder]] = {}

    def plan(self, raw: bytes) -> Plan:
        """The plan of a request.

        Raises:
            RequestError: it is not a Predict request.
            ModelNotFoundError: its model is not loaded (P-1).
            TensorError: its tensors do not fit the model (P-2).
        """
        for plan in self._plans.get(len(raw), ()):
            for start, constant in plan.constants:
                if not raw.startswith(constant, start):
                    break
            else:
                if self._registry.get(plan.model.name) is plan.model:
                    return plan
        return self._make(raw)

    def forget(self) -> None:
        """Drop everything: a model went."""
        self._plans = {}
        self._encoders = {}

    def _encoder(self, model: LoadedModel) -> ResponseEncoder:
        kept = self._encoders.get(model.name)
        if kept is None or kept[0] is not model:
            kept = self._encoders[model.name] = (model, ResponseEncoder(model.outputs))
        return kept[1]

    def _make(self, raw: bytes) -> Plan:
        name, arguments = parse_predict(raw)
        model = self._registry.get(name)
        bound = model.binder.bind(arguments)
        shared = any(isinstance(tensor.data, Segment) for tensor in bound)
        once = Plan(
            model,
            self._encoder(model),
            tuple(
                PlannedInput(tensor.shape, tensor.size, tensor.data, 0)
                if isinstance(tensor.data, Segment)
                else PlannedInput(tensor.shape, tensor.size, None, 0, tensor.data)
                for tensor in bound
            ),
            shared,
        )
        kept = self._lasting(raw, once, [argument.data for argument in arguments])
        if kept is not None:
            self._keep(len(raw), kept)
        return once

    def _lasting(self, raw: bytes, once: Plan, sent: Sequence[object]) -> Plan | None:
        """`once` in terms of the request's bytes, or None where that cannot be said of them."""
        inline = [data for data in sent if isinstance(data, bytes)]
        ranges = byte_data_ranges(raw)
        # The scan must have found exactly what the parser found; everything else is left to the parser.
        if ranges is None or len(ranges) != len(inline):
            return None
        if any(raw[start:stop] != data for (start, stop), data in zip(ranges, inline, strict=True)):
            return None
        starts = {id(data): start for (start, _), data in zip(ranges, inline, strict=True)}
        if len(starts) != len(inline) or any(data is None for data in sent):
            return None
        constants, end = [], 0
        for start, stop in ranges:
            constants.append((end, raw[end:start]))
            end = stop
        constants.append((end, raw[end:]))
        if sum(len(constant) for _, constant in constants) > MAX_CONSTANT_BYTES:
            return None
        inputs = tuple(
            PlannedInput(tensor.shape, tensor.size, tensor.segment, starts.get(id(tensor.data), 0))
            for tensor in once.inputs
        )
        return Plan(once.model, once.encoder, inputs, once.shared, tuple(c for c in constants if c[1]))

    def _keep(self, length: int, plan: Plan) -> None:
        plans = self._plans
        if length not in plans and len(plans) >= MAX_LENGTHS:
            plans.pop(next(iter(plans)), None)
        plans[length] = (plan, *plans.get(length, ())[: MAX_SAME_LENGTH - 1])
