"""A model in LiteRT, with memory for its inputs and outputs. One call at a time, as with any session.

LiteRT reads and writes tensors in memory that it is given: the session's own, or for a large input a client's, where that
may be read in place (`edge.engine.lending`). A tensor that is there twice, as an output that is an input too, has one
place.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, Protocol

from edge.engine.engine import Output, SessionOptions, Shapes
from edge.engine.litert_api import ALIGNMENT_BYTES, NO_MEMORY, Api, Flag, Handles, LitertError, handles
from edge.engine.litert_memory import Arena, copy
from edge.engine.model_facts import ModelFacts
from edge.engine.model_graph import Graph
from edge.engine.specs import make_specs
from edge.errors import InferenceEndedError, InferenceError, MemoryLimitError, ModelRefusedError, TensorError
from edge.tensors import DYNAMIC, Data, DType, Lent, TensorSpec, byte_count, shape_text
from edge.text import printable

log = logging.getLogger(__name__)

COPY_WITH_LOCK_BYTES = 16 * 1024  # of an input; a larger one is copied without the interpreter lock
MAX_LENT_PLACES = 64  # of an input, that are remembered

# LiteRtElementType.
_ELEMENT_TYPES = {
    DType.FLOAT32: 1,
    DType.INT32: 2,
    DType.UINT8: 3,
    DType.INT64: 4,
    DType.BOOL: 6,
    DType.INT16: 7,
    DType.INT8: 9,
    DType.FLOAT16: 10,
    DType.FLOAT64: 11,
    DType.UINT64: 13,
    DType.UINT32: 16,
    DType.UINT16: 17,
}
# memoryview's formats, by the bytes of an element: nobody looks at the numbers, and there is none for float16.
_FORMATS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}

Fill = Callable[[Data], None]


class Compiled(Protocol):
    """A model that LiteRT has made ready (`edge.engine.litert`).

    `inputs` and `outputs` are tensors' indices in the graph, in the order in which an inference takes them. Inferences end
    while the flag `ends` is set.
    """

    api: Api
    handle: int
    signature: int
    inputs: list[int]
    outputs: list[int]
    ends: Flag

    def fully_accelerated(self) -> bool:
        """Whether accelerators have all of its operators."""
        ...

    def renew(self) -> None:
        """Make it ready anew: it has forgotten everything then.

        Raises:
            LitertError: LiteRT refuses it.
        """
        ...

    def close(self) -> None:
        """Give everything back; idempotent."""
        ...


class _Tensor:
    """An input's or output's place, and LiteRT's buffer over it."""

    def __init__(self, api: Api, dtype: DType, shape: tuple[int, ...], place: int, memory: memoryview) -> None:
        self._api, self._element_type, self._shape = api, _ELEMENT_TYPES[dtype], shape
        self.place, self.memory, self.size = place, memory, len(memory)
        self.view: Any = memory.cast(_FORMATS[dtype.itemsize], shape) if self.size else memory
        self._lent: dict[int, int] = {}
        self.buffer = self._over(place)

    def _over(self, place: int) -> int:
        return self._api.buffer(self._element_type, self._shape, place, self.size)

    def lent(self, place: int) -> int:
        """The buffer over lent memory of its size."""
        buffer = self._lent.get(place)
        if buffer is None:
            if len(self._lent) >= MAX_LENT_PLACES:
                self._drop_lent()
            buffer = self._lent[place] = self._over(place)
        return buffer

    def _drop_lent(self) -> None:
        while self._lent:
            self._api.destroy("TensorBuffer", self._lent.popitem()[1])

    def close(self) -> None:
        """Destroy the buffers."""
        self._drop_lent()
        self._api.destroy("TensorBuffer", self.buffer)


