"""How this program starts itself again, from source or as one binary."""

import os
import sys
from pathlib import Path, PurePath


def self_command() -> list[str]:
    """The words that start this program anew, without its arguments."""
    if "__compiled__" in globals():
        # By its true path: behind an emulator, /proc/self/exe is the emulator. A file removed since has only that link.
        path = str(Path("/proc/self/exe").readlink())
        return [path if Path(path).exists() else "/proc/self/exe"]
    return [sys.executable, str(Path(__file__).resolve().parent.parent / "agent.py")]


def program_folder() -> Path | None:
    """Where the compiled program and the files that came with it are; None from source."""
    return Path("/proc/self/exe").readlink().parent if "__compiled__" in globals() else None


def called_as() -> str:
    """The name that this program was called by (X-6); the compiled program's `sys.argv[0]` has lost it."""
    if "__compiled__" in globals():
        return PurePath(os.fsdecode(Path("/proc/self/cmdline").read_bytes().split(b"\0")[0])).name
    return PurePath(sys.argv[0]).name
