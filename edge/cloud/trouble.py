"""The last upload failure, for the status and the log. Safe from any thread."""

import logging
import threading

from edge.clock import Clock

log = logging.getLogger(__name__)


class Trouble:
    """The last failure and its time in unix seconds; each new one is logged once."""

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
        """Show a failure without logging it: `tell` logs it if it lasts."""
        self._error = (text, self._clock.now())

    def give_up(self, key: str, why: str) -> None:
        """Show that an object was given up, until another one is."""
        self._given_up = (f"{key}: given up: {why}", self._clock.now())
        self.tell(self._given_up[0], logging.ERROR)

    def over(self, waiting: str = "") -> None:
        """An upload succeeded: show only why something still waits, or what was given up."""
        with self._lock:
            error = (waiting, self._clock.now()) if waiting else self._given_up
            if self._logged and not error[0]:
                log.info("uploads go through again")
            self._logged, self._error = error[0], error
