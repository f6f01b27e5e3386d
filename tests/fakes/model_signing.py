"""The public tool of OpenSSF Model Signing, in an environment of its own under build/."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "tests" / "data" / "model-signing-requirements.txt"
VENV = ROOT / "build" / "model-signing-venv"
SETUP_SECONDS = 600
RUN_SECONDS = 300


def install() -> Path:
    """The tool's path; set up at first use, and again when the pinned versions change.

    Test processes that run at the same time wait for one another.
    """
    VENV.parent.mkdir(exist_ok=True)
    wanted = f"{sys.version_info[:2]} {hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()}"
    with (VENV.parent / "model-signing-venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = VENV / ".ready"
        if not ready.exists() or ready.read_text() != wanted:
            shutil.rmtree(VENV, ignore_errors=True)
            _must(sys.executable, "-m", "venv", str(VENV))
            _must(str(VENV / "bin/pip"), "install", "-q", "--disable-pip-version-check", "-r", str(REQUIREMENTS))
            ready.write_text(wanted)
    return VENV / "bin" / "model_signing"


def run(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run the tool."""
    command = [str(install()), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)


def _must(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SETUP_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
