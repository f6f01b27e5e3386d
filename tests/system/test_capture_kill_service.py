"""SIGKILL at random moments while captures pour in: what was accepted is there, once and whole (R-5)."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from edge.capture.service import CaptureService
from edge.capture.statuses import CaptureState
from edge.clock import SystemClock
from tests.fakes import captures
from tests.system.harness import ROOT, eventually

ROUNDS = int(os.environ.get("KILL_ROUNDS_DRIVER", "10"))
LONGEST_LIFE_SECONDS = 0.25


def run_and_kill(destination: str, folder: Path, number: int, life: float) -> list[str]:
    """One life of the driver; returns the ids it said were accepted."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.capture_driver", destination, str(folder), str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"ready\n"
        try:
            process.wait(life)
        except subprocess.TimeoutExpired:
            process.kill()
        lines = said.read().decode().splitlines()
    process.wait()
    return lines


@pytest.mark.parametrize("destination", ["disk", "cloud"])
def test_kill_at_random_moments(destination: str, tmp_path: Path) -> None:  # [R-5] [G-3] [G-5]
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    accepted: list[str] = []
    for number in range(ROUNDS):
        accepted += run_and_kill(destination, tmp_path, number, moments.uniform(0.0, LONGEST_LIFE_SECONDS))
    assert accepted
    settings = (captures.disk_settings if destination == "disk" else captures.cloud_settings)(
        tmp_path, push_period=0.05
    )
    service = CaptureService(settings, SystemClock(), None)
    service.start()
    try:
        assert all(service.status(i) is not CaptureState.FAILURE for i in accepted), seed
        final = CaptureState.SUCCESS if destination == "disk" else CaptureState.IN_PROGRESS
        eventually(lambda: not captures.stray_files(tmp_path), what="all batches are sealed")
        # a record is in its place a moment before its folder is synced, and SUCCESS is said after that
        eventually(lambda: {service.status(i) for i in accepted} == {final}, what=f"{final!r} of all, seed {seed}")
    finally:
        service.stop(30)
    assert not captures.stray_files(tmp_path), seed
    root = settings.disk_path or settings.spool_path / "sealed"
    seen: Counter[str] = Counter()
    for _, event in captures.records(root):
        capture_id = event["eventMetadata"]["eventId"]
        seen[capture_id] += 1
        for entry in event["deviceFleetInputs"] + event["deviceFleetOutputs"]:
            dtype, shape = captures.parse_content_type(entry["observedContentType"])
            data = captures.entry_bytes(entry, root)
            assert len(data) == shape[0] * shape[1] * (4 if dtype == "FLOAT32" else 1), seed
        assert captures.entry_bytes(event["deviceFleetInputs"][0], root).startswith(capture_id.encode()), seed
    assert not [i for i, times in seen.items() if times > 1], seed
    assert not set(accepted) - set(seen), seed
