"""How much memory the control groups above this process still allow: version 2, version 1, or both beside each other.

Every group from the process's own up to the highest that can be seen has its limits. Swap is no room for models, so only
version 1's limit on memory and swap together counts beside that on memory. `memory.high` counts as a limit: beyond it the kernel
slows a process down until it stands still.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edge.host.kernel_files import lines_of, text_of

NO_LIMIT = 1 << 62
_VERSION_2, _VERSION_1, _MEMORY = "cgroup2", "cgroup", "memory"


class _Files(NamedTuple):
    """What a version of the interface calls them: limits with what is used of them, and the kind of page that can be dropped."""

    limits: tuple[tuple[str, str], ...]
    droppable: str


_FILES = {
    _VERSION_2: _Files((("memory.max", "memory.current"), ("memory.high", "memory.current")), "inactive_file"),
    _VERSION_1: _Files(
        (
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
        ),
        "total_inactive_file",
    ),
}


def available(proc: Path = Path("/proc"), root: Path = Path("/")) -> int:
    """Bytes, pages of files that the kernel can drop included; NO_LIMIT where there is none. `root`: where mounts are looked for."""
    try:
        paths = dict(_paths(lines_of(proc / "self/cgroup")))
        mounts = list(_mounts(lines_of(proc / "self/mountinfo")))
    except (OSError, ValueError):
        return NO_LIMIT
    return min(
        (
            _group_available(group, _FILES[version])
            for version, shown, place in mounts
            if version in paths
            for group in _groups(paths[version], shown, root / place.lstrip("/"))
        ),
        default=NO_LIMIT,
    )


def _paths(cgroup: list[str]) -> Iterator[tuple[str, str]]:
    """This process's group in each version's hierarchy that may limit memory; cgroups(7) has the format."""
    for line in cgroup:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield _VERSION_2, path
        elif _MEMORY in controllers.split(","):
            yield _VERSION_1, path


def _mounts(mountinfo: list[str]) -> Iterator[tuple[str, str, str]]:
    """Version, group that is shown, and where; proc_pid_mountinfo(5) has the format."""
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        (_, _, _, shown, place, *_), (kind, _, options) = before.split(" "), after.split(" ", 2)
        if kind == _VERSION_2 or (kind == _VERSION_1 and _MEMORY in options.split(",")):
            yield kind, shown, place


def _groups(path: str, shown: str, place: Path) -> Iterator[Path]:
    """The process's group and those above it, as far as the mount shows them: in a container its own group may be the top."""
    try:
        below = PurePosixPath(path).relative_to(shown)
    except ValueError:
        below = PurePosixPath()
    if ".." in below.parts:  # outside this control-group namespace
        below = PurePosixPath()
    for one in (below, *below.parents):
        yield place / one


def _group_available(group: Path, files: _Files) -> int:
    left = min(_left(group / limit, group / used) for limit, used in files.limits)
    return left if left == NO_LIMIT else left + _droppable(group, files.droppable)


def _droppable(group: Path, kind: str) -> int:
    try:
        statistics = dict(line.split(maxsplit=1) for line in lines_of(group / "memory.stat"))
        return int(statistics.get(kind, 0))
    except (OSError, ValueError):
        return 0


def _left(limit: Path, used: Path) -> int:
    try:
        text = text_of(limit).strip()
        most = NO_LIMIT if text == "max" else int(text)
        return most - int(text_of(used)) if most < NO_LIMIT else NO_LIMIT
    except (OSError, ValueError):
        return NO_LIMIT
