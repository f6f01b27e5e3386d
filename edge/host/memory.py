"""How much memory there is for models (L-6), and giving it back to the system (U-3)."""

import ctypes
import gc
import math
from pathlib import Path

from edge.errors import MemoryLimitError
from edge.host import cgroups, pages
from edge.host.heap import heap_free
from edge.host.kernel_files import text_of

# Left to the system and to requests in flight, beyond what a model is measured to take.
HEADROOM_BYTES = 16 << 20
# glibc's mallopt(3): parameters, and values for them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
KEPT_MESSAGES = 2  # of the largest size: what malloc may keep of freed memory while calls come; `Trim` returns it
LARGEST_KEPT_BYTES = 32 << 20  # of one block; the most that glibc allows
LARGEST_KEPT_OF_SEVERAL_BYTES = 48 << 10  # while several large messages come: less than the pieces they come in, 64 KiB
_libc = ctypes.CDLL(None)


def system_available(proc: Path = Path("/proc")) -> int:
    """MemAvailable, in bytes."""
    for line in text_of(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return cgroups.NO_LIMIT


def available() -> int:
    """Bytes that models may take now, by the system's and the control groups' word, headroom kept back."""
    return max(0, min(system_available(), cgroups.available()) - HEADROOM_BYTES)


def check(what: str, needed: int, there: int) -> None:
    """Whether `there` bytes of memory are enough.

    Raises:
        MemoryLimitError: they are not.
    """
    if needed > there:
        # Rounded away from each other, so that the two differ.
        raise MemoryLimitError(
            f"{what} needs {math.ceil(10 * needed / (1 << 20)) / 10} MiB of memory and"
            f" {max(0, 10 * there >> 20) / 10} MiB are available"
        )


def give_back() -> None:
    """Return freed heap pages to the system; without it glibc keeps an unloaded model's memory."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def settle() -> None:
    """Say that what was made up to now lives as long as the process: the collector need not look at it again.

    What making it took beyond that, of the heap and of code, goes back to the system.
    """
    gc.collect()
    gc.freeze()
    give_back()
    pages.release()


def tune_allocator(max_message_bytes: int) -> None:
    """Have malloc keep the buffers of large messages from call to call. Call it before threads start.

    By default each such buffer is mapped and unmapped anew, and its page faults cost more than the copying. One arena
    for all threads keeps a single set of them.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)
        _libc.mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        _libc.mallopt(_M_TRIM_THRESHOLD, min(KEPT_MESSAGES * max_message_bytes, 2**31 - 1))


def keep_large_blocks(*, keep: bool) -> None:
    """Whether malloc keeps the buffers of large messages, as it does since `tune_allocator`.

    Where several come at a time, those of many sizes leave holes that are larger than what is in use. Mapped ones leave none.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES if keep else LARGEST_KEPT_OF_SEVERAL_BYTES)


class Trim:
    """Returns memory that malloc kept to the system: once calls have stopped coming, and where it is too much.

    Buffers of many sizes leave holes between those in use, which malloc by itself gives back only at the heap's end.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._kept_bytes = KEPT_MESSAGES * max_message_bytes
        self._seen = self._trimmed = 0

    def look(self, calls: int) -> None:
        """Call it now and then with the number of calls so far."""
        if calls != self._trimmed and (calls == self._seen or heap_free() > self._kept_bytes):
            give_back()
            self._trimmed = calls
        self._seen = calls
