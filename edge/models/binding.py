"""Which tensor of a request goes to which input of a model, and whether it fits (P-2, P-7, P-8). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import TensorError
from edge.tensors import TensorSpec, byte_count, dtype_name, fit_shape, rank_fault, shape_text
from edge.text import SHOWN_CHARACTERS, cut, shown


@dataclass(frozen=True)
class Segment:
    """A range of a client's shared memory, in bytes; size 0 means what dtype and shape need."""

    segment_id: int
    offset: int
    size: int


@dataclass(frozen=True)
class TensorArgument:
    """A tensor as the request has it. Without metadata `name`, `dtype` and `shape` are None."""

    name: str | None
    dtype: int | None
    shape: tuple[int, ...] | None
    data: bytes | memoryview | Segment | None


@dataclass(frozen=True)
class BoundTensor:
    """The data for one input: `size` bytes, inline or in shared memory, and the shape to give the model."""

    data: bytes | memoryview | Segment
    shape: tuple[int, ...]
    size: int


class InputBinder:
    """Binds requests to a model's inputs; made once when the model is loaded."""

    def __init__(self, inputs: Sequence[TensorSpec]) -> None:
        self._inputs = tuple(inputs)
        self._by_name = {spec.name: position for position, spec in enumerate(inputs)}

    def bind(self, arguments: Sequence[TensorArgument]) -> list[BoundTensor]:
        """The request's tensors in the model's order.

        Raises:
            TensorError: with the tensor's name, what it is and what was expected (P-2).
        """
        if len(arguments) != len(self._inputs):
            raise TensorError(f"the model takes {len(self._inputs)} input tensors, got {len(arguments)}")
        bound: list[BoundTensor | None] = [None] * len(arguments)
        for given_at, argument in enumerate(arguments):
            position = self._by_name.get(argument.name) if argument.name else given_at
            if position is None:
                names = ", ".join(shown(name) for name in self._by_name)
                raise TensorError(f"the model has no input named {shown(argument.name or '')}; its inputs are {names}")
            spec = self._inputs[position]
            if bound[position] is not None:
                raise TensorError(f"input {shown(spec.name)} is given twice")
            bound[position] = _fit(spec, argument)
        return bound  # type: ignore[return-value]


def _fit(spec: TensorSpec, argument: TensorArgument) -> BoundTensor:
    shape = spec.shape
    if argument.shape is not None:
        if argument.dtype != spec.dtype:
            raise TensorError(
                f"tensor {shown(spec.name)}: got data type {dtype_name(argument.dtype or 0)}, expected {spec.dtype.name}"
            )
        if fault := rank_fault(argument.shape):
            raise TensorError(f"tensor {shown(spec.name)}: {fault}")
        fitted = fit_shape(spec, argument.shape)
        if fitted is None:
            raise TensorError(
                f"tensor {shown(spec.name)}: got shape {cut(shape_text(argument.shape), SHOWN_CHARACTERS)}, expected {shape_text(spec.signature)}"
            )
        shape = fitted
    needed = byte_count(spec.dtype, shape)
    data = argument.data if argument.data is not None else b""
    given = (data.size or needed) if isinstance(data, Segment) else len(data)
    if given != needed:
        raise TensorError(
            f"tensor {shown(spec.name)}: got {given} bytes, expected {needed} for {spec.dtype.name} {shape_text(shape)}"
        )
    return BoundTensor(data, shape, needed)
