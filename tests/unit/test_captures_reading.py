"""Captures read again: this agent's and the original's; hostile ones are refused one by one."""

import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.client import captures
from edge.client.captures import records
from edge.client.outcome import InputError
from tests.fakes.captures import Runs, cloud_settings, disk_settings, large, small
from tests.fakes.clock import FakeClock
from tests.fakes.written import HOUR, entry, record, summary, write

ROOT = Path(__file__).parents[2]
GOOD = record("good")


def read(root: Path) -> tuple[list[str], list[str]]:
    """Ids, and what was refused."""
    refused: list[str] = []
    ids = [capture.capture_id for capture in captures.read(root, lambda refusal: refused.append(str(refusal)))]
    return ids, refused


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "in the spool"])
def test_what_an_agent_wrote(tmp_path: Path, in_place: bool) -> None:  # [V-1] [V-3]
    settings = disk_settings(tmp_path) if in_place else cloud_settings(tmp_path)
    with Runs(FakeClock()) as runs:
        running = runs(settings)
        running.submit(small("a"))
        running.submit(large("b"))
        if in_place:
            running.turn(stopping=True)
    found = {capture.capture_id: capture for capture in captures.read(tmp_path / ("disk" if in_place else "spool"))}
    assert set(found) == {"a", "b"}
    assert found["a"].inputs[0].array().tobytes().startswith(b"a...")
    big = found["b"]
    assert (big.model_name, big.device, big.fleet, big.reasons) == ("digits", "device-1", "fleet-1", ())
    assert big.inputs[0].reference.startswith("raw-data/input-tensors/")
    assert big.inputs[0].array().shape == (1, 5000)
    assert big.inputs[0].array().tobytes().startswith(b"b-xxx")
    assert big.outputs[0].array().dtype == np.float32
    assert captures.prediction(big) == captures.Prediction("output", 0, 0.0)


def test_a_spool_with_what_is_not_in_its_place_yet(tmp_path: Path) -> None:  # [V-1]
    array = np.arange(100, dtype=np.uint8)
    stem = "20260131T120000000Z-press-17-0011aabb-000001"
    one = record("waits") | {
        "deviceFleetInputs": [entry("x", array, "Input", f"s3://b/x/raw-data/input-tensors/{stem}-00.bin")]
    }
    write(tmp_path / "open", one, name=f"{stem}.jsonl.open")
    raw = tmp_path / "open" / HOUR / "raw-data" / "input-tensors" / f"{stem}-00.bin.100-0011aabb.open"
    raw.parent.mkdir(parents=True)
    raw.write_bytes(array.tobytes())
    write(tmp_path / "sealed", record("sealed"), name=f"{stem[:-1]}2.jsonl")
    write(tmp_path / "sealed", record("failed"), name=f"{stem[:-1]}3.jsonl.failed")
    write(tmp_path / "sealed", record("done"), name=f"{stem[:-1]}4.jsonl.done")
    write(tmp_path / ".spool/open", record("accepted"), name=f"{stem[:-1]}5.jsonl.open")
    write(tmp_path / ".mine/open", record("accepted too"), name=f"{stem[:-1]}6.jsonl.open")
    (tmp_path / ".mine/lock").touch()
    found = list(captures.read(tmp_path))
    assert sorted(capture.capture_id for capture in found) == ["failed", "sealed", "waits"]
    assert next(c for c in found if c.capture_id == "waits").inputs[0].array().tolist() == array.tolist()


@pytest.mark.parametrize("above", ["raw-data/.hidden/.spool/raw-data", ".hidden/fleet/raw-data", "f/.m"])
def test_any_name_above_the_hour(tmp_path: Path, above: str) -> None:  # [V-1]
    """A prefix, fleet or model may be called like the folder of large entries, or begin with a dot."""
    hour = f"{above}/2026/01/31/12"
    write(tmp_path, record("found"), hour=hour)
    write(tmp_path, record("in the way"), hour=f"{hour}/raw-data/input-tensors")
    assert read(tmp_path) == (["found"], [])
    assert read(tmp_path / hour) == (["found"], [])


