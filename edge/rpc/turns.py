"""Leader and followers: one thread at a time has its turn to wait for events, while the others handle what they have taken.

The thread that has the turn gives it up before something that takes long: a parked thread is woken for it, the last that
parked, or one is made. A thread that is done takes the turn back where the one that was woken has not come for it yet; else
it parks, or ends where enough are parked.
"""

import logging
import threading
from collections.abc import Callable

from edge.clock import Clock

log = logging.getLogger(__name__)

MAX_THREADS = 128  # threads that serve calls; each slow call holds one
MAX_PARKED = 4  # idle threads that are kept for the next slow calls; further ones end


class Turns:
    """The threads. Safe to use from any of them."""

    def __init__(self, wait: Callable[[], bool], *, name: str) -> None:
        """`wait` handles events until the calling thread gave its turn up (false) or there will be none (true)."""
        self._wait = wait
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._made = 0
        self._parked: list[threading.Lock] = []  # a bell for each parked thread
        self._called = False  # one of them was woken and has not come for the turn
        self._free = False  # nobody has the turn
        self._over = False
        self._short_of_threads = False  # and that was said

    def start(self) -> None:
        """Make the first thread.

        Raises:
            RuntimeError: the system gives no thread.
        """
        with self._lock:
            self._add_thread()

    def give_away(self) -> bool:
        """Give the turn up to another thread, which takes it now; false where there can be none: the first that is done does."""
        with self._lock:
            if self._called or self._parked:
                self._free = True
                self._call()
                return True
            return self._make()

    def take_back(self) -> bool:
        """Take the turn if nobody has it; false where somebody has."""
        with self._lock:
            had, self._free = self._free, False
            return had

    def join(self, seconds: float, clock: Clock) -> None:
        """After the end of all events: let the threads end; one that has not after so long is left behind."""
        deadline = clock.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, deadline - clock.monotonic()))

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Those that wait, work or are parked; after the end of all events the last of them."""
        return tuple(self._threads)

    def _call(self) -> None:
        """With the lock held: wake the thread that parked last, unless one is on its way already."""
        if not self._called and self._parked:
            self._called = True
            self._parked.pop().release()

    def _make(self) -> bool:
        """With the lock held: give the turn to a new thread; false where there can be none."""
        try:
            if len(self._threads) < MAX_THREADS:
                self._add_thread()
                return True
        except RuntimeError as error:
            if not self._short_of_threads:
                log.warning("no thread waits for calls until one of %d is done: %s", len(self._threads), error)
            self._short_of_threads = True
        self._free = True
        return False

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
        self._short_of_threads = False

    def _run(self) -> None:
        while not self._wait():
            if not self._park():
                return
        with self._lock:
            self._over = True
            while self._parked:
                self._parked.pop().release()

    def _park(self) -> bool:
        """Until the calling thread has its turn (true) or is no longer needed (false)."""
        bell, called = threading.Lock(), False
        bell.acquire()
        while True:
            with self._lock:
                if called:
                    self._called = False
                if self._free:
                    self._free = False
                    return True
                if self._over:
                    return False
                if len(self._parked) >= MAX_PARKED:
                    self._threads.remove(threading.current_thread())
                    return False
                self._parked.append(bell)
            bell.acquire()
            called = True
