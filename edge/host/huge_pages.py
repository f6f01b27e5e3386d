"""Puts the memory that models live in, and that large requests come in, on huge pages.

An inference goes through all of a model's weights, some thousand pages of 4 kB, more than a core's address cache holds; looking
up where they are takes a tenth of a small inference, most of all in a virtual machine. A large request is copied three times, through
as many pages. Where the system allows huge pages to programs that ask for them, this asks for those blocks that are in use almost to
the last page, so that no memory is taken beyond a few hundredths (docs/adr/0021-huge-pages.md).
"""

import ctypes
import logging
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

from edge.host.kernel_files import lines_of
from edge.host.memory import give_back

log = logging.getLogger(__name__)

FULL = 0.95  # of a block's pages must be there, for the others are added
_MADV_COLLAPSE = 25  # linux/mman.h; since Linux 6.1

_REST = 100  # times as long as it took for large requests, before it is done for them again
_LOOK_BLOCKS = 32  # that mincore is asked about at once

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
# The interpreter lock is kept: while calls are served, getting it back takes longer than the call.
_mincore = ctypes.PyDLL(None).mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)


class Keeper:
    """Does it when a model has begun to serve, and while large requests come, second after second.

    For a request now and then it would take more time than it saves: what one takes is given back before the next comes.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._served = self._requests = 0
        self._busy = False
        self._rest_until = 0.0

    def look(self, served: int, requests: int, *, crowded: bool = False) -> None:
        """Call it now and then with how many models began to serve and large requests came.

        crowded: several at a time, whose memory is given back at once.
        """
        busy = requests != self._requests and not crowded
        if served != self._served:
            use_huge_pages()
            give_back()  # blocks that were freed meanwhile
        elif busy and self._busy and (begun := self._monotonic()) >= self._rest_until:
            use_huge_pages()
            ended = self._monotonic()
            self._rest_until = ended + _REST * (ended - begun)
        self._served, self._requests, self._busy = served, requests, busy


def use_huge_pages(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> int:
    """Do it for what is there now; returns how many blocks are on huge pages then."""
    size = _block_bytes(sys)
    if not size:
        return 0
    done = sum(
        count
        for start, stop in _anonymous(proc)
        for address, count in _full(-(-start // size) * size, stop // size * size, size)
        if _madvise(address, count * size, _MADV_COLLAPSE) == 0
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
        lines = lines_of(proc / "self/maps")
    except OSError:
        return
    for line in lines:
        place, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if permissions == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            start, _, stop = place.partition("-")
            yield int(start, 16), int(stop, 16)


def _full(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """The runs of blocks there that are full: where each begins, and of how many blocks it is."""
    pages = size // mmap.PAGESIZE
    first = start  # of the run that is looked at
    for address in range(start, stop, _LOOK_BLOCKS * size):
        blocks = min(_LOOK_BLOCKS, (stop - address) // size)
        there = ctypes.create_string_buffer(blocks * pages)
        if _mincore(address, blocks * size, there) != 0:  # it has gone meanwhile
            there = ctypes.create_string_buffer(blocks * pages)
        seen = there.raw
        for block in range(blocks):
            here = address + block * size
            if seen.count(1, block * pages, (block + 1) * pages) < FULL * pages:
                if here > first:
                    yield first, (here - first) // size
                first = here + size
    if stop > first:
        yield first, (stop - first) // size
