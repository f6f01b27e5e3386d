"""What a tensor is to this agent: dtype, name, shape, and the bytes they need. Pure.

Bytes are C order, little-endian (P-9). The dtype numbers are the wire (section 3 of docs/spec/api.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

DYNAMIC = -1  # a dimension of a model's signature that the caller chooses
MAX_RANK = 32  # numpy 1.x's own limit
MAX_DIMENSION = 2**31 - 1  # shape is repeated int32 on the wire


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


def dtype_name(number: int) -> str:
    """The dtype's name, or the bare number where there is none."""
    try:
        return DType(number).name
    except ValueError:
        return f"unknown data type {number}"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    `signature` is `shape` with DYNAMIC where the caller may choose; `shape` is what the model has before any resize.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    signature: tuple[int, ...]

    @property
    def byte_count(self) -> int:
        """Bytes of one tensor of `shape`."""
        return byte_count(self.dtype, self.shape)


def byte_count(dtype: DType, shape: Sequence[int]) -> int:
    """Bytes that a tensor of this dtype and shape takes; the empty shape is a scalar."""
    return dtype.itemsize * math.prod(shape)


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
    if len(shape) == len(wanted) and all(
        n == w or (w == DYNAMIC and n > 0) for n, w in zip(shape, wanted, strict=True)
    ):
        return shape
    if math.prod(shape) == math.prod(spec.shape) and _core(shape) == _core(spec.shape):
        return spec.shape
    return None


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without its leading 1s."""
    for position, size in enumerate(shape):
        if size != 1:
            return shape[position:]
    return ()
