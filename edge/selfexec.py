"""How this program starts itself again, from source or as one binary."""

import sys
from pathlib import Path


def self_command() -> list[str]:
    """The words that start this program anew, without its arguments."""
    if "__compiled__" in globals():
        # By its true path: behind an emulator, /proc/self/exe is the emulator. A file removed since has only that link.
        path = str(Path("/proc/self/exe").readlink())
        return [path if Path(path).exists() else "/proc/self/exe"]
    return [sys.executable, str(Path(__file__).resolve().parent.parent / "agent.py")]
