"""What operators see of captures that are refused: how many, since when and why, in the status and, at a bounded pace, in
the log. Clients are told each time, but clients are seldom looked at.
"""

import logging
import threading

from edge.clock import Clock

log = logging.getLogger(__name__)

MAX_LATEST = 1024  # models whose last capture's time is remembered
REPORT_SECONDS = 60.0  # between lines of the log, however many are refused


class Refusals:
    """Counts captures that are accepted and refused. Safe from any thread.

    The agent counts as refusing from the first refusal until a capture is accepted.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._reason = ""
        self._last = 0.0  # unix seconds
        self._unreported = 0
        self._reported = False  # of those that last
        self._next_report = -REPORT_SECONDS  # monotonic
        self.total = 0
        self.accepted = 0  # captures
        self.since = 0.0  # unix seconds; 0: the last capture was taken
        self._latest: dict[str, float] = {}  # unix seconds, of the last capture of a model, by its package's name

    def note_refused(self, reason: str) -> None:
        """Count a capture that was refused."""
        now = self._clock.now()
        with self._lock:
            self.total += 1
            self._unreported += 1
            self._reason, self._last = reason, now
            self.since = self.since or now
        self.report()

    def note_accepted(self, model: str) -> None:
        """Count a capture that was accepted; `model` is its package's name."""
        now = self._clock.now()
        with self._lock:
            self.accepted += 1
            if model not in self._latest and len(self._latest) >= MAX_LATEST:
                del self._latest[min(self._latest, key=self._latest.__getitem__)]
            self._latest[model] = now
            if not self.since:
                return
            tell, self._reported = self._reported, False
            self.since = 0.0
        if tell:
            log.info("captures are accepted again; %d were refused since the start", self.total)

    def latest(self) -> dict[str, float]:
        """When the last capture of each model was taken, in unix seconds, by its package's name."""
        with self._lock:
            return dict(self._latest)

    def report(self) -> None:
        """Log what was refused since the last line, if that is long enough ago."""
        now = self._clock.monotonic()
        with self._lock:
            if not self._unreported or now < self._next_report:
                return
            count, self._unreported = self._unreported, 0
            self._next_report, self._reported = now + REPORT_SECONDS, bool(self.since)
            reason = self._reason
        log.warning("captures are refused (%d since the last such line): %s", count, reason)

    def current(self) -> tuple[str, float]:
        """Why captures are refused, and when the last one was, in unix seconds; empty and 0 where they are taken."""
        with self._lock:
            return (f"captures are refused: {self._reason}", self._last) if self.since else ("", 0.0)
