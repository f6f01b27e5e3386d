"""A record file's lines, made captures again: this agent's, and those of the original (R-2 to R-4). Pure.

Everything in a line is from outside. A line is bounded before it is parsed, by its bytes and by how many lists and objects
it begins, so that no line takes more memory than `MAX_LINE_BYTES` some times over.
"""

import binascii
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from edge.capture import layout
from edge.capture.record import AUXILIARY_INPUT, AUXILIARY_OUTPUT, INPUT_TENSOR, MAX_ENTRIES, OUTPUT_TENSOR, Encoding
from edge.client.outcome import InputError
from edge.tensors import MAX_DIMENSION, DType, byte_count, byte_count_fault, rank_fault
from edge.text import printable, shown

MAX_LINE_BYTES = 16 << 20
MAX_LISTS = 100_000  # that a line begins, objects counted: each takes 20 times its bytes
MAX_TENSOR_BYTES = 1 << 30
MAX_TEXT_CHARACTERS = 1000  # of a name, an id, a version

_PARTS = {
    "deviceFleetInputs": INPUT_TENSOR,
    "deviceFleetOutputs": OUTPUT_TENSOR,
    "deviceFleetAuxiliaryInputs": AUXILIARY_INPUT,
    "deviceFleetAuxiliaryOutputs": AUXILIARY_OUTPUT,
}
_KINDS = (layout.INPUT_TENSORS, layout.OUTPUT_TENSORS, layout.INPUT_AUXILIARY, layout.OUTPUT_AUXILIARY)
_TENSOR = re.compile(r"Tensor\[(\w{1,16}); ?((?:[0-9]{1,10}(?:, ?)?){1,64})\]")


class RecordError(InputError):
    """A record, or a file that it names, is not what it should be; the text says what, and what was expected."""


class GoneError(RecordError):
    """A record file went after it was listed: an agent has uploaded it, or brought it to its place."""


@dataclass(frozen=True)
class Entry:
    """A tensor or an auxiliary entry of a capture.

    `dtype` and `shape` are None and () for what is no tensor. `reference` names the file that holds the bytes, as
    raw-data/KIND/NAME beside the record, and is empty where the record itself has them. `content` reads them.
    """

    name: str
    part: str  # "input tensor", "output tensor", "auxiliary input" or "auxiliary output"
    encoding: str  # "BASE64", "CSV", "JSON" or "NONE"
    content_type: str
    dtype: DType | None
    shape: tuple[int, ...]
    reference: str
    content: Callable[[], bytes] = field(repr=False, compare=False)

    def array(self) -> Any:
        """The tensor as a numpy array of its dtype and shape, read-only.

        Raises:
            RecordError: it is no tensor, or its file is not there or not as long as it must be.
        """
        import numpy as np

        if self.dtype is None:
            raise RecordError(f"{self.part} {shown(self.name)} is no tensor but {shown(self.content_type)}")
        data = self.content()
        if fault := byte_count_fault(self.dtype, self.shape, len(data)):
            raise RecordError(f"{self.part} {shown(self.name)}: {fault}")
        dtype = np.dtype("bool" if self.dtype is DType.BOOL else self.dtype.name.lower()).newbyteorder("<")
        return np.frombuffer(data, dtype).reshape(self.shape)


@dataclass(frozen=True)
class Capture:
    """What a model saw and said, once. `time` is the client's, in UTC.

    `reasons` say why the agent kept it, where no application asked for it; `milliseconds` is what the inference took and
    `status` the gRPC status that it ended with, where the record tells. `metadata` is all of eventMetadata, `origin` the
    record file.
    """

    capture_id: str
    time: datetime
    model_name: str
    model_version: str
    device: str
    fleet: str
    entries: tuple[Entry, ...]
    reasons: tuple[str, ...]
    milliseconds: float | None
    status: str
    metadata: Mapping[str, Any] = field(repr=False)
    origin: str

    @property
    def inputs(self) -> tuple[Entry, ...]:
        """What went in: its tensors."""
        return tuple(entry for entry in self.entries if entry.part == INPUT_TENSOR)

    @property
    def outputs(self) -> tuple[Entry, ...]:
        """What came out: its tensors."""
        return tuple(entry for entry in self.entries if entry.part == OUTPUT_TENSOR)


