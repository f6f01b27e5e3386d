"""What a tensor is to this agent: dtype, name, shape, and the bytes they need. Pure.

Bytes are C order, little-endian (P-9). The dtype numbers are the wire ([T]).
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

DYNAMIC = -1  # a dimension of a model's signature that the caller chooses
MAX_RANK = 32  # dimensions of a tensor: the limit of numpy 1.x
MAX_DIMENSION = 2**31 - 1  # size of a dimension: the API's shape is a repeated int32


class DType(IntEnum):
    """Element types, numbered as on the wire; INT8 and up are additions to the original API."""

    UINT8 = 0
    INT16 = 1
    INT32 = 2
    INT64 = 3
    FLOAT16 = 4
    FLOAT32 = 5
    FLOAT64 = 6
    INT8 = 7
    BOOL = 8
    UINT16 = 9
    UINT32 = 10
    UINT64 = 11

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return _ITEM_BYTES[self]


_ITEM_BYTES = {
    DType.UINT8: 1,
    DType.INT16: 2,
    DType.INT32: 4,
    DType.INT64: 8,
    DType.FLOAT16: 2,
    DType.FLOAT32: 4,
    DType.FLOAT64: 8,
    DType.INT8: 1,
    DType.BOOL: 1,
    DType.UINT16: 2,
    DType.UINT32: 4,
    DType.UINT64: 8,
}


def integer_range(dtype: DType) -> tuple[int, int] | None:
    """The smallest and the largest number of an integer dtype; None of one that has fractions, and of BOOL."""
    bits = 8 * dtype.itemsize
    if dtype.name.startswith("UINT"):
        return 0, 2**bits - 1
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.name.startswith("INT") else None


def dtype_name(number: int) -> str:
    """The dtype's name, or the bare number where there is none."""
    try:
        return DType(number).name
    except ValueError:
        return f"unknown data type {number}"


class TensorSpec(NamedTuple):
    """One input or output of a model.

    `signature` is `shape` with DYNAMIC where the caller may choose; `shape` is what the model has before any resize.
    `other_name` is a second name that requests may use, if there is one. Where `scale` is not 0, an element stands for
    (element - `zero_point`) * `scale`. An adapter (edge.package.adapter) may add an `accept_shape`, taken as `shape`, and the
    `order` in which the dimensions become those of the model.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    other_name: str = ""
    scale: float = 0.0
    zero_point: int = 0
    accept_shape: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None

    @property
    def byte_count(self) -> int:
        """Bytes of one tensor of `shape`."""
        return byte_count(self.dtype, self.shape)


def positions(specs: Sequence[TensorSpec]) -> dict[str, int]:
    """Where the tensor is that a name stands for; a tensor's own name goes before the other name of another."""
    others = {spec.other_name: at for at, spec in enumerate(specs) if spec.other_name}
    return others | {spec.name: at for at, spec in enumerate(specs)}


def byte_count(dtype: DType, shape: Sequence[int]) -> int:
    """Bytes that a tensor of this dtype and shape takes; the empty shape is a scalar."""
    return dtype.itemsize * math.prod(shape)


def byte_count_fault(dtype: DType, shape: Sequence[int], size: int) -> str | None:
    """What is wrong with `size` bytes for a tensor, in words, and what they may have been meant for."""
    needed, elements = byte_count(dtype, shape), math.prod(shape)
    if size == needed:
        return None
    text = f"got {size} bytes, expected {needed} for {dtype.name} {shape_text(shape)}"
    usual = _USUAL_INTEGERS if dtype in _USUAL_INTEGERS else _USUAL_NUMBERS
    other = next((one for one in (DType.UINT8, *usual) if elements and size == one.itemsize * elements), None)
    if other is None:
        return text
    text += f"; these are as many bytes as {other.name} {shape_text(shape)} takes"
    return text + (", or a number of elements in place of one of bytes" if size == elements else "")


# What numbers of each size most likely are, beside integers and beside others.
_USUAL_INTEGERS = (DType.INT16, DType.INT32, DType.INT64)
_USUAL_NUMBERS = (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64)


def own_shape(spec: TensorSpec, dtype: int, shape: tuple[int, ...], size: int) -> tuple[int, ...] | None:
    """The model's own shape for `size` bytes that are declared as something else and are not that (P-2).

    None where the declaration agrees with its bytes, is none (a dtype or a dimension that cannot be), or where the bytes
    are not exactly as many as the model's own dtype and shape need.
    """
    if not any(dtype == known for known in DType) or any(n < 0 for n in shape):
        return None
    own = fit_shape(spec, shape) or spec.shape
    return own if byte_count(DType(dtype), shape) != size == byte_count(spec.dtype, own) else None


def rank_fault(shape: Sequence[int]) -> str | None:
    """What is wrong with the number of a shape's dimensions, in words; before anything is calculated from them."""
    if len(shape) <= MAX_RANK:
        return None
    return f"got a shape of {len(shape)} dimensions; at most {MAX_RANK} are allowed"


def shape_text(shape: Sequence[int]) -> str:
    """A shape as people write it: `[1, 224, 224, 3]`, with `?` for a dynamic dimension."""
    return "[" + ", ".join("?" if n == DYNAMIC else str(n) for n in shape) + "]"


def fit_shape(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape to give the model for a tensor sent with `shape`, or None where it cannot take it (P-8).

    A shape fits where the model's signature is dynamic, or where it has the model's element count and differs only by
    leading 1s.
    """
    if shape == spec.shape:
        return shape
    if any(n < 0 for n in shape):
        return None
    wanted = spec.signature
    if len(shape) == len(wanted) and all(w in (n, DYNAMIC) for n, w in zip(shape, wanted, strict=True)):
        return shape
    if shape == spec.accept_shape:
        return spec.shape
    if math.prod(shape) == math.prod(spec.shape) and _core(shape) == _core(spec.shape):
        return spec.shape
    return None


def fitting_order(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of its dimensions in which a shape would fit, as numpy.transpose takes it; None where there is none."""
    wanted, leading = spec.signature, 0
    if len(shape) != len(wanted):
        wanted, leading = _core(spec.shape), len(shape) - len(_core(shape))
    if len(shape) - leading != len(wanted):
        return None
    free, order = list(range(leading, len(shape))), dict[int, int]()
    for position in sorted(range(len(wanted)), key=lambda at: wanted[at] == DYNAMIC):  # what is fixed chooses first
        size = wanted[position]
        found = next((at for at in free if shape[at] >= 0 and size in (shape[at], DYNAMIC)), None)
        if found is None:
            return None
        free.remove(found)
        order[position] = found
    return (*range(leading), *(order[position] for position in range(len(wanted))))


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without its leading 1s."""
    for position, size in enumerate(shape):
        if size != 1:
            return shape[position:]
    return ()


class Lent:
    """Memory that an inference may read where it is; READABLE_BEHIND_BYTES after it can be read as well.

    It does so by the address, and without the interpreter lock, for it may be a client's file (edge.shm.guard); `memory` is for all others.
    """

    __slots__ = ("address", "memory")

    def __init__(self, memory: memoryview, address: int) -> None:
        self.memory = memory
        self.address = address

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.memory)


# Vectorised kernels read past the end of their input, XNNPACK's up to XNN_EXTRA_BYTES (128).
READABLE_BEHIND_BYTES = 4096

Data = bytes | memoryview | Lent
