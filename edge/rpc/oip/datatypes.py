"""The protocol's names of element types, and the lists that carry typed contents."""

from array import array
from typing import Any

from edge.errors import TensorError
from edge.tensors import DType
from edge.text import shown

NAMES = {
    DType.BOOL: "BOOL",
    DType.UINT8: "UINT8",
    DType.UINT16: "UINT16",
    DType.UINT32: "UINT32",
    DType.UINT64: "UINT64",
    DType.INT8: "INT8",
    DType.INT16: "INT16",
    DType.INT32: "INT32",
    DType.INT64: "INT64",
    DType.FLOAT16: "FP16",
    DType.FLOAT32: "FP32",
    DType.FLOAT64: "FP64",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
# The list that holds numbers of a dtype, and their type code in `array`; FP16 has none.
_LISTS = {
    DType.BOOL: ("bool_contents", "B"),
    DType.UINT8: ("uint_contents", "B"),
    DType.UINT16: ("uint_contents", "H"),
    DType.UINT32: ("uint_contents", "I"),
    DType.UINT64: ("uint64_contents", "Q"),
    DType.INT8: ("int_contents", "b"),
    DType.INT16: ("int_contents", "h"),
    DType.INT32: ("int_contents", "i"),
    DType.INT64: ("int64_contents", "q"),
    DType.FLOAT32: ("fp32_contents", "f"),
    DType.FLOAT64: ("fp64_contents", "d"),
}


def dtype_of(tensor: str, datatype: str) -> DType:
    """The dtype of a tensor that is declared with the protocol's name of one.

    Raises:
        TensorError: there is none of that name, or the agent's models take none.
    """
    dtype = DTYPES.get(datatype)
    if dtype is not None:
        return dtype
    why = "; no model here takes text" if datatype == "BYTES" else ""
    raise TensorError(
        f"tensor {shown(tensor)}: got datatype {shown(datatype)}, expected one of {', '.join(NAMES.values())}{why}"
    )


def contents_bytes(tensor: str, dtype: DType, contents: Any) -> bytes:
    """The elements of typed contents, as in raw contents.

    Raises:
        TensorError: they are in another list than that of the dtype, or do not fit into it.
    """
    if dtype not in _LISTS:
        raise TensorError(
            f"tensor {shown(tensor)}: typed contents cannot hold {NAMES[dtype]}; send it in raw_input_contents"
        )
    name, code = _LISTS[dtype]
    if others := [field.name for field, _ in contents.ListFields() if field.name != name]:
        raise TensorError(f"tensor {shown(tensor)}: got {others[0]}, expected {name} for {NAMES[dtype]}")
    try:
        return array(code, getattr(contents, name)).tobytes()
    except OverflowError:
        raise TensorError(f"tensor {shown(tensor)}: {name} has a number that does not fit {NAMES[dtype]}") from None
