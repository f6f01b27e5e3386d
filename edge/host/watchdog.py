"""The watchdog: tells the service manager "alive" only while every piece of evidence holds.

A thread collects the evidence some times in each watchdog interval. While something is missing it sends nothing, so that
the service manager restarts the agent once a whole interval has passed without a message; evidence that comes back in time
(a slow disk, a long call) costs nothing. The first round without it logs what is missing and where every thread is.

Two hangs keep this thread itself from running: a stopped process, and native code that holds the interpreter's lock. The
messages stop then too, and the service manager's SIGABRT makes `faulthandler` write every stack.
"""

import faulthandler
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.clock import Clock
from edge.host.notify import Notifier
from edge.host.stacks import name_threads, thread_stacks
from edge.stopping import WATCHDOG_SECONDS
from edge.tally import Tally

log = logging.getLogger(__name__)

ROUNDS_PER_INTERVAL = 4  # of the service manager's interval: one slow round must not cost a restart
UNSUPERVISED_SECONDS = 5.0  # between rounds where nobody watches and the log alone tells
UNSUPERVISED_ANSWER_SECONDS = 15.0
MAX_ROUND_SECONDS = 10.0  # longest time between two of the watchdog's checks
_STDERR = 2


class Check(Protocol):
    """One piece of evidence."""

    name: str

    def missing(self) -> str | None:
        """What is missing, in words; None: the evidence holds."""
        ...

    def close(self) -> None:
        """Free what the check holds."""
        ...


@dataclass(frozen=True)
class Decision:
    """What follows from a round: send "alive", and which faults are new, which are over."""

    alive: bool
    new: tuple[str, ...] = ()
    over: tuple[str, ...] = ()


def decide(findings: Sequence[tuple[str, str | None]], known: frozenset[str]) -> Decision:
    """Judge one round; pure. `findings` are (check name, what is missing); `known` names the checks already reported."""
    missing = {name: reason for name, reason in findings if reason is not None}
    return Decision(
        alive=not missing,
        new=tuple(reason for name, reason in missing.items() if name not in known),
        over=tuple(sorted(known - missing.keys())),
    )


def round_seconds(watchdog_seconds: float | None) -> float:
    """The time between rounds for the service manager's interval, in seconds."""
    if watchdog_seconds is None:
        return UNSUPERVISED_SECONDS
    return min(MAX_ROUND_SECONDS, watchdog_seconds / ROUNDS_PER_INTERVAL)


def answer_seconds(watchdog_seconds: float | None) -> float:
    """How long the server may take to answer the watchdog's own call, in seconds: half the interval, so that slow is not stuck."""
    return UNSUPERVISED_ANSWER_SECONDS if watchdog_seconds is None else watchdog_seconds / 2


class Watchdog:
    """The thread that collects the evidence, and keeps the status line up to date beside."""

    def __init__(
        self,
        checks: Sequence[Check],
        notifier: Notifier,
        clock: Clock,
        interval_s: float | None = None,
        status: Callable[[], str] | None = None,
    ) -> None:
        """`interval_s`: seconds between rounds (None: as the service manager's interval asks); `status`: the line to show."""
        self._checks = tuple(checks)
        self._notifier = notifier
        self._clock = clock
        self._interval_s = round_seconds(notifier.watchdog_seconds) if interval_s is None else interval_s
        self._status = status
        self._known: frozenset[str] = frozenset()
        self.rounds = Tally("alive", "stuck")
        self.alive_at = 0.0  # unix seconds; 0: not yet
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin; the first round comes at once."""
        if not faulthandler.is_enabled():
            faulthandler.enable(file=_STDERR, all_threads=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a check that hangs is left behind, for the stop of the agent has a limit of its own."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(WATCHDOG_SECONDS)
        for check in self._checks:
            check.close()

    def round(self) -> bool:
        """Collect the evidence once and act on it; true if all of it holds."""
        findings = [(check.name, self._ask(check)) for check in self._checks]
        if self._stop.is_set():  # a server that is stopping stops answering
            return True
        decision = decide(findings, self._known)
        for name in decision.over:
            log.warning("the watchdog's evidence is back: %s", name)
        if decision.new:
            log.critical("the agent is stuck: %s", "; ".join(decision.new))
            log.critical("threads: %s", thread_stacks())
        self._known = frozenset(name for name, reason in findings if reason is not None)
        self.rounds.count("alive" if decision.alive else "stuck")
        if decision.alive:
            self.alive_at = self._clock.now()
            self._notifier.alive()
        self._show(findings)
        return decision.alive

    def _run(self) -> None:
        named: set[int] = set()
        while not self._stop.is_set():
            name_threads(named)
            self.round()
            self._clock.wait(self._stop, self._interval_s)

    def _ask(self, check: Check) -> str | None:
        try:
            return check.missing()
        except Exception as error:  # noqa: BLE001 - a check that fails is evidence missing, not an end of the watch
            return f"the check of the {check.name} fails: {type(error).__name__}: {error}"

    def _show(self, findings: Sequence[tuple[str, str | None]]) -> None:
        faults = [reason for _, reason in findings if reason is not None]
        if faults:
            self._notifier.status("stuck: " + "; ".join(faults))
        elif self._status is not None:
            try:
                self._notifier.status(self._status())
            except Exception:
                log.warning("no status line", exc_info=True)
