"""Whether the process may open more files, asked before a library needs them: its own words for want of one mislead."""

import os
import resource

from edge.errors import MemoryLimitError


def make_sure_of(count: int) -> None:
    """That `count` more descriptors can be open.

    Raises:
        MemoryLimitError: they cannot.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return
    try:
        used = sum(1 for _ in os.scandir("/proc/self/fd"))
    except FileNotFoundError:  # no /proc
        return
    except OSError:
        used = most
    if used + count > most:
        raise MemoryLimitError(
            f"loading a model takes up to {count} descriptors and {max(0, most - used)} of {most} are free; "
            "raise the limit (LimitNOFILE, ulimit -n)"
        )
