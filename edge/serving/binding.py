"""Which tensor of a request goes to which input of a model, and whether it fits (P-2, P-7, P-8). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import TensorError
from edge.tensors import (
    TensorSpec,
    byte_count,
    byte_count_fault,
    dtype_name,
    fit_shape,
    fitting_order,
    own_shape,
    positions,
    rank_fault,
    shape_text,
)
from edge.text import SHOWN_CHARACTERS, cut, shown


@dataclass(frozen=True)
class SegmentRange:
    """A range of a System V segment, in bytes; size 0 means what dtype and shape need."""

    segment_id: int
    offset: int
    size: int


@dataclass(frozen=True)
class RegionRange:
    """A range of POSIX shared memory that was registered under a name, its region (edge.shm.posix), in bytes."""

    region: str
    offset: int
    size: int


@dataclass(frozen=True)
class TensorArgument:
    """A tensor as the request has it. Without metadata `name`, `dtype` and `shape` are None."""

    name: str | None
    dtype: int | None
    shape: tuple[int, ...] | None
    data: bytes | memoryview | SegmentRange | RegionRange | None


@dataclass(frozen=True)
class BoundTensor:
    """The data for one input: `size` bytes, inline or in shared memory, and the shape to give the model.

    `declared`: the declared dtype and shape as text, where its bytes contradict them (P-12); else empty.
    """

    data: bytes | memoryview | SegmentRange | RegionRange
    shape: tuple[int, ...]
    size: int
    declared: str = ""


class InputBinder:
    """Binds requests to a model's inputs; made once when the model is loaded.

    `strict`: a tensor whose declaration contradicts its bytes is refused, even if the bytes fit the model.
    """

    def __init__(self, inputs: Sequence[TensorSpec], *, strict: bool = False) -> None:
        self._inputs = tuple(inputs)
        self._names = [spec.name for spec in inputs]
        self._by_name = positions(inputs)
        self.strict = strict

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
                names = ", ".join(shown(name) for name in self._names)
                raise TensorError(f"the model has no input named {shown(argument.name or '')}; its inputs are {names}")
            spec = self._inputs[position]
            if bound[position] is not None:
                raise TensorError(f"input {shown(spec.name)} is given twice")
            bound[position] = self._fit(spec, argument)
        return bound  # type: ignore[return-value]

    def _fit(self, spec: TensorSpec, argument: TensorArgument) -> BoundTensor:
        data = argument.data if argument.data is not None else b""
        size = data.size if isinstance(data, SegmentRange | RegionRange) else len(data)
        shape = spec.shape
        if argument.shape is not None and argument.dtype is not None:
            if fault := rank_fault(argument.shape):
                raise TensorError(f"tensor {shown(spec.name)}: {fault}")
            fitted = fit_shape(spec, argument.shape)
            if argument.dtype != spec.dtype or fitted is None:
                own = own_shape(spec, argument.dtype, argument.shape, size)
                if own is None or self.strict:
                    raise TensorError(_mismatch(spec, argument.dtype, argument.shape, own is not None))
                return BoundTensor(data, _in_order(spec, own), size, declaration(argument.dtype, argument.shape))
            shape = fitted
        needed = byte_count(spec.dtype, shape)
        if isinstance(data, SegmentRange) and not size:
            size = needed
        if fault := byte_count_fault(spec.dtype, shape, size):
            raise TensorError(f"tensor {shown(spec.name)}: {fault}; the model takes {spec.dtype.name}")
        return BoundTensor(data, _in_order(spec, shape), needed)


def _in_order(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The model's shape for one that the application sees."""
    return shape if spec.order is None else tuple(shape[at] for at in spec.order)


def _mismatch(spec: TensorSpec, dtype: int, shape: tuple[int, ...], fits: bool) -> str:
    """Why a declaration is refused; `fits`: its bytes are the model's, and only edge_strict_tensors forbids it."""
    text = f"tensor {shown(spec.name)}: "
    if dtype != spec.dtype:
        text += f"got data type {dtype_name(dtype)}, expected {spec.dtype.name}"
    else:
        text += f"got shape {cut(shape_text(shape), SHOWN_CHARACTERS)}, expected {shape_text(spec.signature)}"
        if order := fitting_order(spec, shape):
            text += (
                f"; its dimensions fit in the order {order}: transpose the data by it, "
                "or declare the expected shape if they lie so"
            )
    return text + ("; the bytes fit, but edge_strict_tensors is set" if fits else "")


def declaration(dtype: int, shape: Sequence[int]) -> str:
    """A declared dtype and shape as text."""
    return f"{dtype_name(dtype)} {cut(shape_text(shape), SHOWN_CHARACTERS)}"
