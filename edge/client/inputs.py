"""Files and JSON as the tensors of a model."""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge import json_faults
from edge.arrays import numpy_dtype
from edge.client import bmp, picture
from edge.client.outcome import InputError
from edge.rpc._generated import agent_pb2 as pb
from edge.tensors import DType, dtype_name, shape_text

Array = npt.NDArray[Any]
MAX_JSON_BYTES = 256 << 20


@dataclass(frozen=True)
class Given:
    """One input as named on the command line."""

    name: str  # empty: the model's next one
    file: str


def parse(word: str) -> Given:
    """`FILE` or `INPUT=FILE`; a file whose own name has a `=` is written with a `./` before it."""
    name, separator, file = word.partition("=")
    return Given(name, file) if separator and "/" not in name else Given("", word)


def dtype_of_input(metadata: pb.TensorMetadata) -> np.dtype[Any]:
    """The numpy dtype of a tensor.

    Raises:
        InputError: a dtype that this client does not know.
    """
    try:
        return numpy_dtype(DType(metadata.data_type))
    except ValueError:
        raise InputError(f"input {metadata.name!r} is of {dtype_name(metadata.data_type)}") from None


def read_inputs(words: list[str], wanted: list[pb.TensorMetadata]) -> list[tuple[str, Array]]:
    """The model's inputs in its order, from command-line words.

    Raises:
        InputError: a file cannot be used, or the inputs given are not the model's.
    """
    found: dict[str, Array] = {}
    by_name = {metadata.name: metadata for metadata in wanted}

    def keep(name: str, array: Array) -> None:
        if name in found:
            raise InputError(f"input {name!r} is given twice")
        found[name] = array

    for word in words:
        given = parse(word)
        if given.file == "-" or given.file.lower().endswith(".json"):
            value = _read_json(given.file)
            if isinstance(value, dict) and not given.name:
                for name, part in value.items():
                    keep(name, from_json(part, _metadata(by_name, name)))
                continue
        metadata = _metadata(by_name, given.name) if given.name else _next(wanted, found)
        if given.file == "-" or given.file.lower().endswith(".json"):
            keep(metadata.name, from_json(value, metadata))
        elif given.file.lower().endswith(picture.SUFFIXES):
            keep(metadata.name, from_picture(picture.read(given.file), metadata))
        else:
            keep(metadata.name, from_array(_read_npy(given.file), metadata))
    if missing := [name for name in by_name if name not in found]:
        raise InputError(f"no file for input {missing[0]!r}; the model takes {_listed(wanted)}")
    return [(metadata.name, found[metadata.name]) for metadata in wanted]


def _listed(wanted: list[pb.TensorMetadata]) -> str:
    return ", ".join(f"{m.name} ({dtype_name(m.data_type)} {shape_text(m.shape)})" for m in wanted) or "no inputs"


def _metadata(by_name: dict[str, pb.TensorMetadata], name: str) -> pb.TensorMetadata:
    if name not in by_name:
        raise InputError(f"the model has no input {name!r}; it takes {_listed(list(by_name.values()))}")
    return by_name[name]


def _next(wanted: list[pb.TensorMetadata], found: dict[str, Array]) -> pb.TensorMetadata:
    for metadata in wanted:
        if metadata.name not in found:
            return metadata
    raise InputError(f"more files than inputs; the model takes {_listed(wanted)}")


