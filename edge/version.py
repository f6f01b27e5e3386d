"""The version, `<MAJOR>.<YYYYMMDD>.<SHA-7>`, and the build date that the clock rule S-6 rests on.

A build writes `edge/_build.py` with VERSION and BUILD_DATE. From source they come from the repository whose top folder
holds this package, never from another one around it; a tree without either says so in its version, and its build date
is that of this file.
"""

import datetime
import importlib
import subprocess
from pathlib import Path

MAJOR = 1


def _from_source() -> tuple[str, int]:
    here = Path(__file__).resolve()
    top = here.parents[1]
    try:
        if not (top / ".git").exists():
            raise FileNotFoundError(top / ".git")
        shown = subprocess.run(
            ["git", "-C", str(top), "log", "-1", "--format=%ct %h", "--abbrev=7"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.split()
        seconds, revision = int(shown[0]), shown[1][:7]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        seconds, revision = int(here.stat().st_mtime), "unknown"
    day = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y%m%d")
    return f"{MAJOR}.{day}.{revision}", seconds


def python_version() -> str:
    """The version as Python packages write it (PEP 440): `1.20261128+g8a0399b`. pyproject.toml takes it from here."""
    release, _, revision = version()[0].rpartition(".")
    return f"{release}+{revision}" if revision == "unknown" else f"{release}+g{revision}"


def version() -> tuple[str, int]:
    """The version text, and the build date in seconds since the epoch."""
    try:
        build = importlib.import_module("edge._build")
    except ImportError:
        return _from_source()
    return str(build.VERSION), int(build.BUILD_DATE)
