"""Pages of the program and its libraries that only a start, or a model's load, needed."""

import ctypes
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edge.host.kernel_files import lines_of

_MADV_DONTNEED = 4
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([-rwxps]{4}) \S+ \S+ \S+ *(.*)")
_libc = ctypes.CDLL(None)


class Mapping(NamedTuple):
    """A line of smaps(5), and what follows it. Addresses and sizes are bytes."""

    start: int
    end: int
    mode: str
    file: str
    resident: int
    changed: int  # pages that are the process's own, relocated ones say, in memory or swapped out


def mappings(smaps: Iterable[str]) -> Iterator[Mapping]:
    """The mappings of a process by the lines of its smaps."""
    head: re.Match[str] | None = None
    sizes: dict[str, int] = {}
    for line in [*smaps, "0-0 ---p 0 0 0"]:
        if found := _HEAD.fullmatch(line):
            if head is not None:
                changed = sizes.get("Anonymous", 0) + sizes.get("Swap", 0)
                yield Mapping(int(head[1], 16), int(head[2], 16), head[3], head[4], sizes.get("Rss", 0), changed)
            head, sizes = found, {}
        elif line.endswith(" kB"):
            name, _, size = line.partition(":")
            sizes[name] = int(size.split()[0]) * 1024


def code(found: list[Mapping]) -> list[Mapping]:
    """Those that hold nothing but what programs' and libraries' files do.

    None that can be written to, nor one with a changed page: that page's content would be lost. Where the resident size is
    0, as an emulator says of each, nothing is known of changes either.
    """
    programs = {one.file for one in found if "x" in one.mode and one.file.startswith("/")}
    private = [one for one in found if one.mode[0] == "r" and one.mode[1] == "-" and one.mode[3] == "p"]
    return [one for one in private if one.file in programs and one.resident and not one.changed]


def release(smaps: Path = Path("/proc/self/smaps")) -> int:
    """Take code that was used up to now out of this process's memory: the bytes.

    A start runs through several times the code that serving does. These pages stay in the system's cache as long as it has
    room, and one that is used again is mapped from there; the others are the first that the system can do without.
    """
    if not hasattr(_libc, "madvise"):
        return 0
    try:
        found = code(list(mappings(lines_of(smaps))))
    except OSError:
        return 0
    released = 0
    for one in found:
        length = ctypes.c_size_t(one.end - one.start)
        if not _libc.madvise(ctypes.c_void_p(one.start), length, _MADV_DONTNEED):
            released += one.resident
    return released
