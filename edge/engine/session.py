"""One interpreter of TensorFlow Lite.

An interpreter is not thread-safe: a session is used by one call at a time. The bindings count the numpy views of an
interpreter's memory, and let no inference begin while there is one: it might move what they show. So views are made anew
for each inference, and whoever calls a session drops its outputs before the next one.

Making them costs more than a small copy. Where nothing is moved (`in_place`), inputs and outputs are looked up once, by
address, and stay valid until the next allocation; `TfliteEngine.stays_in_place` says how that is known. There a large input
need not be copied either (edge.engine.borrowing).

What a model keeps from one inference to the next (variable tensors, as of recurrent layers) is reset before each call, unless
its package says that it keeps state.
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from edge.arrays import numpy_dtype
from edge.engine.borrowing import Opened
from edge.engine.engine import Output, SessionOptions, Shapes
from edge.engine.interpreter import ENGINE_ERRORS, ends_of
from edge.engine.lending import ALIGNMENT_BYTES
from edge.engine.litert_memory import copy
from edge.engine.model_facts import ModelFacts
from edge.engine.signature import GraphInterpreter
from edge.engine.specs import make_specs
from edge.errors import InferenceError, MemoryLimitError, ModelRefusedError, TensorError
from edge.tensors import DYNAMIC, Data, DType, Lent, shape_text
from edge.text import printable

log = logging.getLogger(__name__)

MAX_SAID_CHARACTERS = 64 * 1024  # of its failures, by one interpreter; then another takes its place
COPY_WITH_LOCK_BYTES = 16 * 1024  # of an input; a larger one is copied by numpy, which gives up the interpreter lock


class TfliteSession:
    """An interpreter; see `Session`."""

    def __init__(
        self,
        open_interpreter: Callable[[], Opened],
        file: BinaryIO,
        options: SessionOptions,
        facts: ModelFacts,
        *,
        steady: bool,
        reopens: bool = False,
    ) -> None:
        """An interpreter, and those that take its place, by `open_interpreter`, from the model's `file`, which is closed at the end.

        `steady`: its graph has no loops or branches. `reopens`: only a new interpreter has forgotten what the one before knew.

        Raises:
            UnsupportedModelError: it has a tensor that the API cannot carry.
        """
        self._open_interpreter = open_interpreter
        self._file = file
        self._reopens = reopens
        self._keeps_state = options.keeps_state
        self._said_characters = 0  # by this interpreter, of its failures
        self._keeps_variables = facts.keeps_variables
        self._interpreter, self._table = open_interpreter()
        inputs, outputs = ends_of(self._interpreter)
        self.inputs, self.outputs = make_specs(inputs, outputs, options, facts)
        self._input_indices, self._output_indices = [end.index for end in inputs], [end.index for end in outputs]
        self.steady = steady and not any(DYNAMIC in spec.signature for spec in self.inputs)
        self._forgets = facts.keeps_variables and not options.keeps_state
        # A scalar is given as a copy, and an empty tensor has no address.
        self._in_place = (
            options.in_place
            and self.steady
            and all(spec.shape and spec.byte_count for spec in (*self.inputs, *self.outputs))
        )
        # Those that its tensors are laid out for.
        self._shapes: Shapes | None = tuple(spec.shape for spec in self.inputs) if options.allocate else None
        self._fill: tuple[Callable[[Data], None], ...] = ()
        self._views: tuple[Callable[[], Output], ...] = ()
        self._outputs: tuple[Output, ...] = ()
        self._addresses: list[int] = []
        self._may_borrow = frozenset(options.borrows)
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
            self._views = tuple(
                partial(_output, self._interpreter, position, tensor(index))
                for position, index in enumerate(self._output_indices)
            )

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
            if self._forgets:
                self._interpreter.reset_all_variables()
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
            self._shapes = None
            if isinstance(error, MemoryError):
                raise MemoryLimitError("there is no memory for the inference") from error
            raise InferenceError(self._words(error)) from None
        finally:
            for pointer, own in self._pointers:
                pointer.value = own

    def _words(self, error: Exception) -> str:
        """What the engine says of this failure: its bindings hand out all that the interpreter ever said, the newest last."""
        text, known = str(error), self._said_characters
        if len(text) > known:
            self._said_characters = len(text)
            text = text[known:]
        return printable(text)

    def _resize(self, shapes: Shapes) -> None:
        if self._interpreter is None or (self._said_characters > MAX_SAID_CHARACTERS and not self._keeps_state):
            try:
                self._renew()
            except ENGINE_ERRORS as error:
                raise InferenceError(f"the runtime cannot open the model again: {printable(str(error))}") from None
        try:
            for index, shape in zip(self._input_indices, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
            self._look_up()
        except ENGINE_ERRORS as error:
            self._shapes = None
            log.info("resize refused: %s", self._words(error))
            raise TensorError(
                "the model cannot take input shapes " + ", ".join(shape_text(shape) for shape in shapes)
            ) from None

    def reset(self) -> None:
        """See `Session.reset`."""
        try:
            if self._reopens:
                self._renew()
                self._shapes = None
                self._look_up()
            elif self._keeps_variables and self._shapes is not None:
                self._interpreter.reset_all_variables()
        except ENGINE_ERRORS as error:
            raise ModelRefusedError(f"the runtime cannot open the model again: {error}") from None

    def _renew(self) -> None:
        self._drop()
        self._said_characters = 0
        self._interpreter, self._table = self._open_interpreter()

    def close(self) -> None:
        """See `Session.close`."""
        self._drop()
        self._file.close()

    def _drop(self) -> None:
        self._pointers = self._fill = self._views = self._outputs = ()
        self._interpreter = None
        self._table = None  # not before the interpreter


def _output(interpreter: Any, position: int, make_view: Callable[[], Output]) -> Output:
    try:
        return make_view()
    except ENGINE_ERRORS:
        # The bindings show no tensor without a byte.
        detail = interpreter.get_output_details()[position]
        if 0 not in detail["shape"]:
            raise
        empty: Any = np.empty(detail["shape"], detail["dtype"])
        return empty  # type: ignore[no-any-return]


def _by_address(view: Any) -> Any:
    """The memory of a numpy view, as one that the bindings do not count."""
    memory = (ctypes.c_ubyte * view.nbytes).from_address(view.ctypes.data)
    return np.frombuffer(memoryview(memory), view.dtype).reshape(view.shape)


def _filler(view: Any, pointer: ctypes.c_void_p | None) -> Callable[[Data], None]:
    """Gives an input that stays where it is its bytes; with a `pointer` to its address it may also be lent them."""
    flat = view.reshape(-1).view(np.uint8)
    address = view.ctypes.data
    memory = memoryview(flat)

    def fill(data: Data) -> None:
        memory[:] = data.memory if isinstance(data, Lent) else data

    def fill_large(data: Data) -> None:
        if isinstance(data, Lent):  # it may be a client's file, which is not touched with the interpreter lock held
            copy(address, view.nbytes, data)
        else:
            np.copyto(flat, np.frombuffer(data, np.uint8).reshape(flat.shape))

    if pointer is not None:
        return partial(_borrow, pointer, len(memory), fill_large)
    return fill_large if view.nbytes > COPY_WITH_LOCK_BYTES else fill


def _borrow(pointer: ctypes.c_void_p, size: int, fill: Callable[[Data], None], data: Data) -> None:
    if isinstance(data, Lent) and not data.address % ALIGNMENT_BYTES and data.size == size:
        pointer.value = data.address
    else:
        fill(data)


def _counted_filler(interpreter: Any, index: int, dtype: DType) -> Callable[[Data], None]:
    """Copies bytes into an input that may have moved. Not by set_tensor: it copies twice, and tflite_runtime's lacks some dtypes."""
    make_view = interpreter.tensor(index)
    copies = isinstance(interpreter, GraphInterpreter)

    def fill(data: Data) -> None:
        if isinstance(data, Lent):
            data = data.memory
        if not data:  # an empty input has no memory
            return
        view = make_view()
        if copies or not isinstance(view, np.ndarray):  # of a scalar the bindings give a copy
            interpreter.set_tensor(index, np.frombuffer(data, numpy_dtype(dtype)).reshape(np.shape(view)))
        elif len(data) > COPY_WITH_LOCK_BYTES:
            np.copyto(view, np.frombuffer(data, view.dtype).reshape(view.shape))
        else:
            memory: Any = view  # numpy's types say only from 2.0 on that an array is a buffer
            memoryview(memory).cast("B")[:] = data

    return fill
