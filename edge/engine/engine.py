"""What any inference engine offers; `edge.engine.engines` has those that there are."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from edge.tensors import Data, TensorSpec

LITERT, LITERT_GPU, TFLITE = "litert", "litert-gpu", "tflite"  # engines
CPU, GPU = "cpu", "gpu"  # accelerators
FLOAT32, FLOAT16 = "float32", "float16"  # what a GPU calculates with

Shapes = tuple[tuple[int, ...], ...]


class Output(Protocol):
    """One output where the engine has it: a buffer of its bytes, C order and little-endian."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in this inference."""
        ...

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        ...


class DelegateRef(NamedTuple):
    """A delegate library by absolute path, and its options."""

    path: str
    options: tuple[tuple[str, str], ...] = ()


class SessionOptions(NamedTuple):
    """How a model is opened: what its package wants, and what its trial found out.

    `engine`: which serves it. `signature`: the one to call, by its key; None for the model's first graph. `signature_names`:
    tensors have the names that a signature gives them. `keeps_state`: what the model remembers lives from call to call.
    `allocate`: lay the tensors out at once, by the shapes the model has; else by those of the first call. `borrows`: the inputs,
    by position, that it can read where they are lent. `accelerator`: what the package asks for, `precision`: what that is to
    calculate with, `fallback`: the CPU serves where it cannot. `weights`: the file in which sessions share packed weights
    (`edge.engine.weights`); empty, they do not.
    """

    engine: str = TFLITE
    threads: int = 1
    delegate: DelegateRef | None = None
    signature: str | None = None
    signature_names: bool = False
    keeps_state: bool = False
    allocate: bool = True
    borrows: tuple[int, ...] = ()
    accelerator: str = CPU
    precision: str = FLOAT32
    fallback: bool = True
    weights: str = ""


class Session(Protocol):
    """One interpreter with a model in it. Not thread-safe: one call at a time."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steady: bool  # an inference takes the same time whatever the input
    borrows: frozenset[int]  # inputs, by position, that are read where they are lent, if they are aligned there

    def run(self, data: Sequence[Data], shapes: Shapes) -> Sequence[Output]:
        """Infer. `data` and `shapes` are in the model's order; each shape is one that `fit_shape` gave.

        The outputs are the engine's own memory: the caller copies what it wants and drops them before the session is used
        again.

        Raises:
            TensorError: the model cannot be resized to a shape.
            InferenceError: the runtime failed.
            InferenceEndedError: `end` was called.
        """
        ...

    def end(self) -> bool:
        """Have the inference that runs, or else the next one, end before its next operator; from any thread, without waiting.

        False where the engine cannot.
        """
        ...

    def may_run(self) -> None:
        """Take `end` back; while no inference runs."""
        ...

    def reset(self) -> None:
        """Forget what earlier calls left behind: the next one finds what a fresh interpreter has.

        Raises:
            ModelRefusedError: the engine cannot open the model again.
        """
        ...

    def close(self) -> None:
        """Give its memory back; idempotent."""
        ...


class Engine(Protocol):
    """Makes sessions."""

    def describe(self) -> str:
        """The engine and its version; it is not loaded for that."""
        ...

    def prepare(self) -> object:
        """Load what it is made of; it does nothing the second time.

        Raises:
            TargetError: that cannot be loaded here.
        """
        ...

    def open(self, model_path: str, options: SessionOptions) -> Session:
        """A session on a model file.

        Raises:
            ModelRefusedError: the runtime refuses the file (L-7).
            TargetError: the delegate cannot be loaded or refuses the model (L-5).
            UnsupportedModelError: it has a tensor or keeps a state that the API cannot carry ([T]).
        """
        ...
