"""Names of captured files: keys in the bucket, paths on disk, and what a name says about a file's state. Pure.

    key      <prefix>/<fleet>/<model>/YYYY/MM/DD/HH/<stem>.jsonl                      a record file, one batch
             <prefix>/<fleet>/<model>/YYYY/MM/DD/HH/<stem>.jsonl.gz                   a compressed one
             <prefix>/<fleet>/<model>/YYYY/MM/DD/HH/summary-<stem>.jsonl              summaries of the model
             <prefix>/<fleet>/<model>/YYYY/MM/DD/HH/raw-data/<kind>/<stem>-<nn>.bin   one large tensor
    stem     YYYYMMDDTHHMMSSmmmZ-<device>-<run>-<number>
    open     <key>.open and <key>.<size>-<crc32>.open: accepted, not yet durable
    done     <key>.done: acknowledged by the store (or dropped), being removed
    failed   <key>.failed: given up

Times are UTC and the time of acceptance. `run` is random for each process, so that a clock that starts at the same
wrong time on each boot does not make the same name twice; `number` counts within the process.
"""

import datetime
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

OPEN = ".open"
DONE = ".done"
FAILED = ".failed"
RECORD = ".jsonl"
PACKED = ".gz"  # behind it where the file is compressed
SUMMARY = "summary-"  # before the stem of a record file that has summaries in place of captures

INPUT_TENSORS = "input-tensors"
OUTPUT_TENSORS = "output-tensors"
INPUT_AUXILIARY = "input-auxiliary"
OUTPUT_AUXILIARY = "output-auxiliary"

RAW_DATA = "raw-data"

_STEM = r"(?P<time>[0-9]{8}T[0-9]{9})Z-(?P<device>[A-Za-z0-9_-]+)-[0-9a-f]{8}-[0-9]{6,}"
_RECORD_NAME = re.compile(r"(summary-)?" + _STEM + r"\.jsonl(\.gz)?")
_RAW_NAME = re.compile(_STEM + r"-[0-9]{2,}\.bin")
_OPEN_RAW_NAME = re.compile(r"(?P<name>" + _STEM + r"-[0-9]{2,}\.bin)\.(?P<size>[0-9]+)-(?P<crc>[0-9a-f]{8})\.open")
_HOUR_FOLDER = re.compile(r"(?:.*/)?[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{2}")


# strftime takes ten times as long as isoformat, and these are made for each capture.
_NO_MARKS = str.maketrans("", "", "-:.")
_SLASHES = str.maketrans("-T", "//")


@dataclass(frozen=True)
class Names:
    """Makes the names of one process. `run` is 8 hex digits."""

    folder_prefix: str
    fleet: str
    device: str
    run: str

    def folder(self, model_name: str, accepted: float) -> str:
        """The hour's folder of a model; `accepted` in unix seconds."""
        parts = (self.folder_prefix.strip("/"), self.fleet, quote(model_name, safe=""), hour(accepted))
        return "/".join(part for part in parts if part)

    def stem(self, accepted: float, number: int) -> str:
        """The common first part of the names of what was accepted at a time; `number` is unique in the process."""
        time = _utc(accepted).isoformat(timespec="milliseconds")[:23].translate(_NO_MARKS)
        return f"{time}Z-{self.device}-{self.run}-{number:06d}"


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def hour(seconds: float) -> str:
    """The hour's part of a folder: YYYY/MM/DD/HH."""
    return _utc(seconds).isoformat()[:13].translate(_SLASHES)


def raw_key(folder: str, kind: str, stem: str, index: int) -> str:
    """The key of a large tensor or auxiliary entry."""
    return f"{folder}/{RAW_DATA}/{kind}/{stem}-{index:02d}.bin"


def open_raw_name(key: str, size: int, crc: int) -> str:
    """Its path below `open/` until its batch is sealed: the name carries what a restart checks it against."""
    return f"{key}.{size}-{crc:08x}{OPEN}"


@dataclass(frozen=True)
class OpenRaw:
    """What the name of an open large tensor says: final name, bytes, crc32."""

    name: str
    size: int
    crc: int


def parse_open_raw_name(name: str) -> OpenRaw | None:
    """The parts of `open_raw_name`'s last component, or None if it is not one."""
    match = _OPEN_RAW_NAME.fullmatch(name)
    return OpenRaw(match["name"], int(match["size"]), int(match["crc"], 16)) if match else None


def is_record_name(name: str, device: str | None = None) -> bool:
    """Whether a file name is a record file's (of `device`)."""
    match = _RECORD_NAME.fullmatch(name)
    return match is not None and device in (None, match["device"])


def is_raw_name(name: str, device: str | None = None) -> bool:
    """Whether a file name is that of a large tensor or auxiliary entry (of `device`)."""
    match = _RAW_NAME.fullmatch(name)
    return match is not None and device in (None, match["device"])


def is_hour_folder(relative: str) -> bool:
    """Whether a folder, relative to the root of the keys, ends in YYYY/MM/DD/HH."""
    return _HOUR_FOLDER.fullmatch(relative) is not None


def accepted_at(name: str) -> float:
    """Unix seconds that a record file's name says; 0 for a name that is none or no time."""
    match = _RECORD_NAME.match(name)
    if match is None:
        return 0.0
    try:
        at = datetime.datetime.strptime(match["time"] + "000+0000", "%Y%m%dT%H%M%S%f%z")
    except ValueError:
        return 0.0
    return at.timestamp()


def file_uri(path: str) -> str:
    """`file:///…` of an absolute path, percent-encoded where RFC 8089 wants it."""
    return "file://" + quote(path)


def raw_key_of(reference: str, record_key: str) -> str | None:
    """The key that a record's `data-ref` names, if it lies where that record's own large tensors lie.

    Only the last two components of the reference are believed; the folder is the record's. So a bucket or disk path
    that has changed since does not matter, and no reference leads out of the folder.
    """
    parts = unquote(reference).rsplit("/", 3)
    if len(parts) != 4 or parts[1] != RAW_DATA or not is_raw_name(parts[3]):
        return None
    if parts[2] not in (INPUT_TENSORS, OUTPUT_TENSORS, INPUT_AUXILIARY, OUTPUT_AUXILIARY):
        return None
    return f"{record_key.rpartition('/')[0]}/{RAW_DATA}/{parts[2]}/{parts[3]}"
