"""Puts the memory that models live in on huge pages.

An inference goes through all of a model's weights, some thousand pages of 4 kB, more than a core's address cache holds; looking
up where they are takes a tenth of a small inference, most of all in a virtual machine. Where the system allows huge pages
to programs that ask for them, this asks for those blocks that are in use almost to the last page, so that no memory
is taken beyond a few hundredths (docs/adr/0021-huge-pages.md).
"""

import ctypes
import logging
import mmap
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

FULL = 0.95  # of a block's pages must be there, for the others are added
_MADV_COLLAPSE = 25  # linux/mman.h; since Linux 6.1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)


def use_huge_pages(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> int:
    """Do it for what is there now; returns how many blocks are on huge pages then. Call it when a model has been loaded."""
    size = _block_bytes(sys)
    if not size:
        return 0
    done: int = sum(
        _libc.madvise(address, size, _MADV_COLLAPSE) == 0
        for start, stop in _anonymous(proc)
        for address in range(-(-start // size) * size, stop - size + 1, size)
        if _is_full(address, size)
    )
    log.debug("%d blocks of %d bytes are on huge pages", done, size)
    return done


def _block_bytes(sys: Path) -> int:
    """The size of a huge page, or 0 where there are none or the system wants none to be used."""
    folder = sys / "kernel/mm/transparent_hugepage"
    try:
        return 0 if "[never]" in (folder / "enabled").read_text() else int((folder / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0


def _anonymous(proc: Path) -> Iterator[tuple[int, int]]:
    """Where this process has writable memory that belongs to no file; proc_pid_maps(5) has the format."""
    try:
        lines = (proc / "self/maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        place, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if permissions == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            start, _, stop = place.partition("-")
            yield int(start, 16), int(stop, 16)


def _is_full(address: int, size: int) -> bool:
    pages = ctypes.create_string_buffer(size // mmap.PAGESIZE)
    if _libc.mincore(address, size, pages) != 0:
        return False  # it has gone meanwhile
    there = sum(byte & 1 for byte in pages.raw)
    return there >= FULL * len(pages)
