"""Threads of which one at a time has its turn to wait for events, while the others handle what they have taken.

The thread that has the turn gives it away before something that takes long: to a parked thread, the last that parked,
for its memory is the likeliest still in the cache, or to a new one. Each waits on a lock of its own, so that exactly one
is woken; threads that wait on one queue together wake each other. A thread that is done parks, or ends where enough are
parked.
"""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

MAX_THREADS = 128
MAX_PARKED = 4  # threads without work beside the one that waits; more, left by a burst, end


class Turns:
    """The threads. Safe to use from any of them."""

    def __init__(self, wait: Callable[[], bool], *, name: str) -> None:
        """`wait` handles events until the calling thread gave its turn away (false) or there will be none (true)."""
        self._wait = wait
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._made = 0
        self._parked: list[threading.Lock] = []
        self._free = False  # nobody has the turn: all threads are busy
        self._over = False

    def start(self) -> None:
        """Make the first thread.

        Raises:
            RuntimeError: the system gives none.
        """
        with self._lock:
            self._add_thread()

    def give_away(self) -> None:
        """Let another thread wait, or the first that is done; the calling one does so no more until it has parked."""
        with self._lock:
            if self._parked:
                self._parked.pop().release()
                return
            try:
                if len(self._threads) < MAX_THREADS:
                    self._add_thread()
                    return
            except RuntimeError as error:
                log.warning("no thread waits for calls until one of %d is done: %s", len(self._threads), error)
            self._free = True

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Those that wait, work or are parked; after the end of all events the last of them."""
        return tuple(self._threads)

    def _add_thread(self) -> None:
        """With the lock held: one more thread, which has the turn."""
        thread = threading.Thread(target=self._run, name=f"{self._name}-{self._made}", daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.remove(thread)
            raise
        self._made += 1

    def _run(self) -> None:
        awake = threading.Lock()
        awake.acquire()
        while not self._wait():
            with self._lock:
                if self._free:
                    self._free = False
                    continue
                if self._over or len(self._parked) >= MAX_PARKED:
                    self._threads.remove(threading.current_thread())
                    return
                self._parked.append(awake)
            awake.acquire()
        self._end()

    def _end(self) -> None:
        """There will be no more events, which those that are parked find out for themselves."""
        with self._lock:
            self._over = True
            for awake in self._parked:
                awake.release()
            self._parked.clear()
