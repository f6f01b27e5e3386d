"""Calls that the runtime failed on (P-6), kept one at a time, so that another model can be given the same inputs (W-6)."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from edge.engine.engine import Shapes
from edge.package.selftest import GoldenTensor
from edge.tensors import Data, Lent, TensorSpec

MAX_KEPT_BYTES = 16 << 20  # of a failed call's inputs that are kept, to try them on the version before
MAX_KEPT_CALLS = 32  # failed calls of a version on trial that are tried on the version before


@dataclass(frozen=True)
class FailedCall:
    """The inputs of a call as applications see them, and their bytes, one after the other."""

    inputs: tuple[GoldenTensor, ...]
    data: bytes


class FailedCalls:
    """The failed call of a model that is looked into next. Safe to use from any thread."""

    def __init__(self, inputs: Sequence[TensorSpec]) -> None:
        self._inputs = inputs
        self._left = MAX_KEPT_CALLS
        self._kept: FailedCall | None = None
        self._lock = threading.Lock()

    def keep(self, data: Sequence[Data], shapes: Shapes) -> None:
        """Copy a call's inputs, unless another call is kept already, or they are too large."""
        memory = [one.memory if isinstance(one, Lent) else memoryview(one) for one in data]
        if sum(one.nbytes for one in memory) > MAX_KEPT_BYTES:
            return
        with self._lock:
            if self._kept is None and self._left:
                self._left -= 1
                inputs = tuple(
                    GoldenTensor(spec.name, spec.dtype, shape) for spec, shape in zip(self._inputs, shapes, strict=True)
                )
                self._kept = FailedCall(inputs, b"".join(memory))

    def take(self) -> FailedCall | None:
        """The call that is kept, if there is one; the next may then be."""
        with self._lock:
            kept, self._kept = self._kept, None
            return kept
