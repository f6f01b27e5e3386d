"""The record of one capture: what a request must be, and the JSON line it becomes (C-1, C-4, C-5, R-2 to R-4). Pure."""

import binascii
import codecs
import datetime
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from edge.capture import layout
from edge.errors import CaptureContentError, CaptureIdError, CaptureTimeError
from edge.tensors import DType, byte_count_fault
from edge.text import shown

MAX_ID_CHARACTERS = 128  # of a capture id (C-1), which is part of file names
MAX_ENTRIES = 1024  # tensors and auxiliary entries of a capture; each may become a file
_PART_BYTES = 256 * 1024
INPUT_TENSOR, OUTPUT_TENSOR = "input tensor", "output tensor"
AUXILIARY_INPUT, AUXILIARY_OUTPUT = "auxiliary input", "auxiliary output"
FUTURE_SECONDS = 5.0  # that a capture's timestamp may be ahead of the device's clock (C-4)
MAX_INFERENCE_TIME = 253402300799  # largest timestamp of a capture: 9999-12-31T23:59:59Z
EVENT_VERSION = "0"

_CAPTURE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Encoding(IntEnum):
    """How an auxiliary entry's bytes are to be read, numbered as on the wire."""

    CSV = 0
    JSON = 1
    NONE = 2
    BASE64 = 3


_CONTENT_TYPE = {
    Encoding.CSV: "text/csv",
    Encoding.JSON: "application/json",
    Encoding.NONE: "application/octet-stream",
    Encoding.BASE64: "application/octet-stream",
}


@dataclass(frozen=True)
class CapturedTensor:
    """A tensor of a capture; `data` is C order, little-endian, and a private copy."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    data: bytes | memoryview


@dataclass(frozen=True)
class AuxiliaryEntry:
    """What a capture carries beside tensors; `encoding` as on the wire."""

    name: str
    encoding: int
    data: bytes


@dataclass(frozen=True)
class ByPolicy:
    """What is told of a capture that nobody asked for: the reasons, the name that served, and how the inference went.

    `status`: how the call ended, where that is not OK.
    """

    reasons: tuple[str, ...]
    alias: str
    milliseconds: float
    status: str = ""

    def metadata(self) -> dict[str, Any]:
        """What eventMetadata has of it (K-5)."""
        told: dict[str, Any] = {
            "captureReason": list(self.reasons),
            "captureAlias": self.alias,
            "inferenceMilliseconds": round(self.milliseconds, 3),
        }
        return {**told, "status": self.status} if self.status else told


@dataclass(frozen=True)
class CaptureRequest:
    """One capture. The model's name and version are the package's own; `inference_time` in unix seconds, None is now.

    `chosen`: why, where nobody asked for it. `summary`: what it tells in place of tensors (K-7).
    """

    model_name: str
    model_version: str
    capture_id: str
    inference_time: float | None
    input_tensors: tuple[CapturedTensor, ...] = ()
    output_tensors: tuple[CapturedTensor, ...] = ()
    inputs: tuple[AuxiliaryEntry, ...] = ()
    outputs: tuple[AuxiliaryEntry, ...] = ()
    chosen: ByPolicy | None = None
    summary: Mapping[str, Any] | None = None
    traceparent: str = ""  # of the call, where it had one

    def further_metadata(self) -> dict[str, Any]:
        """What eventMetadata has beside the original's keys."""
        told = self.chosen.metadata() if self.chosen is not None else {}
        return {**told, "traceparent": self.traceparent} if self.traceparent else told


@dataclass(frozen=True)
class LargeEntry:
    """Bytes that go to a file of their own; `key` is its name in the bucket and below the capture folder."""

    key: str
    data: bytes | memoryview


