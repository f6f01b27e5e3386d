"""A clock that tests set."""

import threading

START = 1_750_000_000.0  # 2025-06-15T15:06:40Z
_LOOK_SECONDS = 0.02


class FakeClock:
    """Time moves by `advance` alone; a wait ends when its event is set or its time has come."""

    def __init__(self, now: float = START) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._monotonic = 1000.0
        self.is_synchronised = True

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def synchronised(self) -> bool:
        return self.is_synchronised

    def wait(self, event: threading.Event, seconds: float) -> bool:
        end = self._monotonic + seconds
        while not event.wait(_LOOK_SECONDS):
            if self._monotonic >= end:
                return False
        return True

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def set(self, now: float) -> None:
        """Set the wall clock, as NTP or a person does."""
        self._now = now
