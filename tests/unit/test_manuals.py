"""The manual page of the configuration and the table in docs/ say what the table of settings says."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_generated_pages_are_up_to_date() -> None:
    script = TOP / "packaging/man/generate.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_limit_says_why() -> None:
    script = "import sys; sys.path[:0] = sys.argv[1:]; import limits; print(*(n for _, n, _, why in limits.constants() if not why))"
    words = [sys.executable, "-c", script, str(TOP), str(TOP / "packaging/man")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