def _read_json(file: str) -> Any:
    try:
        if file == "-":
            return json.loads(sys.stdin.buffer.read(MAX_JSON_BYTES))  # UTF-8, whatever the locale
        with Path(file).open("rb") as source:
            return json.loads(source.read(MAX_JSON_BYTES))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: not JSON: {json_faults.explain(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON: {error}") from None


def _read_npy(file: str) -> Array:
    try:
        array = np.load(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    except (ValueError, EOFError, MemoryError):
        kinds = ".npy (of numbers), .json, .bmp; .png, .jpg and others where Python's Pillow is installed"
        raise InputError(f"{file}: unsupported or damaged file; supported are {kinds}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{file}: an archive of arrays; give one .npy for each input")
    return array


def from_json(value: Any, metadata: pb.TensorMetadata) -> Array:
    """Nested lists of numbers as the model's dtype.

    Raises:
        InputError: not numbers, lists of unlike lengths, or values that the dtype cannot hold.
    """
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        raise InputError(f"input {metadata.name!r}: lists of different lengths, or numbers too large") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"input {metadata.name!r}: expected numbers only")
    return from_array(array, metadata)


def from_array(array: Array, metadata: pb.TensorMetadata) -> Array:
    """The array as the model's dtype, where that changes no value beyond rounding, and in its shape up to 1s.

    Raises:
        InputError: a value does not survive.
    """
    dtype = dtype_of_input(metadata)
    if array.dtype != dtype:
        if array.dtype.kind not in "biuf":
            raise InputError(f"input {metadata.name!r}: an array of {array.dtype}; the model takes {dtype}")
        with np.errstate(all="ignore"):
            turned = array.astype(dtype)
            lost = (
                (np.isinf(turned) & ~np.isinf(array)).any() if dtype.kind == "f" else not np.array_equal(turned, array)
            )
        if lost:
            raise InputError(f"input {metadata.name!r}: {array.dtype} values that {dtype} cannot hold")
        array = turned
    shape = tuple(metadata.shape)
    if array.size == math.prod(shape) and [n for n in array.shape if n != 1] == [n for n in shape if n != 1]:
        array = array.reshape(shape)
    return np.ascontiguousarray(array) if array.ndim else array


def from_picture(
    pixels: bmp.Picture,
    metadata: pb.TensorMetadata,
    size: tuple[int, int, int] | None = None,
    layout: str | None = None,
) -> Array:
    """A picture as the model takes it, resized to `size` (width, height, channels) or to what the model asks for.

    `layout` is NHWC or NCHW; without it, channels stand where the model's shape has them.

    Raises:
        InputError: the model's input is not a picture.
    """
    shape = list(metadata.shape)
    first = layout == "NCHW" if layout else _channels_first(shape, size[2] if size else None)
    if size is None:
        if len(shape) < 3:
            raise InputError(
                f"input {metadata.name!r} has the shape {shape_text(shape)}, which is not that of a picture; give a .npy or .json"
            )
        high, wide, count = shape[-2:] + shape[-3:-2] if first else shape[-3:]
        # A model that takes any size says so with -1, or with the 1 that it holds before it is told.
        wide, high = (wide if wide > 1 else pixels.shape[1]), (high if high > 1 else pixels.shape[0])
        size = (wide, high, count)
    wide, high, count = size
    if not (0 < wide <= bmp.MAX_SIDE and 0 < high <= bmp.MAX_SIDE):
        raise InputError(f"{wide} x {high} pixels; a side must have 1 to {bmp.MAX_SIDE}")
    pixels = bmp.channels(bmp.resize(pixels, wide, high), count)
    if first:
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(bmp.as_tensor(pixels[None], dtype_of_input(metadata)))


def _channels_first(shape: list[int], count: int | None) -> bool:
    """Whether pictures go in as [.., c, h, w]: only where the last dimension cannot be channels and that one can."""
    counts = (1, 3, 4) if count is None else (count,)
    return len(shape) >= 3 and shape[-1] not in counts and shape[-3] in counts


def tensor(name: str, array: Array, segment_id: int | None = None) -> pb.Tensor:
    """The message for an array: its bytes, or the segment that holds them."""
    made = pb.Tensor(
        tensor_metadata=pb.TensorMetadata(
            name=name, data_type=pb.DataType.Name(_number(array)), shape=list(array.shape)
        )
    )
    if segment_id is None:
        made.byte_data = array.tobytes()
    else:
        made.shared_memory_handle.segment_id = segment_id
        made.shared_memory_handle.size = array.nbytes
    return made


def _number(array: Array) -> int:
    return int(DType["BOOL" if array.dtype.kind == "b" else array.dtype.name.upper()])


def array_of(answer: pb.Tensor) -> Array:
    """An output tensor as an array.

    Raises:
        InputError: a dtype that this client does not know, or bytes that do not fit the shape.
    """
    metadata = answer.tensor_metadata
    try:
        return np.frombuffer(answer.byte_data, dtype_of_input(metadata)).reshape(tuple(metadata.shape))
    except ValueError as error:
        raise InputError(f"output {metadata.name!r} came back malformed: {error}") from None
