"""The core that an inference begins on: one where no other inference of the agent runs, where there is such a one.

A call's thread is woken on whatever core the kernel finds at that moment. With as many inferences as cores that is often
one where another inference runs, since the client, who has just sent, still has the core that came free. The two then
take turns on one core, and the other is idle until the kernel's balancing sees it, which takes about as long as a whole
inference of a small model. So an inference is moved before it begins, and only then: what the kernel does with it later,
be it for others who want the core or for faster cores, stays the kernel's business (docs/adr/0018-placement.md).
"""

import ctypes
import logging
import os
import threading

log = logging.getLogger(__name__)

# The interpreter lock is kept: giving it up takes longer than the call.
_current_core = ctypes.PyDLL(None).sched_getcpu
_current_core.argtypes = ()


class Placement:
    """Where the agent's inferences began. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, int] = {}  # inferences by core
        self._left: int | None = None  # the core where the last inference ended: most likely idle, and warm
        self._may_move = True

    def begin(self) -> int:
        """Move the calling thread, whose inference is about to begin, to a core of its own if need be; returns that core.

        Each call needs its `end`.
        """
        with self._lock:
            here: int = _current_core()
            core = here
            if self._running.get(here) and self._may_move:
                allowed = os.sched_getaffinity(0)
                core = self._unused(allowed, here)
            self._running[core] = self._running.get(core, 0) + 1
        if core != here:
            self._move(core, allowed)
        return core

    def _unused(self, allowed: set[int], here: int) -> int:
        """With the lock held: one of the `allowed` cores that none of our inferences began on; else `here`."""
        if self._left in allowed and not self._running.get(self._left):
            return self._left
        return min((core for core in allowed if not self._running.get(core)), default=here)

    def _move(self, core: int, allowed: set[int]) -> None:
        """Let the calling thread go on on `core`, and be free to leave it for the others it is `allowed`."""
        try:
            os.sched_setaffinity(0, {core})
            os.sched_setaffinity(0, allowed)
        except PermissionError:
            log.info("inferences stay on the cores where the kernel has them: sched_setaffinity is not permitted")
            self._may_move = False
        except OSError:
            pass  # the cores that it may use have just been changed from outside

    def end(self, core: int) -> None:
        """The inference that began on `core` is over."""
        with self._lock:
            self._running[core] -= 1
            self._left = core
