"""Counts by name, since the start of what counts."""

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable


class Tally:
    """Safe to use from any thread. Names come from the code, never from outside: each is kept for ever."""

    __slots__ = ("_counters", "_counts", "_lock")

    def __init__(self, *names: str) -> None:
        """`names` that are told from the beginning, with 0."""
        self._lock = threading.Lock()
        self._counters: dict[str, itertools.count[int]] = {}
        self._counts = defaultdict[str, int](int, dict.fromkeys(names, 0))

    def count(self, name: str, more: int = 1) -> None:
        """One more, or `more`."""
        with self._lock:
            self._counts[name] += more

    def counter(self, name: str) -> Callable[[], object]:
        """What counts one more of a name when it is called, for where each nanosecond counts: one call of C, without a lock."""
        with self._lock:
            return self._counters.setdefault(name, itertools.count()).__next__

    def counts(self) -> dict[str, int]:
        """All of them, now."""
        with self._lock:
            counts = dict(self._counts)
            for name, counter in self._counters.items():
                counts[name] = counts.get(name, 0) + _next_of(counter)
            return counts


def _next_of(counter: "itertools.count[int]") -> int:
    """How often it was called: the number that comes next, which it tells only by its text if it is to stay so."""
    return int(repr(counter).removeprefix("count(").removesuffix(")"))
