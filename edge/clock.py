"""The one clock: everything that asks for the time takes a `Clock`, so that tests can set it."""

import ctypes
import threading
import time
from typing import Protocol

_STA_UNSYNC = 0x0040  # linux/timex.h
_TIME_ERROR = 5
_TIMEX_BYTES = 208  # sizeof(struct timex) on 64-bit Linux
_TIMEX_STATUS_OFFSET = 40
_libc = ctypes.PyDLL(None)


class Clock(Protocol):
    """Wall and monotonic time, in seconds."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never jumps."""
        ...

    def synchronised(self) -> bool:
        """Whether the system clock was set from a trusted source since boot (S-6)."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; true if it is set."""
        ...


class SystemClock:
    """The machine's clock."""

    # C's functions themselves: a small Predict reads the clock five times.
    now, monotonic = staticmethod(time.time), staticmethod(time.monotonic)

    def synchronised(self) -> bool:
        """Ask the kernel (adjtimex with modes 0); a kernel that will not say counts as synchronised."""
        timex = ctypes.create_string_buffer(_TIMEX_BYTES)
        state = _libc.adjtimex(timex)
        if state < 0:
            return True
        status = int.from_bytes(timex.raw[_TIMEX_STATUS_OFFSET : _TIMEX_STATUS_OFFSET + 4], "little")
        return not (state == _TIME_ERROR or status & _STA_UNSYNC)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)
