"""Capture services, requests and readers for tests of captures."""

import base64
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlparse

from edge.capture.record import AuxiliaryEntry, CapturedTensor, CaptureRequest
from edge.capture.service import CaptureService
from edge.capture.settings import CaptureSettings
from edge.clock import Clock
from edge.tensors import DType

ENDS = (".jsonl", ".jsonl.gz")  # of record files
DEVICE, FLEET, BUCKET = "device-1", "fleet-1", "sagemaker-test"


def disk_settings(folder: Path, **changes: Any) -> CaptureSettings:
    """Destination Disk below `folder`."""
    values: dict[str, Any] = {
        "device": DEVICE,
        "fleet": FLEET,
        "folder_prefix": "",
        "spool_path": folder / "disk" / ".spool",
        "disk_path": folder / "disk",
        "bucket": None,
        "spool_min_free": 0,
    }
    return CaptureSettings(**{**values, **changes})


def cloud_settings(folder: Path, **changes: Any) -> CaptureSettings:
    """Destination Cloud, spool below `folder`."""
    return disk_settings(
        folder,
        **{"spool_path": folder / "spool", "disk_path": None, "bucket": BUCKET, "folder_prefix": "p/q", **changes},
    )


def small(capture_id: str, model: str = "digits", **changes: Any) -> CaptureRequest:
    """A capture whose tensors are embedded."""
    data = capture_id.encode().ljust(128, b".")
    return request(capture_id, model, input_tensors=(CapturedTensor("input", DType.UINT8, (1, 128), data),), **changes)


def large(capture_id: str, size: int = 5000, **changes: Any) -> CaptureRequest:
    """A capture with a large input tensor of `size` bytes that says whose it is, and a small output."""
    data = (capture_id.encode() + b"-").ljust(size, b"x")[:size]
    return request(
        capture_id,
        input_tensors=(CapturedTensor("input", DType.UINT8, (1, size), data),),
        output_tensors=(CapturedTensor("output", DType.FLOAT32, (1, 2), bytes(8)),),
        **changes,
    )


def request(capture_id: str, model: str = "digits", **changes: Any) -> CaptureRequest:
    """A capture of what is given."""
    return CaptureRequest(
        **{"model_name": model, "model_version": "1.0", "capture_id": capture_id, "inference_time": None, **changes}
    )


def auxiliary(name: str, encoding: int, data: bytes) -> AuxiliaryEntry:
    """An auxiliary entry."""
    return AuxiliaryEntry(name, encoding, data)


def record_files(root: Path) -> list[Path]:
    """Record files below a folder, the spool's own folder left out, in order of their names."""
    found = (path for end in ENDS for path in root.rglob("*" + end) if ".spool" not in path.parts)
    return sorted(found, key=lambda path: path.name)


def unpacked(name: str, data: bytes) -> bytes:
    """The lines of a record file of that name."""
    return gzip.decompress(data) if name.endswith(".gz") else data


def records(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every record below a folder, with its file, read as strictly as a reader can."""
    for path in record_files(root):
        text = unpacked(path.name, path.read_bytes()).decode("ascii")
        assert text.endswith("\n"), path
        for line in text.splitlines():
            yield path, json.loads(line)


def entry_bytes(entry: dict[str, Any], root: Path) -> bytes:
    """The bytes that an entry stands for: embedded, or in the file it names; s3 keys are looked up below `root`."""
    if "data" in entry:
        text: str = entry["data"]
        return (
            base64.b64decode(text, validate=True)
            if entry["observedContentType"].startswith("Tensor")
            else text.encode()
        )
    parts = urlparse(entry["data-ref"])
    path = Path(unquote(parts.path)) if parts.scheme == "file" else root / unquote(parts.path).lstrip("/")
    return path.read_bytes()


_CONTENT_TYPE = re.compile(r"Tensor\[(\w+); (\d+(?:, \d+)*)\]")


def parse_content_type(text: str) -> tuple[str, tuple[int, ...]]:
    """Dtype and shape, as readers in the field parse them."""
    match = _CONTENT_TYPE.fullmatch(text)
    assert match, text
    return match[1], tuple(int(size) for size in match[2].split(", "))


def stray_files(folder: Path) -> list[Path]:
    """Temporary and open files below a folder."""
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix in (".open", ".tmp", ".done")]


class Runs:
    """Makes services whose turns the test takes itself; the one before is left as a kill leaves it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made: list[CaptureService] = []

    def __call__(self, settings: CaptureSettings) -> CaptureService:
        self._abandon()
        self._made.append(CaptureService(settings, self._clock, None))
        self._made[-1]._try_open()
        return self._made[-1]

    def _abandon(self) -> None:
        for service in self._made:
            abandon(service)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._abandon()


def abandon(service: CaptureService) -> None:
    """Close what a kill would close, and flush nothing."""
    for batch in service._intake.batches():
        batch.close()
    service._spool.close()


def found(root: Path) -> list[str]:
    """The ids of `small` and `large` captures on disk, each checked to be whole."""
    ids = []
    for _, event in records(root):
        ids.append(event["eventMetadata"]["eventId"])
        for entry in event["deviceFleetInputs"]:
            data = entry_bytes(entry, root)
            assert data.startswith(ids[-1].encode()) and len(data) in (128, 5000)
    return sorted(ids)
