"""The manual page of the configuration and the table in docs/ say what the table of settings says."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_generated_pages_are_up_to_date() -> None:
    script = TOP / "packaging/man/generate.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
