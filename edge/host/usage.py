"""What the agent's own process takes of the machine."""

import os
import resource
from pathlib import Path
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Resident memory in bytes, open descriptors and their limit (-1: none), processor time in seconds."""

    resident_bytes: int
    open_fds: int
    max_fds: int
    cpu_seconds: float


def now() -> Usage:
    """As it is now; a number that /proc does not tell is 0."""
    try:
        resident = int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
        open_fds = sum(1 for _ in os.scandir("/proc/self/fd")) - 1  # the one that lists them is among them
    except (OSError, LookupError, ValueError):
        resident, open_fds = 0, 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(resident, open_fds, resource.getrlimit(resource.RLIMIT_NOFILE)[0], used.ru_utime + used.ru_stime)
