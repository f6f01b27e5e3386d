"""Whether the system gives threads, asked before an engine needs them: one that gets none may wait for them for ever."""

import threading

from edge.errors import MemoryLimitError


def make_sure_of(count: int) -> None:
    """That `count` more threads can run at a time, whatever limits them: a control group, the user's own limit, memory.

    Raises:
        MemoryLimitError: they cannot.
    """
    enough = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=enough.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        raise MemoryLimitError(
            f"loading the model takes {count} threads and the system gives {len(started)}; raise the limit of processes "
            "(TasksMax, pids.max, ulimit -u) or lower the model's threads"
        ) from None
    finally:
        enough.set()
        for thread in started:
            thread.join()
