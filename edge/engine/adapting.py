"""A session as its package's adapter shows it to applications: other dtypes, another layout (S-9).

Numbers keep what they stand for. They are rounded to the nearest, halves to even; what is out of range becomes the nearest
number that there is, or infinity where the dtype has it; NaN becomes the integer that stands for 0.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge.arrays import numpy_dtype
from edge.engine.engine import Output, Session, Shapes
from edge.tensors import Data, Lent, TensorSpec, integer_range

ELEMENTS_AT_ONCE = 1 << 16  # what is calculated on the way takes several times their memory

Array = np.ndarray[Any, Any]
Change = Callable[[Array], Array]


class AdaptedSession:
    """See `Session`; `inputs` and `outputs` are what applications see, the shapes that `run` takes are the model's."""

    def __init__(self, session: Session, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._session = session
        self._enter = tuple(map(_entry, inputs, session.inputs))
        self._leave = tuple(map(_exit, session.outputs, outputs))
        self.steady = session.steady
        self.borrows = frozenset(position for position in session.borrows if self._enter[position] is None)

    def run(self, data: Sequence[Data], shapes: Shapes) -> Sequence[Output]:
        """See `Session.run`."""
        entered = [
            enter(one, shape) if enter else one for enter, one, shape in zip(self._enter, data, shapes, strict=True)
        ]
        outputs: Any = self._session.run(entered, shapes)
        return [leave(one) if leave else one for leave, one in zip(self._leave, outputs, strict=True)]

    def end(self) -> bool:
        """See `Session.end`."""
        return self._session.end()

    def may_run(self) -> None:
        """See `Session.may_run`."""
        self._session.may_run()

    def reset(self) -> None:
        """See `Session.reset`."""
        self._session.reset()

    def close(self) -> None:
        """See `Session.close`."""
        self._session.close()


def _entry(seen: TensorSpec, own: TensorSpec) -> Callable[[Data, tuple[int, ...]], Data] | None:
    """Makes an application's bytes the model's, given the model's shape; None where they are."""
    convert, order = conversion(seen, own), seen.order
    if convert is None and order is None:
        return None
    dtype = numpy_dtype(seen.dtype)

    def enter(data: Data, shape: tuple[int, ...]) -> Data:
        memory = data.memory if isinstance(data, Lent) else data
        array: Array = np.frombuffer(memory, dtype) if memory else np.empty(0, dtype)
        if order is not None:
            array = array.reshape([shape[order.index(at)] for at in range(len(order))]).transpose(order)
        made: Array = convert(array) if convert else np.ascontiguousarray(array)
        return made.reshape(-1).view(np.uint8).data

    return enter


def _exit(own: TensorSpec, seen: TensorSpec) -> Callable[[Output], Output] | None:
    """Makes the model's output an application's; None where it is. An engine's own buffer may not say what its elements are."""
    convert = conversion(own, seen)
    if convert is None:
        return None
    dtype = numpy_dtype(own.dtype)
    return lambda output: convert(np.asarray(output).view(dtype))


def conversion(source: TensorSpec, target: TensorSpec) -> Callable[[Array], Any] | None:
    """Makes elements of `source` such of `target` that stand for the same numbers; None where they do as they are."""
    if (source.dtype, source.scale, source.zero_point) == (target.dtype, target.scale, target.zero_point):
        return None
    to = numpy_dtype(target.dtype)
    change = _change(source, target, to)

    def convert(array: Array) -> Array:
        flat = np.ascontiguousarray(array).reshape(-1)
        made = np.empty(flat.shape, to)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, flat.size, ELEMENTS_AT_ONCE):
                part = slice(start, start + ELEMENTS_AT_ONCE)
                made[part] = change(flat[part])
        return made.reshape(array.shape)

    return convert


def _change(source: TensorSpec, target: TensorSpec, to: np.dtype[Any]) -> Change:
    """What `conversion` does with a few elements; `to` is the target's dtype."""
    span, source_span = integer_range(target.dtype), integer_range(source.dtype)
    if span is None:
        return lambda array: _numbers(array, source).astype(to)
    low, high = span
    if source_span is not None and not source.scale and not target.scale:
        low, high = max(low, source_span[0]), min(high, source_span[1])
        return lambda array: np.clip(array, low, high).astype(to)
    scale, zero_point = target.scale or 1.0, target.zero_point

    def quantise(array: Array) -> Array:
        steps = np.rint(_numbers(array, source).astype(np.float64) / scale) + zero_point
        return np.where(np.isnan(steps), float(zero_point), np.clip(steps, low, high)).astype(to)

    return quantise


def _numbers(array: Array, spec: TensorSpec) -> Array:
    """What the elements stand for."""
    return (array.astype(np.float64) - spec.zero_point) * spec.scale if spec.scale else array