def test_records_of_the_original(tmp_path: Path) -> None:  # [V-1]
    """One object a file, over several lines; references into the device's own folders; a version that is a number."""
    array = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    one = record("capture1700000000", modelVersion=3)
    one["deviceFleetInputs"] = [
        entry("input", array, "Input", "file:///opt/captures/f/m/2022/05/01/09/raw-data/input-tensors/in%20put.bin")
    ]
    del one["deviceFleetAuxiliaryInputs"]
    write(tmp_path, json.dumps(one, indent=4).encode(), hour="sagemaker/fleet/model/2022/05/01/09")
    raw = tmp_path / "sagemaker/fleet/model/2022/05/01/09/raw-data/input-tensors/in put.bin"
    raw.parent.mkdir(parents=True)
    raw.write_bytes(array.tobytes())
    (capture,) = captures.read(tmp_path)
    assert (capture.capture_id, capture.model_version) == ("capture1700000000", "3")
    assert capture.inputs[0].array().tolist() == array.tolist()


def changed(**fields: Any) -> dict:
    return record("bad") | fields


def with_input(**fields: Any) -> dict:
    return changed(deviceFleetInputs=[entry("x", np.zeros(4, np.uint8), "Input") | fields])


def with_reference(reference: Any) -> dict:
    return changed(deviceFleetInputs=[entry("x", np.zeros(4, np.uint8), "Input", "r") | {"data-ref": reference}])


