"""Record files as agents leave them, for tests of what reads them."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

HOUR = "fleet-1/digits/2026/01/31/12"


def entry(name: str, array: np.ndarray, mode: str, reference: str = "") -> dict[str, Any]:
    """A tensor's entry, with its data or a reference in place of it."""
    shape = ", ".join(str(size) for size in array.shape) or "1"
    made = {
        "name": name,
        "mode": mode,
        "encoding": "BASE64",
        "observedContentType": f"Tensor[{array.dtype.name.upper()}; {shape}]",
    }
    return made | ({"data-ref": reference} if reference else {"data": base64.b64encode(array.tobytes()).decode()})


def scores(best: int, confidence: float = 0.9) -> np.ndarray:
    """Ten scores, `best` on top."""
    array = np.full((1, 10), (1 - confidence) / 9, np.float32)
    array[0, best] = confidence
    return array


def record(capture_id: str, best: int = 7, *, confidence: float = 0.9, picture: Any = None, **metadata: Any) -> dict:
    """A capture of a picture of digits; `metadata` is added to eventMetadata."""
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1) if picture is None else picture
    event = {
        "eventId": capture_id,
        "deviceId": "press-17",
        "deviceFleetName": "fleet-1",
        "modelName": "digits",
        "modelVersion": "1.0",
        "inferenceTime": "2026-01-31T12:00:00",
    }
    return {
        "deviceFleetInputs": [entry("image", image, "Input")],
        "deviceFleetOutputs": [entry("probabilities", scores(best, confidence), "Output")],
        "deviceFleetAuxiliaryInputs": [],
        "deviceFleetAuxiliaryOutputs": [],
        "eventMetadata": event | metadata,
        "eventVersion": "0",
    }


def summary(**facts: Any) -> dict:
    """A summary of an hour."""
    made = record("c0ffee00-0000-4000-8000-000000000000") | {"deviceFleetInputs": [], "deviceFleetOutputs": []}
    usual = {
        "summaryVersion": 1,
        "alias": "digits",
        "from": "2026-01-31T12:00:00Z",
        "to": "2026-01-31T13:00:00Z",
        "complete": True,
        "calls": {"OK": 1234, "INVALID_ARGUMENT": 2},
        "latencyMilliseconds": {"count": 1234, "p50": 0.4, "p90": 0.6, "p99": 1.9, "max": 12.0},
        "sampled": 600,
        "inputs": [],
        "outputs": [{"name": "probabilities", "count": 6000, "classes": {"3": 61, "7": 12}}],
    }
    return made | {"summary": usual | facts}


def write(root: Path, *records: Any, name: str = "a.jsonl", hour: str = HOUR) -> Path:
    """A record file below `root`: dicts become lines, bytes are lines as they are."""
    path = root / hour / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in records]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
