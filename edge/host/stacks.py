"""Where every thread of this process is, in one line for the log: functions and lines only, never their data; and names for
the kernel's view of them."""

import sys
import threading
from pathlib import Path, PurePath
from types import FrameType

from edge.text import cut

MAX_FRAMES = 12  # of a thread's stack in the log, innermost first
MAX_CHARACTERS = 32_000  # of all stacks in the log: journald cuts a line at 48 KiB
_MAX_NAME_BYTES = 15  # linux/sched.h: TASK_COMM_LEN, less its terminator


def thread_stacks() -> str:
    """The stack of every Python thread, innermost call first; threads at the same place are counted together."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    places: dict[str, list[str]] = {}
    for ident, frame in sys._current_frames().items():
        places.setdefault(_stack(frame), []).append(names.get(ident, f"thread {ident}"))
    text = " | ".join(f"{_label(threads)}: {stack}" for stack, threads in places.items())
    return cut(text, MAX_CHARACTERS)


def _label(threads: list[str]) -> str:
    return threads[0] if len(threads) == 1 else f"{len(threads)} threads ({threads[0]}, ...)"


def _stack(innermost: FrameType) -> str:
    calls, frame, more = [], innermost, False
    while True:
        code = frame.f_code
        calls.append(f"{code.co_qualname} ({PurePath(code.co_filename).name}:{frame.f_lineno})")
        if frame.f_back is None:
            break
        if len(calls) == MAX_FRAMES:
            more = True
            break
        frame = frame.f_back
    return " < ".join(calls) + (" < ..." if more else "")


def name_threads(named: set[int]) -> None:
    """Give the kernel the threads' names, for `top -H` and debuggers; `named` holds the ids of those that have theirs."""
    threads = threading.enumerate()
    named.intersection_update(thread.native_id for thread in threads if thread.native_id is not None)
    for thread in threads:
        ident = thread.native_id
        if ident is None or ident in named or thread is threading.main_thread():
            continue
        named.add(ident)
        try:
            Path(f"/proc/self/task/{ident}/comm").write_bytes(thread.name.encode()[:_MAX_NAME_BYTES])
        except OSError:  # it has ended, or there is no /proc
            continue
