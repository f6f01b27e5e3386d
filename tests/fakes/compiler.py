"""Libraries that tests compile."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def shared_library(source: Path, target: Path, *flags: str) -> Path:
    """A library of C for the agent's machine; skips where there is no compiler for it."""
    machine = os.environ.get("AGENT_MACHINE")  # of an emulated agent
    compiler = shutil.which(f"{machine}-linux-gnu-gcc" if machine else "cc")
    if compiler is None:
        pytest.skip(f"needs a C compiler for {machine or 'this machine'}")
    subprocess.run([compiler, "-shared", "-fPIC", *flags, "-o", str(target), str(source), "-ldl"], check=True)
    return target
