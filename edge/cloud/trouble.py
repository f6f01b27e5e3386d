"""What operators see of uploads that do not go through. For any thread."""

import logging
import threading

from edge.clock import Clock

log = logging.getLogger(__name__)


class Trouble:
    """The last failure in words, its unix seconds, and one line of log for each new one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._given_up = ("", 0.0)
        self._error = ("", 0.0)
        self._logged = ""

    def last(self) -> tuple[str, float]:
        """The last failure and its unix seconds; empty and 0 when all is well."""
        return self._error

    def tell(self, text: str, level: int = logging.WARNING) -> None:
        """Show a failure and log it, unless it was the last that was logged."""
        with self._lock:
            if text != self._logged:
                log.log(level, "uploads: %s", text)
            self._logged = text
        self.note(text)

    def note(self, text: str) -> None:
        """Show a failure, which the log has once it is known to last."""
        self._error = (text, self._clock.now())

    def give_up(self, key: str, why: str) -> None:
        """An object is given up: that stays to be seen until others are."""
        self._given_up = (f"{key}: given up: {why}", self._clock.now())
        self.tell(self._given_up[0], logging.ERROR)

    def over(self, waiting: str = "") -> None:
        """Something went through: only why something waits, and what was given up, is still to be told."""
        with self._lock:
            error = (waiting, self._clock.now()) if waiting else self._given_up
            if self._logged and not error[0]:
                log.info("uploads go through again")
            self._logged, self._error = error[0], error
