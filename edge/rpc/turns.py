"""Leader and followers: one thread at a time has its turn to wait for events, while the others handle what they have taken.

The thread that has the turn gives it up before something that takes long. While that lasts it is nobody's, unless
something comes: then a parked thread takes it (edge.rpc.watch). A thread that is done takes the turn back where nobody
has; else it parks, or ends where enough are parked. Mostly nothing comes, and no thread is woken but by its own client:
a thread that waits in the place of another would be woken twice a call, and often behind somebody else's inference, for
a kernel that finds all cores well used does not look for an idle one.
"""

import logging
import threading
from collections.abc import Callable

from edge.clock import Clock
from edge.rpc.watch import Watch

log = logging.getLogger(__name__)

MAX_THREADS = 128  # each slow call holds one
MAX_PARKED = 4  # threads without work beside the one that waits; more, left by a burst, end


class Turns:
    """The threads. Safe to use from any of them."""

    def __init__(self, wait: Callable[[], bool], *, name: str) -> None:
        """`wait` handles events until the calling thread gave its turn up (false) or there will be none (true)."""
        self._wait = wait
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._made = 0
        self._parked = 0
        self._free = False  # nobody has the turn
        self._over = False
        self._short_of_threads = False  # and that was said

    def start(self, watched: int | None = None) -> None:
        """Make the first thread. `watched`: an epoll instance that has something to read when events come, if there is one.

        Raises:
            RuntimeError: the system gives no thread.
            OSError: it gives no files.
        """
        self._watch = Watch(watched)
        with self._lock:
            self._add_thread()

    def leave(self) -> bool:
        """Give the turn up; another thread takes it once something comes. False as `give_away`."""
        with self._lock:
            if self._parked and self._watch.arm():
                self._free = True
                return True
            return self._hand_over()

    def give_away(self) -> bool:
        """Give the turn up to another thread, which takes it now; false where there can be none: the first that is done does."""
        with self._lock:
            return self._hand_over()

    def take_back(self) -> bool:
        """Take the turn if nobody has it; false where somebody has."""
        with self._lock:
            if self._free:
                self._take()
                return True
            return False

    def join(self, seconds: float, clock: Clock) -> None:
        """After the end of all events: let the threads end; one that has not after so long is left behind."""
        deadline = clock.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, deadline - clock.monotonic()))
        if not any(thread.is_alive() for thread in self.threads):
            self._watch.close()

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Those that wait, work or are parked; after the end of all events the last of them."""
        return tuple(self._threads)

    def _take(self) -> None:
        """With the lock held."""
        self._free = False
        self._watch.disarm()

    def _hand_over(self) -> bool:
        """With the lock held: whether there is a thread to take it."""
        if self._parked:
            self._free = True
            self._watch.ring()
            return True
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
            self._watch.ring_all()

    def _park(self) -> bool:
        """Until the calling thread has its turn (true) or is no longer needed (false)."""
        with self._lock:
            if self._free:
                self._take()
                return True
            if self._over or self._parked >= MAX_PARKED:
                self._threads.remove(threading.current_thread())
                return False
            self._parked += 1
        while True:
            self._watch.wait()
            with self._lock:
                if self._over:
                    return False
                if self._free:
                    self._parked -= 1
                    self._take()
                    return True
