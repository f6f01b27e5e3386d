"""The inputs that a model is tried on and warmed up with."""

import os
import struct
from collections.abc import Sequence
from typing import Any

from edge.engine.engine import Output, Session, Shapes
from edge.engine.samples import FILE, ONES, ZEROS, Sample
from edge.errors import UnsupportedModelError
from edge.tensors import DType, TensorSpec, byte_count, fit_shape, positions, shape_text

MAX_BYTES = 1 << 30  # of all inputs together
# As the struct module knows them.
_FORMATS = {
    DType.UINT8: "B",
    DType.INT16: "h",
    DType.INT32: "i",
    DType.INT64: "q",
    DType.FLOAT16: "e",
    DType.FLOAT32: "f",
    DType.FLOAT64: "d",
    DType.INT8: "b",
    DType.BOOL: "?",
    DType.UINT16: "H",
    DType.UINT32: "I",
    DType.UINT64: "Q",
}


class SampleInputs:
    """The sample of one model as the inputs of its sessions."""

    def __init__(self, specs: tuple[TensorSpec, ...], sample: Sample) -> None:
        """
        Raises:
            UnsupportedModelError: it does not fit the inputs, or they are too large to try.
        """
        self._specs = specs
        self._arrays = None if sample.fd is None else _read(sample.fd, specs)
        if self._arrays is not None:
            self.shapes: Shapes = tuple(tuple(array.shape) for array in self._arrays)
        else:
            self.shapes = _shapes(specs, _placed(specs, dict(sample.shapes)))

    def run(self, session: Session, kind: str, shapes: Shapes | None = None) -> Sequence[Output]:
        """One inference on values of a kind, in the sample's shapes or in others; returns the outputs.

        Raises:
            UnsupportedModelError: the inputs are too large to try.
            TensorError, InferenceError: as `Session.run`.
        """
        wanted = self.shapes if shapes is None else shapes
        return session.run(self.data(kind, wanted), wanted)

    def data(self, kind: str, shapes: Shapes | None = None) -> list[bytes]:
        """The inputs' values of a kind, in the sample's shapes or in others.

        Raises:
            UnsupportedModelError: they are too large to try.
        """
        wanted = self.shapes if shapes is None else shapes
        sizes = [byte_count(spec.dtype, shape) for spec, shape in zip(self._specs, wanted, strict=True)]
        if sum(sizes) > MAX_BYTES:
            raise UnsupportedModelError(f"the model's inputs take more than {MAX_BYTES} bytes")
        if kind == FILE and self._arrays is not None and wanted == self.shapes:
            return [array.tobytes() for array in self._arrays]
        return [values(spec, shape, kind) for spec, shape in zip(self._specs, wanted, strict=True)]


def values(spec: TensorSpec, shape: tuple[int, ...], kind: str) -> bytes:
    """An input of a made-up kind."""
    if kind == ZEROS:
        return bytes(byte_count(spec.dtype, shape))
    if kind == ONES:
        return repeated(spec.dtype, shape, (1,))
    numbers = (1, 3, 5, 2, 4)  # unlike each other, and not random
    if spec.dtype is DType.BOOL:
        return repeated(spec.dtype, shape, [number > 2 for number in numbers])
    fractions = spec.dtype.name.startswith("FLOAT")
    return repeated(spec.dtype, shape, [number / 5 for number in numbers] if fractions else numbers)


def repeated(dtype: DType, shape: tuple[int, ...], numbers: Sequence[float]) -> bytes:
    """A tensor of some numbers, again and again. Without numpy: its import takes longer than a small model's load."""
    unit = struct.pack(f"<{len(numbers)}{_FORMATS[dtype]}", *numbers)
    size = byte_count(dtype, shape)
    return (unit * -(-size // len(unit)))[:size]


def _placed(specs: tuple[TensorSpec, ...], given: dict[str, Any]) -> dict[int, Any]:
    """What a sample gives for inputs by name, by the input's place."""
    by_name = positions(specs)
    placed: dict[int, Any] = {}
    for name, value in given.items():
        at = by_name.get(name)
        if at is None:
            raise UnsupportedModelError(f"the package's sample names {name!r}, which is no input of the model")
        if at in placed:
            raise UnsupportedModelError(f"the package's sample gives input {specs[at].name!r} twice, by both its names")
        placed[at] = value
    return placed


def _shapes(specs: tuple[TensorSpec, ...], given: dict[int, tuple[int, ...]]) -> Shapes:
    shapes = []
    for at, spec in enumerate(specs):
        wanted = given.get(at, spec.shape)
        fitted = fit_shape(spec, wanted)
        if fitted is None:
            raise UnsupportedModelError(
                f"the package's sample gives input {spec.name!r} the shape {shape_text(wanted)}; the model takes {shape_text(spec.signature)}"
            )
        shapes.append(fitted)
    return tuple(shapes)


def _read(fd: int, specs: tuple[TensorSpec, ...]) -> list[Any]:
    import numpy as np

    from edge.arrays import dtype_of

    try:
        with os.fdopen(fd, "rb", closefd=False) as file:
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                named = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, NotImplementedError) as error:
        raise UnsupportedModelError(f"the package's sample is not an .npz of arrays: {str(error)[:100]}") from None
    arrays = _placed(specs, named)
    shapes = _shapes(specs, {at: tuple(array.shape) for at, array in arrays.items()})
    found = []
    for at, (spec, shape) in enumerate(zip(specs, shapes, strict=True)):
        array = arrays.get(at)
        if array is None:
            raise UnsupportedModelError(f"the package's sample has no array for input {spec.name!r}")
        if dtype_of(array.dtype) != spec.dtype:
            raise UnsupportedModelError(
                f"the package's sample has {array.dtype} for input {spec.name!r}; the model takes {spec.dtype.name}"
            )
        found.append(np.ascontiguousarray(array).reshape(shape))
    return found
