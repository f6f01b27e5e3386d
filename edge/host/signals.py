"""Signals that stop the agent (X-4): the first asks for a clean stop, a second ends the process at once.

They are blocked everywhere and waited for in a thread of their own. A handler on the main thread would not do: a signal that
comes between its last look and its wait is not seen until the next one.
"""

import os
import signal
import threading

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_EXIT_BY_SIGNAL = 128  # as shells say it


def block() -> None:
    """Block the signals in this thread and in all that it starts; call it before any thread is started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def unblock() -> None:
    """Undo `block`; for a child process, which inherits it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def watch(stop: threading.Event) -> None:
    """Set `stop` at the first signal, and end the process at the second."""
    threading.Thread(target=_wait, args=(stop,), name="signals", daemon=True).start()


def _wait(stop: threading.Event) -> None:
    signal.sigwait(STOP_SIGNALS)
    stop.set()
    os._exit(_EXIT_BY_SIGNAL + signal.sigwait(STOP_SIGNALS))
