"""Counts by name, since the start of what counts."""

import threading
from collections import defaultdict
from collections.abc import Callable


class Tally:
    """Safe to use from any thread. Names come from the code, never from outside: each is kept for ever."""

    __slots__ = ("_counts", "_lock")

    def __init__(self, *names: str) -> None:
        """`names` that are told from the beginning, with 0."""
        self._lock = threading.Lock()
        self._counts = defaultdict[str, int](int, dict.fromkeys(names, 0))

    def count(self, name: str, more: int = 1) -> None:
        """One more, or `more`."""
        with self._lock:
            self._counts[name] += more

    def counter(self, name: str) -> Callable[[], None]:
        """What counts one more of a name, for where each nanosecond counts."""
        lock, counts = self._lock, self._counts

        def count() -> None:
            with lock:
                counts[name] += 1

        return count

    def counts(self) -> dict[str, int]:
        """All of them, now."""
        with self._lock:
            return dict(self._counts)
