"""How much memory the process has taken from malloc."""

import ctypes

_WRAP = 1 << 32


class _State(ctypes.Structure):
    """struct mallinfo of malloc.h. (mallinfo2, whose numbers do not wrap, is newer than the oldest glibc served.)"""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


# The interpreter lock is kept: giving it up would take longer than the call.
_libc = ctypes.PyDLL(None)
_mallinfo = getattr(_libc, "mallinfo", None)  # glibc's; elsewhere nothing can be told
if _mallinfo is not None:
    _mallinfo.restype = _State


def heap_mark() -> int:
    """A mark for `heap_growth`."""
    if _mallinfo is None:
        return 0
    state = _mallinfo()
    return int(state.uordblks + state.hblkhd)


def heap_growth(mark: int) -> int:
    """The bytes taken and not given back since the mark, up to 2 GiB either way."""
    return (heap_mark() - mark + _WRAP // 2) % _WRAP - _WRAP // 2


def heap_free() -> int:
    """The bytes that malloc keeps for later, below 2 GiB."""
    return int(_mallinfo().fordblks) % _WRAP if _mallinfo is not None else 0
