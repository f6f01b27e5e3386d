"""What people read."""

import json

import numpy as np
import pytest

from edge.client import connection, show, status
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import operations_pb2 as ops


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (150 << 20, "150 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert show.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (90000, "1 d 1 h"), (86400, "1 d")],
)
def test_duration(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


def shown(array: np.ndarray, labels: list[str] | None = None, top: int = 5) -> str:
    return show.tensor(pb.TensorMetadata(name="y", data_type="FLOAT32", shape=array.shape), array, labels or [], top)


def test_classes_come_best_first_with_labels() -> None:
    lines = shown(np.asarray([[0.1, 0.7, 0.2]], np.float32), ["ant", "bee"], 2).splitlines()
    assert lines[0] == "y  FLOAT32 [1, 3]"
    assert lines[1].split()[:2] == ["bee", "70.00%"]
    assert lines[2].split()[:2] == ["2", "20.00%"]
    assert len(lines) == 3


def test_raw_scores_are_not_percentages() -> None:
    assert "%" not in shown(np.asarray([5.0, -3.0, 1.0], np.float32))


def test_scores_that_are_no_numbers_do_not_break_it() -> None:
    assert "nan" in shown(np.asarray([np.nan, 0.5, 0.5], np.float32))


def test_small_and_large_tensors() -> None:
    assert "[[1. 2.]\n   [3. 4.]]" in shown(np.asarray([[1, 2], [3, 4]], np.float32))
    large = shown(np.arange(10000, dtype=np.float32).reshape(100, 100))
    assert "smallest 0, largest 9999, mean 4999.5" in large
    assert len(large) < 500
    assert shown(np.asarray(2.5, np.float32)).endswith("2.5")
    assert "[]" in shown(np.zeros((0, 4), np.float32))


def test_status_says_what_is_declared_wrongly() -> None:  # [P-12]
    models = [ops.ModelStatus(name="a", mislabelled=7), ops.ModelStatus(name="b")]
    text = status.as_text(ops.GetStatusResponse(models=models), 0)
    assert "\na: 7 calls declared a tensor that does not match its bytes" in text
    assert "\nb: " not in text


def test_status_says_how_much_waits_since_when_and_why() -> None:
    reply = ops.GetStatusResponse(
        version="1.20260101.abcdef0",
        started_unix_seconds=1000,
        engine="tflite_runtime 2.14.0",
        models=[
            ops.ModelStatus(name="a", package_name="digits", package_version="1.0", state="READY", memory_bytes=1 << 20)
        ],
        captures=ops.CaptureStatus(
            destination="Cloud",
            pending=12,
            pending_bytes=3 << 20,
            oldest_pending_unix_seconds=4600,
            refused=7,
            refusing_since_unix_seconds=4600,
            last_error="no route to the bucket",
            last_error_unix_seconds=4660,
        ),
        memory_budget_bytes=1 << 30,
        memory_reserved_bytes=1 << 20,
    )
    text = status.as_text(reply, 4720)
    assert "1.20260101.abcdef0, up 1 h 2 min, engine tflite_runtime 2.14.0" in text
    assert "1.0 MiB of 1.0 GiB" in text
    assert "digits 1.0" in text
    assert "12 waiting (3.0 MiB), the oldest for 2 min" in text
    assert "7 refused (for 2 min until now)" in text
    assert "last error, 1 min ago: no route to the bucket" in text
    as_json = json.loads(json.dumps(status.as_json(reply)))
    assert as_json["captures"]["pending"] == 12
    assert as_json["models"][0]["state"] == "READY"


def test_status_of_an_idle_agent() -> None:
    text = status.as_text(ops.GetStatusResponse(version="1"), 0)
    assert "no models are loaded" in text
    assert "none waiting" in text


def test_what_the_other_end_says_cannot_steer_the_terminal() -> None:
    words = "x\x1b[2J\ny"
    metadata = pb.TensorMetadata(name=words, data_type="FLOAT32", shape=[1])
    reply = ops.GetStatusResponse(
        version=words,
        engine=words,
        models=[ops.ModelStatus(name=words, package_name=words, state=words, url=words, warning=words, mislabelled=1)],
        captures=ops.CaptureStatus(destination=words, last_error=words),
    )
    seen = show.model(pb.Model(name=words, url=words, input_tensor_metadatas=[metadata])) + status.as_text(reply, 0.0)
    assert "\x1b" not in seen
    assert "\ny" not in seen
    assert r"x\x1b[2J\ny" in seen


def test_an_enum_s_value_of_a_later_release() -> None:
    assert connection.enum_name(pb.CaptureDataStatus, 1) == pb.CaptureDataStatus.Name(1)
    assert connection.enum_name(pb.CaptureDataStatus, 77) == "UNKNOWN_77"
    assert connection.enum_name(pb.DataType, -3) == "UNKNOWN_-3"
