"""Dtypes as numpy knows them. Apart from `edge.tensors`, so that an agent that serves no model yet needs no numpy."""

import numpy as np

from edge.tensors import DType

_NUMPY: dict[DType, np.dtype[np.generic]] = {
    member: np.dtype(member.name.lower() if member is not DType.BOOL else "bool").newbyteorder("<") for member in DType
}
_FROM_NUMPY: dict[np.dtype[np.generic], DType] = {dtype: member for member, dtype in _NUMPY.items()}


def numpy_dtype(dtype: DType) -> np.dtype[np.generic]:
    """The numpy dtype, little-endian."""
    return _NUMPY[dtype]


def dtype_of(numpy_dtype: object) -> DType | None:
    """The DType of a numpy dtype, or None where the API has none for it (strings, complex, resources)."""
    try:
        return _FROM_NUMPY.get(np.dtype(numpy_dtype))  # type: ignore[call-overload]
    except TypeError:
        return None
