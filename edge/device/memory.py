"""How much memory there is for models (L-6), and giving it back to the system (U-3)."""

import ctypes
from pathlib import Path

# Left to the system and to requests in flight, beyond what a model is measured to take.
HEADROOM_BYTES = 16 << 20
_NO_LIMIT = 1 << 62


def system_available(proc: Path = Path("/proc")) -> int:
    """MemAvailable, in bytes."""
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _NO_LIMIT


def cgroup_available(proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """What the control groups (v2) above this process still allow, in bytes; huge where there is no limit.

    File pages that the kernel can drop count as free.
    """
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return _NO_LIMIT
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    if path is None:
        return _NO_LIMIT
    group, least = root / path.lstrip("/"), _NO_LIMIT
    while True:
        least = min(least, _group_available(group))
        if group in (root, group.parent):
            return least
        group = group.parent


def _group_available(group: Path) -> int:
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return _NO_LIMIT
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return _NO_LIMIT
    return int(limit) - used + int(statistics.get("inactive_file", 0))


def available() -> int:
    """Bytes that models may take now, by the system's and the control groups' word, headroom kept back."""
    return max(0, min(system_available(), cgroup_available()) - HEADROOM_BYTES)


def give_back() -> None:
    """Return freed heap pages to the system; without it glibc keeps an unloaded model's memory."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
