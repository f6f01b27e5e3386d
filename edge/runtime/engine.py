"""What any inference engine offers; `edge.runtime.tflite` is the one there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from edge.tensors import TensorSpec

Buffer = bytes | memoryview


class TensorValue(NamedTuple):
    """The bytes of one tensor, C order and little-endian, and its shape."""

    data: Buffer
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DelegateRef:
    """A delegate library by absolute path, and its options."""

    path: str
    options: tuple[tuple[str, str], ...] = ()


class Session(Protocol):
    """One interpreter with a model in it. Not thread-safe: one call at a time."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steady: bool  # an inference takes the same time whatever the input

    def run(self, values: Sequence[TensorValue]) -> list[TensorValue]:
        """Infer. `values` are in the model's order, of its dtypes, each of a shape that `fit_shape` gave.

        Raises:
            TensorError: the model cannot be resized to a shape.
            InferenceError: the runtime failed.
        """
        ...

    def close(self) -> None:
        """Give its memory back; idempotent."""
        ...


class Engine(Protocol):
    """Makes sessions."""

    def describe(self) -> str:
        """The interpreter package and its version."""
        ...

    def open(self, model_path: str, *, threads: int, delegate: DelegateRef | None = None) -> Session:
        """A session on a model file, with its memory allocated.

        Raises:
            ModelRefusedError: the runtime refuses the file (L-7).
            TargetError: the delegate cannot be loaded or refuses the model (L-5).
            UnsupportedModelError: it has a tensor that the API cannot carry (section 3).
        """
        ...
