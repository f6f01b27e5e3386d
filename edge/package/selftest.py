"""The self-test of a package: inputs, and the outputs that the model gives for them within a tolerance (S-10). Pure.

`selftest.json` says what the tensors are; their bytes stand in `selftest.bin`, in the order of the former, without gaps. Both
are signed with the package and are read as everything in it: hostile until checked.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge.errors import PackageError
from edge.strict_json import JsonFault, array, check_keys, kind, parse_object, sizes, table, text
from edge.tensors import DType, byte_count
from edge.text import SHOWN_CHARACTERS, cut, shown

SELFTEST_FILE = "selftest.json"
SELFTEST_DATA = "selftest.bin"
FORMAT_VERSION = 1
MAX_SELFTEST_BYTES = 256 * 1024  # of selftest.json
MAX_SELFTEST_DATA_BYTES = 64 << 20  # of selftest.bin
MAX_SELFTEST_MARKS = 32 * 1024  # commas, colons, brackets and braces in selftest.json
MAX_CASES = 256  # in a self-test
MAX_CASE_TENSORS = 256  # inputs, or outputs, of a case of a self-test
MAX_CASE_NAME_CHARACTERS = 128  # of the name of a self-test's case
MAX_NAME_CHARACTERS = 1024  # of a tensor's name in a self-test
MAX_TOLERANCE = 1e30  # that a self-test may state


@dataclass(frozen=True)
class GoldenTensor:
    """A tensor as applications see it. An element of an output may be off by `absolute` + `relative` * what it should be."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    absolute: float = 0.0
    relative: float = 0.0

    @property
    def byte_count(self) -> int:
        """How many bytes of `selftest.bin` are its own."""
        return byte_count(self.dtype, self.shape)


@dataclass(frozen=True)
class Case:
    """An inference: all inputs, and the outputs that are compared."""

    name: str
    inputs: tuple[GoldenTensor, ...]
    outputs: tuple[GoldenTensor, ...]


@dataclass(frozen=True)
class SelfTest:
    """The cases, in the order of their bytes."""

    cases: tuple[Case, ...]

    def tensors(self) -> Iterator[GoldenTensor]:
        """All tensors, in the order of their bytes."""
        for case in self.cases:
            yield from case.inputs
            yield from case.outputs

    @property
    def byte_count(self) -> int:
        """The size of `selftest.bin`."""
        return sum(tensor.byte_count for tensor in self.tensors())


def parse_selftest(data: bytes, data_bytes: int, *, recorded: bool = True) -> SelfTest:
    """The self-test that `data` describes, whose tensors take `data_bytes`; with outputs in each case, if it is `recorded`.

    Raises:
        PackageError: says which key is wrong, and how.
    """
    if data_bytes > MAX_SELFTEST_DATA_BYTES:
        raise PackageError(f"{SELFTEST_DATA} has {data_bytes} bytes; at most {MAX_SELFTEST_DATA_BYTES} are allowed")
    try:
        found = _read(parse_object(data, max_bytes=MAX_SELFTEST_BYTES, max_marks=MAX_SELFTEST_MARKS), recorded)
    except JsonFault as fault:
        raise PackageError(f"{SELFTEST_FILE} {fault}") from fault
    if found.byte_count != data_bytes:
        raise PackageError(
            f"{SELFTEST_FILE} has tensors of {cut(str(found.byte_count), SHOWN_CHARACTERS)} bytes; {SELFTEST_DATA} has {data_bytes}"
        )
    return found


def format_selftest(selftest: SelfTest, *, recorded: bool = True) -> bytes:
    """A self-test as JSON, which `parse_selftest` reads.

    Raises:
        PackageError: it would not be read back.
    """
    value = {
        "format_version": FORMAT_VERSION,
        "cases": [
            {
                "name": case.name,
                "inputs": [_entry(tensor) for tensor in case.inputs],
                "outputs": [_entry(tensor) for tensor in case.outputs],
            }
            for case in selftest.cases
        ],
    }
    data = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    parse_selftest(data, selftest.byte_count, recorded=recorded)
    return data


def _entry(tensor: GoldenTensor) -> dict[str, Any]:
    value: dict[str, Any] = {"name": tensor.name, "dtype": tensor.dtype.name, "shape": list(tensor.shape)}
    for key in ("absolute", "relative"):
        if number := getattr(tensor, key):
            value[key] = number
    return value


def _read(value: dict[str, Any], recorded: bool) -> SelfTest:
    version = value.get("format_version", FORMAT_VERSION)  # first: another version may have other keys
    if type(version) is not int or version != FORMAT_VERSION:
        raise JsonFault(f"has format_version {shown(str(version))}; this agent reads {FORMAT_VERSION}")
    check_keys(value, "", required=("format_version", "cases"))
    entries = array(value["cases"], "cases", most=MAX_CASES)
    if not entries:
        raise JsonFault("has no case")
    cases = tuple(_case(one, f"cases[{at}]", recorded) for at, one in enumerate(entries))
    _check_unlike([case.name for case in cases], "cases")
    return SelfTest(cases)


def _case(value: object, where: str, recorded: bool) -> Case:
    entry = table(value, where)
    check_keys(entry, where, required=("name", "inputs", "outputs"))
    name = _name(entry["name"], f"{where}.name", MAX_CASE_NAME_CHARACTERS)
    inputs = _tensors(entry["inputs"], f"{where}.inputs", ())
    outputs = _tensors(entry["outputs"], f"{where}.outputs", ("absolute", "relative"))
    if not outputs and recorded:
        raise JsonFault(f"{where} has no outputs to compare")
    return Case(name, inputs, outputs)


def _tensors(value: object, where: str, optional: tuple[str, ...]) -> tuple[GoldenTensor, ...]:
    entries = array(value, where, most=MAX_CASE_TENSORS)
    tensors = tuple(_tensor(one, f"{where}[{at}]", optional) for at, one in enumerate(entries))
    _check_unlike([tensor.name for tensor in tensors], where)
    return tensors


def _tensor(value: object, where: str, optional: tuple[str, ...]) -> GoldenTensor:
    entry = table(value, where)
    check_keys(entry, where, required=("name", "dtype", "shape"), optional=optional)
    word = text(entry["dtype"], f"{where}.dtype")
    if word not in DType.__members__:
        raise JsonFault(f"{where}.dtype {shown(word)} is not known; expected {', '.join(DType.__members__)}")
    dtype = DType[word]
    tensor = GoldenTensor(
        _name(entry["name"], f"{where}.name", MAX_NAME_CHARACTERS),
        dtype,
        sizes(entry["shape"], f"{where}.shape"),
        _tolerance(entry, "absolute", where),
        _tolerance(entry, "relative", where),
    )
    if dtype is DType.BOOL and (tensor.absolute or tensor.relative):
        raise JsonFault(f"{where} is BOOL, which has no tolerance")
    return tensor


def _tolerance(entry: dict[str, Any], key: str, where: str) -> float:
    value = entry.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JsonFault(f"{where}.{key} must be a number, not {kind(value)}")
    if not 0 <= value <= MAX_TOLERANCE or not math.isfinite(value):
        raise JsonFault(f"{where}.{key} must be 0 to {MAX_TOLERANCE:g}, got {shown(str(value))}")
    return float(value)


def _name(value: object, where: str, most: int) -> str:
    name = text(value, where)
    if not 1 <= len(name) <= most:
        raise JsonFault(f"{where} must have 1 to {most} characters, got {len(name)}")
    return name


def _check_unlike(names: list[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise JsonFault(f"{where} has {shown(name)} twice")
        seen.add(name)
