"""The story of a fleet, as `make demo-fleet` tells it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import ROOT, from_source

pytestmark = pytest.mark.skipif(not from_source(), reason="the demo runs the source tree")


def test_the_story(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "demo.fleet", "--out", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 devices serve it, 3 failed, 0 have not reported" in done.stdout
    assert "unless changed tensors are allowed" in (tmp_path / "out/fleet.html").read_text()
