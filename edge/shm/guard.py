"""What becomes of SIGBUS while an inference reads a client's file where it is mapped.

Who touches a mapped page that its file has no longer is sent SIGBUS, which ends the process. During such an inference Python's own
handler, in C, takes the signal: in whatever thread it is, it writes the signal's number into a pipe (signal.set_wakeup_fd) and
returns. The instruction is tried again, and faults again, until the thread that waits at the pipe has found the file that was cut
short and laid zeros over its mapping. The inference then goes on to its end, and its caller is told (edge.shm.posix).

The thread at the pipe is one of Python's. So nobody may touch a mapping while holding the interpreter lock: engines give it up.

A fault that no client's file explains ends the process as it did before. docs/adr/0043-mapped-regions.md weighs it all.
"""

import contextlib
import ctypes
import logging
import os
import select
import signal
import threading

from edge.clock import Clock
from edge.shm.mapping import Mapping

log = logging.getLogger(__name__)

QUIET_SECONDS = 0.1  # without a signal, until a fault is over
UNEXPLAINED_SECONDS = 0.5  # of signals that no file explains, until they are left to end the process
UNEXPLAINED_LOOKS = 100  # and at least as many
ENDING_SECONDS = 10.0  # that the process has to end then
_PIPE_BYTES = 65_536  # what a pipe holds: all that came before a look is read before it
_ACTION_BYTES = 256  # struct sigaction has 152 with glibc

# They are called at the beginning and the end of inferences, and take no time for which to give up the interpreter lock.
_sigaction = ctypes.PyDLL(None, use_errno=True).sigaction
_sigaction.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class Guard:
    """Watches over the mappings that inferences read. Safe to use from any thread, but for making it."""

    def __init__(self, clock: Clock) -> None:
        """On the main thread: only there a handler can be set."""
        self._clock = clock
        self._lock = threading.Lock()
        self._used = set[Mapping]()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._explained = False  # by what the last inferences found at their ends
        self._pipe, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = ctypes.create_string_buffer(_ACTION_BYTES)
        self._ours = ctypes.create_string_buffer(_ACTION_BYTES)
        # Python is told of the handler, and the kernel only while it is needed.
        _sigaction(signal.SIGBUS, None, self._before)
        signal.signal(signal.SIGBUS, _pass_over)
        _sigaction(signal.SIGBUS, self._before, self._ours)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def begin(self, mapping: Mapping) -> bool:
        """An inference is about to read it; false where the system gives no thread to watch over it.

        Each needs its `end`, and the mapping's descriptor stays open until then.
        """
        with self._lock:
            if self._closing or (self._thread is None and not self._start()):
                return False
            if not self._used:
                _sigaction(signal.SIGBUS, self._ours, self._before)
            self._used.add(mapping)
            mapping.users += 1
            return True

    def end(self, mapping: Mapping, changed: int) -> None:
        """The inference is over; `changed`: the file's ctime now. Without users a mapping is left alone, and may be unmapped."""
        with self._lock:
            self._explained |= mapping.changed != changed
            mapping.changed = changed
            mapping.users -= 1
            if mapping.users:
                return
            self._used.discard(mapping)
            if not self._used:
                _sigaction(signal.SIGBUS, self._before, None)

    def _start(self) -> bool:
        thread = threading.Thread(target=self._watch, name="client files", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while not self._closing:
            poll.poll()
            since, looks = self._clock.monotonic(), 0  # that explained nothing, one after the other
            while not self._closing and poll.poll(QUIET_SECONDS * 1000):
                try:
                    # Other signals' numbers come through the pipe as well, should there be handlers for them.
                    if signal.SIGBUS not in os.read(self._pipe, _PIPE_BYTES):
                        continue
                    explained = self._look()
                except Exception:
                    log.exception("a fault in a client's file is not looked into")
                    explained = False
                if explained:
                    since, looks = self._clock.monotonic(), 0
                    continue
                # It may be one that was on its way while its file was covered; of those each thread has one.
                looks += 1
                if looks >= UNEXPLAINED_LOOKS and self._clock.monotonic() - since >= UNEXPLAINED_SECONDS:
                    self._give_up()
                    looks = 0

    def _look(self) -> bool:
        """Cover what was cut short; whether any file was changed since the last look, which explains a fault.

        Where a client cuts its file and makes it longer again, again and again, no look may come while it is short. But each
        cut changes the ctime, which is looked at here and at the end of each inference.
        """
        with self._lock:
            explained, self._explained = self._explained, False
            for mapping in self._used:
                if mapping.cut:
                    continue
                found = os.fstat(mapping.fd)
                if found.st_size < mapping.end:
                    explained |= mapping.cover()
                elif found.st_ctime_ns != mapping.changed:
                    mapping.changed, explained = found.st_ctime_ns, True
            return explained

    def _give_up(self) -> None:
        """The fault is in other memory: its next try ends the process."""
        log.critical("SIGBUS in memory that is no client's: a file that is mapped was cut short or cannot be read")
        _sigaction(signal.SIGBUS, self._before, None)
        select.select(
            [], [], [], ENDING_SECONDS
        )  # faulthandler reads the stacks of threads, best of those that stand still

    def close(self) -> None:
        """End the thread, on the main thread, unless an inference still needs it; nothing is lent from then on."""
        with self._lock:
            if self._used or self._closing:
                return
            self._closing = True
        if self._thread is not None:
            os.write(self._wake, b"\0")
            self._thread.join()
        if signal.set_wakeup_fd(-1) != self._wake:  # pragma: no cover
            log.error("somebody else waits for signals")
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        _sigaction(signal.SIGBUS, self._before, None)
        for fd in (self._pipe, self._wake):
            with contextlib.suppress(OSError):
                os.close(fd)


def _pass_over(_number: int, _frame: object) -> None:
    """What the main thread does some time later."""
