"""What a package changes between a model's tensors and those that its applications know (S-9). Pure.

An application that was written for one model keeps talking to one that was made anew: with its dtypes, its layout of
pictures, its shapes. `edge.engine.adapting` does it, by what is found here to fit the model.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from edge.errors import ManifestError
from edge.strict_json import JsonFault, array, check_keys, kind, sizes, table, text
from edge.tensors import DYNAMIC, DType, TensorSpec, integer_range, positions, shape_text
from edge.text import shown

MAX_ADAPTED = 256  # tensors that an adapter describes, of the inputs or of the outputs
MAX_NAME_CHARACTERS = 1024  # of a tensor's name in a manifest
LAYOUTS = {"NCHW": (0, 2, 3, 1), "NHWC": (0, 3, 1, 2)}  # of the application; how its dimensions become the model's

_QUANTISED = (DType.UINT8, DType.INT8, DType.UINT16, DType.INT16)
_WIDE = (DType.INT64, DType.UINT64)
NUMBERS = tuple(dtype.name for dtype in DType if dtype is not DType.BOOL)


@dataclass(frozen=True)
class TensorAdapter:
    """How one tensor of a model looks to applications; what is not given is as the model has it.

    `scale` and `zero_point`: the application's quantisation, where its numbers stand for (number - zero_point) * scale.
    """

    name: str
    dtype: DType | None = None
    scale: float = 0.0
    zero_point: int = 0
    layout: str = ""
    accept_shape: tuple[int, ...] | None = None


def read_adapters(value: object, where: str) -> tuple[TensorAdapter, ...]:
    """The entries of `inputs` or `outputs` of a manifest.

    Raises:
        JsonFault: says which is wrong, and how.
    """
    found = tuple(_read(one, f"{where}[{at}]", where) for at, one in enumerate(array(value, where, most=MAX_ADAPTED)))
    names: set[str] = set()
    for one in found:
        if one.name in names:
            raise JsonFault(f"{where} has {shown(one.name)} twice")
        names.add(one.name)
    return found


def format_adapter(adapter: TensorAdapter) -> dict[str, Any]:
    """The entry that `read_adapters` reads back."""
    value: dict[str, Any] = {"name": adapter.name}
    if adapter.accept_shape is not None:
        value["accept_shape"] = list(adapter.accept_shape)
    if adapter.layout:
        value["layout"] = adapter.layout
    if adapter.dtype is not None:
        value["as"] = adapter.dtype.name
    if adapter.scale:
        value |= {"scale": adapter.scale, "zero_point": adapter.zero_point}
    return value


def _read(value: object, where: str, side: str) -> TensorAdapter:
    entry = table(value, where)
    changes = ("as", "scale", "zero_point") + (("accept_shape", "layout") if side == "inputs" else ())
    check_keys(entry, where, required=("name",), optional=changes)
    name = text(entry["name"], f"{where}.name")
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise JsonFault(f"{where}.name must have 1 to {MAX_NAME_CHARACTERS} characters, got {len(name)}")
    if len(entry) == 1:
        raise JsonFault(f"{where} changes nothing; expected {', '.join(changes)}")
    dtype_word = _choice(entry, "as", where, NUMBERS)
    dtype = DType[dtype_word] if dtype_word else None
    scale, zero_point = _quantisation(entry, where, dtype)
    return TensorAdapter(
        name,
        dtype,
        scale,
        zero_point,
        layout=_choice(entry, "layout", where, LAYOUTS),
        accept_shape=sizes(entry["accept_shape"], f"{where}.accept_shape") if "accept_shape" in entry else None,
    )


def _choice(entry: dict[str, Any], key: str, where: str, choices: Collection[str]) -> str:
    """The word that the key has, or nothing where it is not there."""
    if key not in entry:
        return ""
    word = text(entry[key], f"{where}.{key}")
    if word not in choices:
        raise JsonFault(f"{where}.{key} {shown(word)} is not known; expected {', '.join(choices)}")
    return word


def _quantisation(entry: dict[str, Any], where: str, dtype: DType | None) -> tuple[float, int]:
    if "scale" not in entry:
        if "zero_point" in entry:
            raise JsonFault(f"{where}.zero_point has no effect without {where}.scale")
        return 0.0, 0
    span = integer_range(dtype) if dtype in _QUANTISED else None
    if dtype is None or span is None:
        allowed = ", ".join(one.name for one in _QUANTISED)
        raise JsonFault(f"{where}.scale has no effect unless {where}.as is one of {allowed}")
    scale, zero_point = entry["scale"], entry.get("zero_point", 0)
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise JsonFault(f"{where}.scale must be a number, not {kind(scale)}")
    if not _MIN_SCALE <= scale <= _MAX_SCALE:
        raise JsonFault(f"{where}.scale must be {_MIN_SCALE:g} to {_MAX_SCALE:g}, got {shown(str(scale))}")
    if type(zero_point) is not int or not span[0] <= zero_point <= span[1]:
        raise JsonFault(
            f"{where}.zero_point must be {span[0]} to {span[1]} for {dtype.name}, got {shown(str(zero_point))}"
        )
    return float(scale), zero_point


_MIN_SCALE, _MAX_SCALE = 1e-30, 1e30  # within what FLOAT32 can hold


def view(specs: Sequence[TensorSpec], adapters: Sequence[TensorAdapter], side: str) -> tuple[TensorSpec, ...]:
    """What applications see of a model's inputs or outputs.

    Raises:
        ManifestError: an adapter does not fit the model (L-4).
    """
    by_name = positions(specs)
    found: dict[int, TensorAdapter] = {}
    for one in adapters:
        at = by_name.get(one.name)
        if at is None:
            names = ", ".join(shown(spec.name) for spec in specs)
            raise ManifestError(
                f"the manifest adapts {shown(one.name)} of {side}, which is none of the model's or another name of one; it has {names}"
            )
        if at in found:
            raise ManifestError(
                f"the manifest adapts one tensor of {side} twice: {shown(found[at].name)} and {shown(one.name)} are both its names"
            )
        found[at] = one
    try:
        return tuple(_view(spec, found[at], side) if at in found else spec for at, spec in enumerate(specs))
    except _MisfitError as misfit:
        raise ManifestError(f"the manifest's {side} do not fit the model: {misfit}") from None


class _MisfitError(Exception):
    """An adapter that does not fit its tensor, in words."""


def _view(spec: TensorSpec, adapter: TensorAdapter, side: str) -> TensorSpec:
    seen = spec
    if adapter.layout:
        if len(spec.shape) != 4:
            raise _MisfitError(
                f"{shown(spec.name)} has shape {shape_text(spec.signature)}; a layout needs four dimensions"
            )
        order = LAYOUTS[adapter.layout]
        seen = seen._replace(shape=_undone(spec.shape, order), signature=_undone(spec.signature, order), order=order)
    if adapter.accept_shape is not None:
        if math.prod(adapter.accept_shape) != math.prod(seen.shape) or DYNAMIC in seen.signature:
            raise _MisfitError(
                f"{shown(spec.name)}: accept_shape {shape_text(adapter.accept_shape)} has "
                f"{math.prod(adapter.accept_shape)} elements, and the model takes {shape_text(seen.signature)}"
            )
        seen = seen._replace(accept_shape=adapter.accept_shape)
    if adapter.dtype is not None:
        _check_numbers(spec, adapter, adapter.dtype, side)
        seen = seen._replace(dtype=adapter.dtype, scale=adapter.scale, zero_point=adapter.zero_point)
    return seen


def _undone(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, ...]:
    """The shape whose dimensions in that order are `shape`."""
    return tuple(shape[order.index(at)] for at in range(len(shape)))


def _check_numbers(spec: TensorSpec, adapter: TensorAdapter, dtype: DType, side: str) -> None:
    if spec.dtype is DType.BOOL:
        raise _MisfitError(f"{shown(spec.name)} is BOOL, which is not a number")
    real = integer_range(spec.dtype) is None or spec.scale != 0.0
    if real and dtype in (DType.UINT8, DType.INT8) and not adapter.scale:
        raise _MisfitError(f"{shown(spec.name)} as {dtype.name} needs scale: the number that one step stands for")
    source, target = (dtype, spec.dtype) if side == "inputs" else (spec.dtype, dtype)
    if target in _WIDE and (integer_range(source) is None or spec.scale or adapter.scale):
        raise _MisfitError(f"{shown(spec.name)}: {source.name} cannot be made {target.name}, which has more digits")