@dataclass(frozen=True)
class Record:
    """A capture as it is stored: one line of JSON with its line end, and the files that it names."""

    line: bytes
    large: tuple[LargeEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of the line and the files."""
        return len(self.line) + sum(len(entry.data) for entry in self.large)


def check_id(capture_id: str) -> None:
    """[C-1]

    Raises:
        CaptureIdError: with what is allowed.
    """
    if len(capture_id) > MAX_ID_CHARACTERS or not _CAPTURE_ID.fullmatch(capture_id):
        raise CaptureIdError(
            f"capture id {shown(capture_id)} is not allowed; expected 1 to {MAX_ID_CHARACTERS} characters, "
            "a letter or digit and then letters, digits, '.', '_' or '-'"
        )


def check_time(inference_time: float | None, now: float) -> None:
    """[C-4] Both in unix seconds.

    Raises:
        CaptureTimeError: with how far ahead it is, or that it is no time.
    """
    if inference_time is None:
        return
    if not math.isfinite(inference_time) or not 0 <= inference_time <= MAX_INFERENCE_TIME:
        raise CaptureTimeError(f"inference timestamp {inference_time:g} is not a time since 1970")
    if inference_time > now + FUTURE_SECONDS:
        raise CaptureTimeError(
            f"inference timestamp {iso_seconds(inference_time)} is {inference_time - now:.0f} s ahead of this device's "
            f"clock ({iso_seconds(now)}); at most {FUTURE_SECONDS:.0f} s are allowed"
        )


def check_content(request: CaptureRequest) -> None:
    """[C-5]

    Raises:
        CaptureContentError: naming the list, the entry, got and expected.
    """
    tensors = ((INPUT_TENSOR, request.input_tensors), (OUTPUT_TENSOR, request.output_tensors))
    entries = ((AUXILIARY_INPUT, request.inputs), (AUXILIARY_OUTPUT, request.outputs))
    check_labels(
        [Labels(what, [tensor.name for tensor in some]) for what, some in tensors]
        + [Labels(what, [one.name for one in some], [one.encoding for one in some]) for what, some in entries]
    )
    for what, some in tensors:
        for tensor in some:
            _check_tensor(what, tensor)
    for what, more in entries:
        for entry in more:
            _check_auxiliary(what, entry)


class Labels(NamedTuple):
    """What the entries of a list are, their names, and the encodings of those that have one."""

    what: str
    names: Sequence[str]
    encodings: Sequence[int] = ()


def check_labels(lists: Sequence[Labels]) -> None:
    """[C-5] All that can be told without the entries' bytes.

    Raises:
        CaptureContentError: as `check_content`.
    """
    count = sum(len(entries.names) for entries in lists)
    if count > MAX_ENTRIES:
        raise CaptureContentError(
            f"the capture has {count} tensors and auxiliary entries; at most {MAX_ENTRIES} are allowed"
        )
    for what, names, encodings in lists:
        seen: set[str] = set()
        for position, name in enumerate(names):
            if not name:
                raise CaptureContentError(f"{what} {position}: its name is empty")
            if name in seen:
                raise CaptureContentError(f"{what} {shown(name)}: the name is repeated")
            seen.add(name)
        for name, encoding in zip(names, encodings, strict=bool(encodings)):
            if encoding not in _CONTENT_TYPE:
                known = ", ".join(f"{e.name} ({e.value})" for e in Encoding)
                raise CaptureContentError(f"{what} {shown(name)}: unknown encoding {encoding}; expected one of {known}")


def _check_tensor(what: str, tensor: CapturedTensor) -> None:
    if any(size < 0 for size in tensor.shape):
        raise CaptureContentError(
            f"{what} {shown(tensor.name)}: shape {list(tensor.shape)} has a negative dimension; expected 0 or more"
        )
    if fault := byte_count_fault(tensor.dtype, tensor.shape, len(tensor.data)):
        raise CaptureContentError(f"{what} {shown(tensor.name)}: {fault}")


def _check_auxiliary(what: str, entry: AuxiliaryEntry) -> None:
    encoding = Encoding(entry.encoding)
    if encoding in (Encoding.CSV, Encoding.JSON) and not _is_text(entry.data):
        raise CaptureContentError(f"{what} {shown(entry.name)}: {encoding.name} data is not UTF-8 text")
    if encoding is Encoding.BASE64:
        try:
            _check_base64(entry.data)
        except ValueError as error:
            raise CaptureContentError(f"{what} {shown(entry.name)}: BASE64 data is not base64 text: {error}") from None


def build_record(
    request: CaptureRequest,
    *,
    device: str,
    fleet: str,
    accepted: float,
    embed_limit: int,
    key_of: Callable[[str, int], str],
    uri_of: Callable[[str], str],
) -> Record:
    """The line and the files of a request that passed the checks.

    `accepted` in unix seconds stands in for an absent inference time; entries of more than `embed_limit` bytes become
    files. `key_of(kind, index)` names the file of the capture's index-th such entry, `uri_of(key)` gives its data-ref.
    """
    large: list[LargeEntry] = []

    def refer(kind: str, data: bytes | memoryview) -> dict[str, str]:
        key = key_of(kind, len(large))
        large.append(LargeEntry(key, data))
        return {"data-ref": uri_of(key)}

    def tensors(kind: str, mode: str, items: Sequence[CapturedTensor]) -> Iterator[dict[str, str]]:
        for tensor in items:
            entry = {
                "name": tensor.name,
                "mode": mode,
                "encoding": Encoding.BASE64.name,
                "observedContentType": content_type(tensor.dtype, tensor.shape),
            }
            if len(tensor.data) <= embed_limit:
                yield entry | {"data": binascii.b2a_base64(tensor.data, newline=False).decode("ascii")}
            else:
                yield entry | refer(kind, tensor.data)

    def auxiliary(kind: str, mode: str, items: Sequence[AuxiliaryEntry]) -> Iterator[dict[str, str]]:
        for item in items:
            encoding = Encoding(item.encoding)
            entry = {
                "name": item.name,
                "mode": mode,
                "encoding": encoding.name,
                "observedContentType": _CONTENT_TYPE[encoding],
            }
            # Raw bytes (NONE) that are no text have no place in JSON: they are a file, however small.
            text = _text(item.data) if len(item.data) <= embed_limit else None
            yield entry | ({"data": text} if text is not None else refer(kind, item.data))

    inference_time = accepted if request.inference_time is None else request.inference_time
    event: dict[str, Any] = {
        "deviceFleetInputs": list(tensors(layout.INPUT_TENSORS, "Input", request.input_tensors)),
        "deviceFleetOutputs": list(tensors(layout.OUTPUT_TENSORS, "Output", request.output_tensors)),
        "deviceFleetAuxiliaryInputs": list(auxiliary(layout.INPUT_AUXILIARY, "Input", request.inputs)),
        "deviceFleetAuxiliaryOutputs": list(auxiliary(layout.OUTPUT_AUXILIARY, "Output", request.outputs)),
        "eventMetadata": {
            "eventId": request.capture_id,
            "deviceId": device,
            "deviceFleetName": fleet,
            "modelName": request.model_name,
            "modelVersion": request.model_version,
            "inferenceTime": iso_seconds(inference_time),
            **request.further_metadata(),
        },
        "eventVersion": EVENT_VERSION,
        **({"summary": request.summary} if request.summary is not None else {}),
    }
    # ASCII, so that a line stays a line for readers that also split at U+2028 and the like.
    return Record(json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n", tuple(large))


def content_type(dtype: DType, shape: Sequence[int]) -> str:
    """`Tensor[FLOAT32; 1, 6, 10, 10]`; a scalar is written with shape 1, as readers expect one number at least."""
    return f"Tensor[{dtype.name}; {', '.join(str(size) for size in shape) or '1'}]"


def iso_seconds(unix_seconds: float) -> str:
    """`YYYY-MM-DDTHH:MM:SS` in UTC, fractions cut off."""
    return datetime.datetime.fromtimestamp(int(unix_seconds), datetime.UTC).isoformat()[:19]


@dataclass(frozen=True)
class RecordSummary:
    """What the agent needs to know of a stored line again: the id, and the keys of the files that it names."""

    capture_id: str
    large: tuple[str, ...]


def read_line(line: bytes, record_key: str) -> RecordSummary | None:
    """What a line of a record file says, or None if it is not a whole record."""
    if not line.endswith(b"\n"):
        return None
    try:
        event = json.loads(line)
        capture_id = event["eventMetadata"]["eventId"]
        references = [
            entry["data-ref"]
            for part in ("Inputs", "Outputs", "AuxiliaryInputs", "AuxiliaryOutputs")
            for entry in event["deviceFleet" + part]
            if "data-ref" in entry
        ]
        check_id(capture_id)
        keys = [layout.raw_key_of(reference, record_key) for reference in references]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, CaptureIdError):
        return None
    return RecordSummary(capture_id, tuple(key for key in keys if key is not None))


# Both look at a part at a time: a thread that works on all of a large entry at once keeps every other from running.


def _is_text(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _PART_BYTES):
            decoder.decode(data[start : start + _PART_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _check_base64(data: bytes) -> None:
    """Raises ValueError where it is none."""
    rest, over = b"", False
    for start in range(0, len(data), _PART_BYTES):
        part = rest + data[start : start + _PART_BYTES].translate(None, b"\r\n")
        if over and part:
            raise ValueError("Excess data after padding")
        whole = len(part) // 4 * 4
        over = over or part[:whole].endswith(b"=")
        binascii.a2b_base64(part[:whole], strict_mode=True)
        rest = part[whole:]
    binascii.a2b_base64(rest, strict_mode=True)


def _text(data: bytes) -> str | None:
    try:
        return bytes(data).decode("utf-8")
    except UnicodeDecodeError:
        return None
