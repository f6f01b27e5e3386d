"""One interpreter of TensorFlow Lite, by what its bindings offer: inputs are copied in, and outputs copied out.

An interpreter is not thread-safe: a session is used by one call at a time. What a model keeps from one inference to the next
(variable tensors, as of recurrent layers) is reset before each call, unless its package says that it keeps state.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np

from edge.arrays import numpy_dtype
from edge.engine.engine import Output, SessionOptions, Shapes
from edge.engine.interpreter import ENGINE_ERRORS
from edge.engine.model_facts import ModelFacts
from edge.engine.model_graph import Graph
from edge.engine.specs import make_specs
from edge.errors import InferenceError, MemoryLimitError, ModelRefusedError, TensorError
from edge.tensors import DYNAMIC, Data, Lent, shape_text
from edge.text import printable

log = logging.getLogger(__name__)

MAX_SAID_CHARACTERS = 64 * 1024  # of its failures, by one interpreter; then another takes its place


class TfliteSession:
    """An interpreter; see `Session`."""

    borrows: frozenset[int] = frozenset()

    def __init__(
        self,
        open_interpreter: Callable[[], Any],
        file: BinaryIO,
        graph: Graph,
        options: SessionOptions,
        facts: ModelFacts,
        *,
        steady: bool,
        reopens: bool,
    ) -> None:
        """An interpreter, and those that take its place, by `open_interpreter`, from the model's `file`, which is closed at the end.

        `steady`: its graph has no loops or branches. `reopens`: only a new interpreter has forgotten what the one before knew.

        Raises:
            UnsupportedModelError: it has a tensor that the API cannot carry.
        """
        self.inputs, self.outputs = make_specs(graph.inputs, graph.outputs, options, facts)
        self._input_indices, self._output_indices = (
            [end.tensor for end in ends] for ends in (graph.inputs, graph.outputs)
        )
        self._open_interpreter = open_interpreter
        self._file = file
        self._reopens = reopens
        self._keeps_state = options.keeps_state
        self._said_characters = 0  # by this interpreter, of its failures
        self._keeps_variables = facts.keeps_variables
        self._interpreter = open_interpreter()
        self.steady = steady and not any(DYNAMIC in spec.signature for spec in self.inputs)
        self._forgets = facts.keeps_variables and not options.keeps_state
        # Those that its tensors are laid out for.
        self._shapes: Shapes | None = tuple(spec.shape for spec in self.inputs) if options.allocate else None

    def run(self, data: Sequence[Data], shapes: Shapes) -> Sequence[Output]:
        """See `Session.run`."""
        if shapes != self._shapes:
            self._resize(shapes)
            self._shapes = shapes
        try:
            if self._forgets:
                self._interpreter.reset_all_variables()
            for index, spec, one, shape in zip(self._input_indices, self.inputs, data, shapes, strict=True):
                array = np.frombuffer(one.memory if isinstance(one, Lent) else one, numpy_dtype(spec.dtype)).reshape(
                    shape
                )
                if array.size:  # the bindings have no memory for one without elements
                    self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
            return [self._output(position, index) for position, index in enumerate(self._output_indices)]
        except ENGINE_ERRORS as error:
            # A failed invoke may leave tensors half allocated: the next call starts from a fresh allocation.
            self._shapes = None
            if isinstance(error, MemoryError):
                raise MemoryLimitError("there is no memory for the inference") from error
            raise InferenceError(self._words(error)) from None

    def _output(self, position: int, index: int) -> Output:
        try:
            output: Output = self._interpreter.get_tensor(index)
        except ENGINE_ERRORS:
            # The bindings show no tensor without a byte.
            detail = self._interpreter.get_output_details()[position]
            if 0 not in detail["shape"]:
                raise
            # numpy's own types of this call differ from version to version.
            empty: Any = np.empty(detail["shape"], detail["dtype"])
            output = empty
        return output

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
        except ENGINE_ERRORS as error:
            self._shapes = None
            log.info("resize refused: %s", self._words(error))
            raise TensorError(
                "the model cannot take input shapes " + ", ".join(shape_text(shape) for shape in shapes)
            ) from None

    def end(self) -> bool:
        """See `Session.end`: the bindings have no such call."""
        return False

    def may_run(self) -> None:
        """See `Session.may_run`."""

    def reset(self) -> None:
        """See `Session.reset`."""
        try:
            if self._reopens:
                self._renew()
                self._shapes = None
            elif self._keeps_variables and self._shapes is not None:
                self._interpreter.reset_all_variables()
        except ENGINE_ERRORS as error:
            raise ModelRefusedError(f"the runtime cannot open the model again: {error}") from None

    def _renew(self) -> None:
        self._interpreter = None
        self._said_characters = 0
        self._interpreter = self._open_interpreter()

    def close(self) -> None:
        """See `Session.close`."""
        self._interpreter = None
        self._file.close()