def parse(line: bytes, origin: str, raw: Callable[[str], bytes]) -> Capture:
    """The capture of a line; `raw` reads raw-data/KIND/NAME beside the record file.

    Raises:
        RecordError: the line is none.
    """
    event = parse_object(line)
    metadata = event.get("eventMetadata")
    if not isinstance(metadata, dict):
        raise RecordError(f"eventMetadata: got {_kind(metadata)}, expected an object")
    return Capture(
        capture_id=word(metadata, "eventId", needed=True),
        time=moment(metadata, "inferenceTime"),
        model_name=word(metadata, "modelName"),
        model_version=word(metadata, "modelVersion"),
        device=word(metadata, "deviceId"),
        fleet=word(metadata, "deviceFleetName"),
        entries=tuple(_entries(event, raw)),
        reasons=_reasons(metadata.get("captureReason")),
        milliseconds=number(metadata.get("inferenceMilliseconds")),
        status=word(metadata, "status"),
        metadata=metadata,
        origin=origin,
    )


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        RecordError: it is none, or not bounded.
    """
    if len(line) > MAX_LINE_BYTES:
        raise RecordError(f"longer than {MAX_LINE_BYTES >> 20} MiB")
    if line.count(b"[") + line.count(b"{") > MAX_LISTS:
        raise RecordError(f"more than {MAX_LISTS} lists and objects")
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {printable(str(error))}") from None
    if not isinstance(event, dict):
        raise RecordError(f"got {_kind(event)}, expected an object with eventMetadata")
    return event


def _entries(event: dict[str, Any], raw: Callable[[str], bytes]) -> Iterator[Entry]:
    lists = {key: event.get(key) or [] for key in _PARTS}
    for key, some in lists.items():
        if not isinstance(some, list):
            raise RecordError(f"{key}: got {_kind(some)}, expected a list")
    if (count := sum(map(len, lists.values()))) > MAX_ENTRIES:
        raise RecordError(f"got {count} tensors and auxiliary entries; at most {MAX_ENTRIES} are allowed")
    for key, some in lists.items():
        for position, one in enumerate(some):
            try:
                yield _entry(one, _PARTS[key], raw)
            except RecordError as error:
                raise RecordError(f"{key}[{position}]: {error}") from None


def _entry(one: Any, part: str, raw: Callable[[str], bytes]) -> Entry:
    if not isinstance(one, dict):
        raise RecordError(f"got {_kind(one)}, expected an object")
    name, encoding = word(one, "name"), word(one, "encoding") or Encoding.BASE64.name
    content_type = word(one, "observedContentType")
    if encoding not in Encoding.__members__:
        raise RecordError(f"encoding {shown(encoding)}; expected one of {', '.join(Encoding.__members__)}")
    dtype, shape = _tensor(content_type) if part in (INPUT_TENSOR, OUTPUT_TENSOR) else (None, ())
    if ("data" in one) == ("data-ref" in one):
        raise RecordError("expected either data or data-ref")
    if "data-ref" in one:
        reference = _reference(one["data-ref"])
        return Entry(name, part, encoding, content_type, dtype, shape, reference, lambda: raw(reference))
    data = _data(one["data"], encoding)
    if dtype is not None and (fault := byte_count_fault(dtype, shape, len(data))):
        raise RecordError(f"{shown(name)}: {fault}")
    return Entry(name, part, encoding, content_type, dtype, shape, "", lambda: data)


def _tensor(content_type: str) -> tuple[DType | None, tuple[int, ...]]:
    match = _TENSOR.fullmatch(content_type)
    if match is None:
        if content_type.startswith("Tensor"):
            raise RecordError(f"observedContentType {shown(content_type)}; expected Tensor[DTYPE; N, ...]")
        return None, ()
    if match[1] not in DType.__members__:
        raise RecordError(f"data type {shown(match[1])}; expected one of {', '.join(DType.__members__)}")
    dtype, shape = DType[match[1]], tuple(int(number) for number in match[2].rstrip(", ").split(","))
    if fault := rank_fault(shape):
        raise RecordError(fault)
    if max(shape) > MAX_DIMENSION or byte_count(dtype, shape) > MAX_TENSOR_BYTES:
        raise RecordError(f"{shown(content_type)} would take more than {MAX_TENSOR_BYTES >> 20} MiB")
    return dtype, shape


def _data(value: Any, encoding: str) -> bytes:
    if not isinstance(value, str):
        raise RecordError(f"data: got {_kind(value)}, expected text")
    if encoding != Encoding.BASE64.name:
        return value.encode("utf-8", "surrogatepass")
    try:
        return binascii.a2b_base64("".join(value.split()).encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise RecordError(f"data is not base64: {printable(str(error))}") from None


def _reference(value: Any) -> str:
    """raw-data/KIND/NAME: of a reference only that is believed. Where it is on the device or in the bucket does not matter
    to a copy, and nothing leads out of the record's own folder.
    """
    if not isinstance(value, str):
        raise RecordError(f"data-ref: got {_kind(value)}, expected text")
    path = unquote(value) if value.startswith("file:") else value
    parts = path.rsplit("/", 3)[1:]
    if ".." in path.split("/") or "\0" in path:
        raise RecordError(f"data-ref {shown(value)} leads elsewhere")
    if len(parts) != 3 or parts[0] != layout.RAW_DATA or parts[1] not in _KINDS or parts[2] in ("", "."):
        raise RecordError(f"data-ref {shown(value)}; expected .../{layout.RAW_DATA}/KIND/NAME")
    return "/".join(parts)


def word(fields: Mapping[str, Any], name: str, *, needed: bool = False) -> str:
    """A field that is a word of bounded length; empty where it is not there.

    Raises:
        RecordError: it is something else.
    """
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a version that somebody wrote as a number
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value):
        raise RecordError(f"{name}: got {_kind(value)}, expected text")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise RecordError(f"{name}: got {len(value)} characters, expected at most {MAX_TEXT_CHARACTERS}")
    return value


def moment(fields: Mapping[str, Any], name: str) -> datetime:
    """A field that is a time, in UTC where it does not say.

    Raises:
        RecordError: it is something else.
    """
    value = fields.get(name)
    try:
        time = datetime.fromisoformat(value)  # type: ignore[arg-type]
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        told = shown(value) if isinstance(value, str) else _kind(value)
        raise RecordError(f"{name}: got {told}, expected YYYY-MM-DDTHH:MM:SS") from None


def _reasons(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value[:MAX_TEXT_CHARACTERS],)
    if isinstance(value, list):
        return tuple(one[:MAX_TEXT_CHARACTERS] for one in value[:16] if isinstance(one, str))
    return ()


def number(value: Any) -> float | None:
    """A number, finite and 0 or more; None for all else."""
    found = finite(value)
    return found if found is not None and found >= 0 else None


def finite(value: Any) -> float | None:
    """A finite number; None for all else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            return None
        return found if math.isfinite(found) else None
    return None


def _kind(value: Any) -> str:
    """What a value is, in a word of JSON."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    names = {
        dict: "an object",
        list: "a list",
        str: "empty text" if value == "" else "text",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "something else")