HOSTILE = [
    (b"not json", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b"[]", "got a list, expected an object"),
    (b'"' + b"x" * 100 + b'"', "got text"),
    (b"[" * 90_000, "not JSON"),
    (b"[" * 100_001, "more than 100000 lists"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    (b"{}", "eventMetadata: got nothing"),
    (changed(eventMetadata=[]), "eventMetadata: got a list"),
    (record("bad", eventId=None), "eventId: got nothing, expected text"),
    (record("bad", eventId={"a": 1}), "eventId: got an object"),
    (record("x" * 1001), "eventId: got 1001 characters"),
    (record("bad", inferenceTime="yesterday"), "inferenceTime: got 'yesterday', expected YYYY"),
    (record("bad", inferenceTime=10**400), "not JSON|inferenceTime: got a number"),
    (record("bad", inferenceTime="0001-01-01T00:00:00+14:00"), "inferenceTime: got"),
    (changed(deviceFleetInputs="x"), "deviceFleetInputs: got text, expected a list"),
    (changed(deviceFleetInputs=[1]), r"deviceFleetInputs\[0\]: got a number, expected an object"),
    (changed(deviceFleetInputs=[{}] * 1025), "at most 1024"),
    (with_input(name=[]), "name: got a list"),
    (with_input(encoding="GZIP"), "encoding 'GZIP'; expected one of CSV, JSON, NONE, BASE64"),
    (with_input(data="§§§"), "data is not base64"),
    (with_input(data="AA=A"), "data is not base64"),
    (with_input(data=7), "data: got a number"),
    (with_input(data="AAAA"), "got 3 bytes, expected 4 for UINT8"),
    (with_input(observedContentType="Tensor[UINT8; 4, 4]"), "got 4 bytes, expected 16"),
    (with_input(observedContentType="Tensor[COMPLEX64; 4]"), "data type 'COMPLEX64'; expected one of UINT8"),
    (with_input(observedContentType="Tensor[UINT8; -4]"), "expected Tensor"),
    (with_input(observedContentType="Tensor[FLOAT64; 2000000000, 2000000000]"), "would take more than 1024 MiB"),
    (with_input(observedContentType=f"Tensor[UINT8; {', '.join(['1'] * 40)}]"), "40 dimensions"),
    (with_input(**{"data-ref": "x"}), "expected either data or data-ref"),
    (with_reference(4), "data-ref: got a number"),
    (with_reference("../../../etc/passwd"), "leads elsewhere"),
    (with_reference("file:///x/raw-data/input-tensors/%2e%2e"), "leads elsewhere"),
    (with_reference("s3://b/raw-data/input-tensors/"), "expected .../raw-data/KIND/NAME"),
    (with_reference("file:///etc/passwd"), "expected .../raw-data/KIND/NAME"),
    (with_reference("s3://b/raw-data/other/x"), "expected .../raw-data/KIND/NAME"),
    (with_reference("s3://b/raw-data/input-tensors/a\0b"), "leads elsewhere"),
]


@pytest.mark.parametrize(("hostile", "said"), HOSTILE, ids=[said for _, said in HOSTILE])
def test_a_hostile_record_does_not_stop_the_rest(tmp_path: Path, hostile: Any, said: str) -> None:  # [V-2] [V-3]
    write(tmp_path, GOOD, hostile, GOOD)
    write(tmp_path, hostile, name="b.jsonl")
    write(tmp_path, GOOD, name="c.jsonl")
    ids, refused = read(tmp_path)
    assert ids == ["good"] * 3
    assert len(refused) == 2
    assert refused[0].startswith(f"{HOUR}/a.jsonl:2: ")
    assert re.search(said, refused[0]), refused[0]
    assert len(refused[0]) < 700 and refused[0].isprintable()


def test_a_line_without_end_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # [V-2]
    monkeypatch.setattr("edge.client.captures.reading.MAX_LINE_BYTES", 1 << 16)
    write(tmp_path, GOOD, b'{"a": "' + b"x" * (8 << 20), GOOD)
    tracemalloc.start()
    try:
        ids, refused = read(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (ids, len(refused)) == (["good", "good"], 1)
    assert peak < 2 << 20


def test_one_record_is_in_memory_at_a_time(tmp_path: Path) -> None:  # [V-2]
    picture = np.zeros((1, 250, 250, 3), np.uint8)
    write(tmp_path, *[record(str(n), picture=picture) for n in range(100)])
    tracemalloc.start()
    try:
        count = sum(capture.inputs[0].array().sum() == 0 for capture in captures.read(tmp_path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100
    assert peak < 4 << 20  # the files hold 25 MB


def test_large_entries_that_are_not_what_they_must_be(tmp_path: Path) -> None:  # [V-3]
    def big(name: str) -> dict:
        one = entry("x", np.zeros(9000, np.uint8), "Input", f"s3://b/p/raw-data/input-tensors/{name}")
        return record(name) | {"deviceFleetInputs": [one]}

    write(tmp_path, big("short"), big("missing"), big("link"), big("folder"))
    raw = tmp_path / HOUR / "raw-data" / "input-tensors"
    (raw / "folder").mkdir(parents=True)
    (raw / "short").write_bytes(b"1234")
    (raw / "link").symlink_to("/etc/passwd")
    for capture in captures.read(tmp_path):
        with pytest.raises(captures.RecordError):
            capture.inputs[0].array()
    raw.rename(tmp_path / "elsewhere")
    outside = tmp_path.with_name(tmp_path.name + "-outside")
    outside.mkdir()
    (outside / "short").write_bytes(bytes(9000))
    raw.symlink_to(outside)
    with pytest.raises(captures.RecordError, match="leads out of the folder"):
        next(captures.read(tmp_path)).inputs[0].array()


def test_names_of_files_and_folders(tmp_path: Path) -> None:  # [V-1] [V-2]
    write(tmp_path, GOOD, name="link.jsonl").rename(tmp_path / "target")
    (tmp_path / HOUR / "link.jsonl").symlink_to(tmp_path / "target")
    write(tmp_path, GOOD, name="notes.txt")
    write(tmp_path, summary(), name="summary-a.jsonl")
    ids, refused = read(tmp_path)
    assert ids == []
    assert len(refused) == 1 and "link.jsonl: cannot be read" in refused[0]
    with pytest.raises(InputError, match="expected a folder of captures"):
        captures.read(tmp_path / "none")


def test_what_no_filter_asks_for_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # [V-2]
    write(tmp_path, b"x", GOOD)
    assert len(list(captures.read(tmp_path))) == 1
    assert "a.jsonl:1: not JSON" in caplog.text


def test_what_the_agent_says_of_why_and_how_long() -> None:
    line = json.dumps(record("a", captureReason=["margin_below", 5], inferenceMilliseconds=0.5, status="OK")).encode()
    capture = records.parse(line, "f", lambda _: b"")
    assert (capture.reasons, capture.milliseconds, capture.status) == (("margin_below",), 0.5, "OK")
    for odd in (True, "1", -1, float("nan"), float("inf")):
        line = json.dumps(record("a", captureReason=odd, inferenceMilliseconds=odd)).encode()
        assert records.parse(line, "f", lambda _: b"").milliseconds is None


def test_auxiliary_entries_keep_their_bytes() -> None:
    one = record("a") | {
        "deviceFleetAuxiliaryInputs": [
            {"name": "n", "mode": "Input", "encoding": "CSV", "observedContentType": "text/csv", "data": "a;ü"},
            {"name": "b", "mode": "Input", "encoding": "BASE64", "observedContentType": "x/y", "data": "aGk="},
        ]
    }
    text, raw = records.parse(json.dumps(one).encode(), "f", lambda _: b"").entries[2:]
    assert (text.content(), raw.content(), text.dtype) == ("a;ü".encode(), b"hi", None)
    with pytest.raises(captures.RecordError, match="is no tensor"):
        text.array()


def test_the_program_of_the_document(tmp_path: Path) -> None:  # [V-1]
    (program,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "captures.md").read_text(), re.DOTALL | re.MULTILINE
    )
    write(tmp_path, record("a", 3), record("b", 7))
    words = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("2026-01-31 12:00:00+00:00 digits 1.0 (1, 8, 8, 1) 3 0.")
    assert second.split()[-2] == "7"


def test_a_file_that_goes_meanwhile(tmp_path: Path) -> None:  # [V-1]
    write(tmp_path, record("a"), name="a.jsonl")
    path = write(tmp_path, record("b"), name="b.jsonl")
    refused: list[captures.Refusal] = []
    found = captures.read(tmp_path, refused.append)
    assert next(found).capture_id == "a"
    path.unlink()
    assert (list(found), refused) == ([], [])


@pytest.mark.parametrize(
    ("scores", "index", "confidence"),
    [
        (np.float32([0.1, 0.7, 0.2]), 1, 0.7),
        (np.float32([-4, 9, 2]), 1, None),  # logits
        (np.float16([0.25, 0.75]), 1, 0.75),
        (np.uint8([20, 230, 5]), 1, 230 / 256),
        (np.int8([-128, -120, 118]), 2, 246 / 256),
        (np.uint8([200, 230, 5]), 1, None),
        (np.int64([3, 4]), 1, None),
    ],
)
def test_class_and_confidence(scores: np.ndarray, index: int, confidence: float | None) -> None:  # [V-4]
    one = record("a") | {"deviceFleetOutputs": [entry("y", scores.reshape(1, -1), "Output")]}
    said = captures.prediction(records.parse(json.dumps(one).encode(), "f", lambda _: b""))
    assert said is not None and said.index == index
    assert said.confidence == (None if confidence is None else pytest.approx(confidence, abs=1e-3))


@pytest.mark.parametrize(
    "scores", [np.float32([1, np.nan]), np.bool_([1, 0]), np.float32([1]), np.float32([[1, 2], [3, 4]])]
)
def test_outputs_that_are_no_class(scores: np.ndarray) -> None:  # [V-4]
    one = record("a") | {"deviceFleetOutputs": [entry("y", scores, "Output")]}
    assert captures.prediction(records.parse(json.dumps(one).encode(), "f", lambda _: b"")) is None