class LitertSession:
    """See `Session`."""

    def __init__(
        self,
        compiled: Compiled,
        graph: Graph,
        facts: ModelFacts,
        options: SessionOptions,
        *,
        steady: bool,
        reopens: bool,
    ) -> None:
        """The session owns `compiled`. `steady`, `reopens`: as of TfliteSession.

        Raises:
            UnsupportedModelError: the model has a tensor that the API cannot carry.
            ModelRefusedError: LiteRT cannot run it in its own shapes.
        """
        self._tensors: list[_Tensor] = []
        self.compiled = compiled
        self._api = compiled.api
        self._reopens = reopens
        self._indices = [end.tensor for end in graph.inputs], [end.tensor for end in graph.outputs]
        self.inputs, self.outputs = make_specs(graph.inputs, graph.outputs, options, facts)
        self.steady = steady and not any(DYNAMIC in spec.signature for spec in self.inputs)
        self.borrows = frozenset(options.borrows if self.steady else ())
        self._shapes: Shapes | None = None
        self._fill: tuple[Fill, ...] = ()
        self._outputs: tuple[Output, ...] = ()
        self._slots: Handles = handles(())
        self._infer: Callable[[], int] = lambda: 0
        if options.allocate:
            shapes = tuple(spec.shape for spec in self.inputs)
            try:
                self._lay_out(shapes)
            except TensorError as error:
                raise ModelRefusedError(str(error)) from None
            self._shapes = shapes

    def run(self, data: Sequence[Data], shapes: Shapes) -> Sequence[Output]:
        """See `Session.run`."""
        if shapes is not self._shapes:
            if shapes != self._shapes:
                self._lay_out(shapes)
            self._shapes = shapes
        try:
            for fill, one in zip(self._fill, data, strict=True):
                fill(one)
        except ValueError as error:
            raise InferenceError(printable(str(error))) from None
        if status := self._infer():
            self._fail(status)
        return self._outputs

    def _fail(self, status: int) -> None:
        self._shapes = None  # the next call starts from a fresh layout
        words = self._words()
        if self._reopens:  # what it remembers may be half of what the inference was to make of it
            with suppress(ModelRefusedError):
                self.reset()
        if self.compiled.ends.value:
            raise InferenceEndedError("the inference was ended")
        if status == NO_MEMORY:
            raise MemoryLimitError("there is no memory for the inference")
        raise InferenceError(words or f"LiteRT fails with status {status}")

    def end(self) -> bool:
        """See `Session.end`. Operators that XNNPACK or a GPU has in one piece are one."""
        self.compiled.ends[0] = b"\1"
        return True

    def may_run(self) -> None:
        """See `Session.may_run`."""
        self.compiled.ends[0] = b"\0"

    def _words(self) -> str:
        return printable(cleaned(self._api.words(self.compiled.handle)))

    def _lay_out(self, shapes: Shapes) -> None:
        """Have the operators look at the inputs' shapes, and find places for all tensors."""
        self._forget_layout()
        try:
            if not self.compiled.handle:
                self.compiled.renew()
            self._find_places(shapes, self._output_shapes(shapes))
        except LitertError as error:
            self._forget_layout()
            log.info("LiteRT refuses shapes: %s", self._words() or error)
            raise TensorError(
                "the model cannot take input shapes " + ", ".join(shape_text(shape) for shape in shapes)
            ) from None

    def _output_shapes(self, shapes: Shapes) -> list[tuple[int, ...]]:
        """The outputs' shapes for those of the inputs, in the model's order."""
        compiled = self.compiled
        for index, spec, shape in zip(self._indices[0], self.inputs, shapes, strict=True):
            if DYNAMIC in spec.signature:
                self._api.resize(compiled.handle, compiled.signature, compiled.inputs.index(index), shape)
        found = self._api.output_shapes(compiled.handle, compiled.signature, len(compiled.outputs))
        return [found[compiled.outputs.index(index)] for index in self._indices[1]]

    def _find_places(self, shapes: Shapes, output_shapes: Sequence[tuple[int, ...]]) -> None:
        wanted: dict[int, tuple[TensorSpec, tuple[int, ...]]] = {}
        for index, spec, shape in zip(
            (*self._indices[0], *self._indices[1]),
            (*self.inputs, *self.outputs),
            (*shapes, *output_shapes),
            strict=True,
        ):
            wanted.setdefault(index, (spec, shape))
        arena = Arena([byte_count(spec.dtype, shape) for spec, shape in wanted.values()])
        made: dict[int, _Tensor] = {}
        for (index, (spec, shape)), place, memory in zip(wanted.items(), arena.places, arena.views, strict=True):
            made[index] = _Tensor(self._api, spec.dtype, shape, place, memory)
            self._tensors.append(made[index])
        compiled = self.compiled
        self._slots = handles([made[index].buffer for index in compiled.inputs])
        outputs = handles([made[index].buffer for index in compiled.outputs])
        self._infer = self._api.inference(compiled.handle, compiled.signature, self._slots, outputs)
        self._fill = tuple(
            self._filler(made[index], compiled.inputs.index(index), position in self.borrows)
            for position, index in enumerate(self._indices[0])
        )
        self._outputs = tuple(made[index].view for index in self._indices[1])

    def _filler(self, tensor: _Tensor, slot: int, borrows: bool) -> Fill:
        """What takes an input's bytes; `slot` is its place among LiteRT's inputs."""
        if borrows:
            return partial(_borrow, self._slots, slot, tensor)
        if tensor.size > COPY_WITH_LOCK_BYTES:
            return partial(copy, tensor.place, tensor.size)
        memory = tensor.memory

        def fill(data: Data) -> None:
            memory[:] = data.memory if isinstance(data, Lent) else data

        return fill

    def reset(self) -> None:
        """See `Session.reset`."""
        if not self._reopens:
            return
        self._forget_layout()
        try:
            self.compiled.renew()
        except LitertError as error:
            raise ModelRefusedError(f"LiteRT cannot open the model again: {error}") from None

    def _forget_layout(self) -> None:
        self._shapes = None
        self._fill = self._outputs = ()
        while self._tensors:
            self._tensors.pop().close()

    def close(self) -> None:
        """See `Session.close`."""
        self._forget_layout()
        self.compiled.close()

    def __del__(self) -> None:
        self.close()


def _borrow(slots: Handles, slot: int, tensor: _Tensor, data: Data) -> None:
    """Let an inference read an input where it is lent, or else copy it."""
    if isinstance(data, Lent) and not data.address % ALIGNMENT_BYTES and data.size == tensor.size:
        slots[slot] = tensor.lent(data.address)
    else:
        slots[slot] = tensor.buffer
        copy(tensor.place, tensor.size, data)


def cleaned(words: str) -> str:
    """LiteRT's own words, without the places in its sources that they begin with."""
    lines = (line.strip() for line in words.splitlines())
    return "; ".join(line.split(" ", 1)[-1] if ".cc:" in line.split(" ", 1)[0] else line for line in lines if line)
