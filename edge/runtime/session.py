"""One interpreter of TensorFlow Lite.

An interpreter is not thread-safe: a session is used by one call at a time. The bindings count the numpy views of an
interpreter's memory, and let no inference begin while there is one: it might move what they show. So views are made anew
for each inference, and whoever calls a session drops its outputs before the next one.

Making them costs more than a small copy. Where nothing is moved (`in_place`), inputs and outputs are looked up once, by
address, and stay valid until the next allocation; `TfliteEngine.stays_in_place` says how that is known. There a large input
need not be copied either (edge.runtime.borrowing).
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from edge.arrays import dtype_of, numpy_dtype
from edge.errors import InferenceError, TensorError, UnsupportedModelError
from edge.runtime.borrowing import ALIGNMENT_BYTES, TensorTable
from edge.runtime.engine import Data, Lent, Output, Shapes
from edge.runtime.tflite import ENGINE_ERRORS
from edge.tensors import DYNAMIC, MAX_DIMENSION, DType, TensorSpec, shape_text

log = logging.getLogger(__name__)

COPY_WITH_LOCK_BYTES = 16 * 1024  # of an input; a larger one is copied by numpy, which gives up the interpreter lock


class TfliteSession:
    """An interpreter with its tensors allocated; see `Session`."""

    def __init__(
        self,
        interpreter: Any,
        *,
        steady: bool,
        in_place: bool,
        borrows: Sequence[int] = (),
        table: TensorTable | None = None,
    ) -> None:
        """`steady`: its graph has no loops or branches; `in_place`, `borrows`: what the trial of the model found."""
        self._interpreter = interpreter
        self._table = table
        try:
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        except UnicodeDecodeError:
            raise UnsupportedModelError("the model has a tensor whose name is not UTF-8") from None
        self.inputs = _specs(inputs, "input")
        self.outputs = _specs(outputs, "output")
        self._input_indices = [int(detail["index"]) for detail in inputs]
        self._output_indices = [int(detail["index"]) for detail in outputs]
        self.steady = steady and not any(DYNAMIC in spec.signature for spec in self.inputs)
        # A scalar is given as a copy, and an empty tensor has no address.
        self._in_place = (
            in_place and self.steady and all(spec.shape and spec.byte_count for spec in (*self.inputs, *self.outputs))
        )
        self._shapes: Shapes = tuple(spec.shape for spec in self.inputs)
        self._fill: tuple[Callable[[Data], None], ...] = ()
        self._views: tuple[Callable[[], Output], ...] = ()
        self._outputs: tuple[Output, ...] = ()
        self._addresses: list[int] = []
        self._may_borrow = frozenset(borrows)
        # Of inputs that can be borrowed: where the engine has their address, and the address of their own memory.
        self._pointers: tuple[tuple[ctypes.c_void_p, int], ...] = ()
        self.borrows: frozenset[int] = frozenset()
        self._look_up()

    def _look_up(self) -> None:
        """Find inputs and outputs; after every allocation."""
        tensor = self._interpreter.tensor
        if self._in_place:
            inputs, outputs = (
                [_by_address(tensor(index)()) for index in indices]
                for indices in (self._input_indices, self._output_indices)
            )
            found = [self._pointer(position, view) for position, view in enumerate(inputs)]
            self._fill, self._outputs = tuple(map(_filler, inputs, found)), tuple(outputs)
            self._addresses = [view.ctypes.data for view in (*inputs, *outputs)]
            self.borrows = frozenset(position for position, pointer in enumerate(found) if pointer is not None)
            self._pointers = tuple((pointer, pointer.value or 0) for pointer in found if pointer is not None)
        else:
            self._fill = tuple(
                _counted_filler(self._interpreter, index, spec.dtype)
                for index, spec in zip(self._input_indices, self.inputs, strict=True)
            )
            self._views = tuple(tensor(index) for index in self._output_indices)

    def _pointer(self, position: int, view: Any) -> ctypes.c_void_p | None:
        if self._table is None or position not in self._may_borrow:
            return None
        return self._table.data_pointer(self._input_indices[position], self.inputs[position].name, view)

    def is_in_place(self) -> bool:
        """Whether inputs and outputs are used by address, and still are where they were looked up."""
        tensor, indices = self._interpreter.tensor, (*self._input_indices, *self._output_indices)
        return self._in_place and [tensor(index)().ctypes.data for index in indices] == self._addresses

    def run(self, data: Sequence[Data], shapes: Shapes) -> Sequence[Output]:
        """See `Session.run`."""
        if shapes is not self._shapes:
            if shapes != self._shapes:
                self._resize(shapes)
            self._shapes = shapes
        try:
            for fill, one in zip(self._fill, data, strict=True):
                fill(one)
            if self._in_place:
                # What `invoke` does besides is to count views, and there are none. Nothing of it may be kept: it would be counted.
                self._interpreter._interpreter.Invoke()
            else:
                self._interpreter.invoke()
            return self._outputs or [view() for view in self._views]
        except ENGINE_ERRORS as error:
            # A failed invoke may leave tensors half allocated: the next call starts from a fresh allocation.
            self._shapes = ()
            raise InferenceError(str(error)) from error
        finally:
            for pointer, own in self._pointers:
                pointer.value = own

    def _resize(self, shapes: Shapes) -> None:
        try:
            for index, shape in zip(self._input_indices, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
            self._look_up()
        except ENGINE_ERRORS as error:
            self._shapes = ()
            log.info("resize refused: %s", error)
            raise TensorError(
                "the model cannot take input shapes " + ", ".join(shape_text(shape) for shape in shapes)
            ) from None

    def close(self) -> None:
        """See `Session.close`."""
        self._pointers = self._fill = self._views = self._outputs = ()
        self._interpreter = None
        self._table = None  # not before the interpreter


def _by_address(view: Any) -> Any:
    """The memory of a numpy view, as one that the bindings do not count."""
    memory = (ctypes.c_ubyte * view.nbytes).from_address(view.ctypes.data)
    return np.frombuffer(memoryview(memory), view.dtype).reshape(view.shape)


def _filler(view: Any, pointer: ctypes.c_void_p | None) -> Callable[[Data], None]:
    """Gives an input that stays where it is its bytes; with a `pointer` to its address it may also be lent them."""
    flat = view.reshape(-1).view(np.uint8)
    memory = memoryview(flat)

    def fill(data: Data) -> None:
        memory[:] = data.memory if isinstance(data, Lent) else data

    def fill_large(data: Data) -> None:
        source = data.memory if isinstance(data, Lent) else data
        np.copyto(flat, np.frombuffer(source, np.uint8).reshape(flat.shape))

    if pointer is not None:
        return partial(_borrow, pointer, len(memory), fill_large)
    return fill_large if view.nbytes > COPY_WITH_LOCK_BYTES else fill


def _borrow(pointer: ctypes.c_void_p, size: int, fill: Callable[[Data], None], data: Data) -> None:
    if isinstance(data, Lent) and not data.address % ALIGNMENT_BYTES and len(data.memory) == size:
        pointer.value = data.address
    else:
        fill(data)


def _counted_filler(interpreter: Any, index: int, dtype: DType) -> Callable[[Data], None]:
    """Copies bytes into an input that may have moved. Not by set_tensor: it copies twice, and tflite_runtime's lacks some dtypes."""
    make_view = interpreter.tensor(index)

    def fill(data: Data) -> None:
        if isinstance(data, Lent):
            data = data.memory
        view = make_view()
        if not isinstance(view, np.ndarray):  # of a scalar the bindings give a copy
            interpreter.set_tensor(index, np.frombuffer(data, numpy_dtype(dtype)).reshape(()))
        elif len(data) > COPY_WITH_LOCK_BYTES:
            np.copyto(view, np.frombuffer(data, view.dtype).reshape(view.shape))
        elif data:
            memory: Any = view  # numpy's types say only from 2.0 on that an array is a buffer
            memoryview(memory).cast("B")[:] = data

    return fill


def _specs(details: list[dict[str, Any]], kind: str) -> tuple[TensorSpec, ...]:
    specs = tuple(_spec(detail, kind) for detail in details)
    names = [spec.name for spec in specs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UnsupportedModelError(f"the model has two {kind}s named {repeated!r}; names must differ")
    return specs


def _spec(detail: dict[str, Any], kind: str) -> TensorSpec:
    name = str(detail["name"])
    dtype = dtype_of(detail["dtype"])
    if dtype is None:
        kind_name = getattr(detail["dtype"], "__name__", str(detail["dtype"]))
        raise UnsupportedModelError(f"{kind} {name!r} has element type {kind_name}, which the API cannot carry")
    shape = tuple(int(n) for n in detail["shape"])
    signature = tuple(int(n) for n in detail.get("shape_signature", ())) or shape
    if len(signature) != len(shape):
        signature = shape
    if any(not 0 <= n <= MAX_DIMENSION for n in shape):
        raise UnsupportedModelError(f"{kind} {name!r} has shape {shape_text(shape)}, outside what the API can carry")
    return TensorSpec(name, dtype, shape, tuple(DYNAMIC if n < 0 else n for n in signature))
