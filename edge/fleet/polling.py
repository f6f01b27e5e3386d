"""When a device looks for news: at random moments around an interval, later after failures, and when asked (F-1, F-3)."""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.clock import Clock
from edge.errors import DeadlineError, EdgeError, FleetError
from edge.fleet import times
from edge.fleet.device import Fleet
from edge.fleet.source import Folder, Source, SourceError, folder_of
from edge.fleet.telling import Telling
from edge.serving.caller import Caller
from edge.text import printable, shown

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # between looks at a deployment that has yet to prove itself; each one that fails doubles it
MAX_LOOK_SECONDS = 600.0  # longest pause between checks of a new deployment that fail
TURN_SECONDS = 0.1  # between tries to have a polled round give way
STOP_SECONDS = 2.0  # that a round has to end when the agent does
MAX_ERROR_CHARACTERS = 600  # of the reason why a poll failed, as it is shown


@dataclass(frozen=True)
class Checked:
    """How the last round ended: when, in seconds since the epoch (0: none has), and what failed."""

    at: float = 0.0
    error: str = ""


class Polling:
    """The rounds of a device. Safe to use from any thread."""

    def __init__(
        self,
        fleet: Fleet,
        repository: str,
        interval: float,
        *,
        clock: Clock,
        stop: threading.Event,
        connect: Callable[[str], Source],
        telling: Telling,
    ) -> None:
        """`stop` is set by `stop()`, for whatever waits on behalf of a round; `connect` makes the source of a repository that is on a server; an empty `repository` is never polled."""
        self.fleet = fleet
        self.repository = repository
        self.checked = Checked()
        self._interval = interval
        self._clock = clock
        self._connect = connect
        self.telling = telling
        self._stop = stop
        self._source: Source | None = None
        self._failures = 0
        self._retry_after = 0.0
        self._turn = threading.Lock()  # of whoever runs a round
        self._polled: Source | None = None  # what the thread's own round reads
        self._gave_way = False  # that round was ended for a call's
        self._look_failures = 0
        self._look_error = ""
        self.faults = 0  # errors that nobody expected
        self._not_before = 0.0  # monotonic: when the repository may be asked again by a call
        self._chance = random.Random()  # noqa: S311 - for spreading load
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to poll."""
        if self._stop.is_set():
            return
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the current round; the next run continues a partly fetched package."""
        self._stop.set()
        source = self._source
        if source is not None:
            source.abort()
        self.telling.abort()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        wait = self._chance.random() * min(times.FIRST_SECONDS, self._interval)
        while not self._sleep(wait):
            self._gave_way = False
            if self.repository:
                with self._turn:
                    self._round(self.repository, None)
            self.telling.tell()
            if self._gave_way:
                wait = min(self._interval, times.RETRY_SECONDS)
            else:
                wait = times.until_next(self._interval, self._failures, self._retry_after, self._chance.random())

    def _sleep(self, seconds: float) -> bool:
        """Wait, and look at what is on trial meanwhile; true where the agent stops."""
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0:
            if not self.fleet.state.proved or self._look_failures:
                left = min(left, MAX_LOOK_SECONDS, LOOK_SECONDS * 2.0 ** min(self._look_failures, 16))
            if self._clock.wait(self._stop, left):
                return True
            self._look()
        return self._stop.is_set()

    def _look(self) -> None:
        """See what is on trial. Whatever fails is told, and done again later: the thread goes on."""
        try:
            ended = self.fleet.look()
        except (EdgeError, OSError) as error:
            text = printable(str(error), MAX_ERROR_CHARACTERS)
            if text != self._look_error:
                log.error("fleet: %s", text)
        except Exception:
            log.exception("fleet: the look at what is on trial failed")
            text = self._fault()
        else:
            self._look_failures, self._look_error = 0, ""
            if ended:
                self.telling.tell(now=True)
            return
        self._look_failures, self._look_error = self._look_failures + 1, text

    def _fault(self) -> str:
        """Something failed that should not have; what is shown of it."""
        self.faults += 1
        return f"internal error ({self.faults} since the start); the agent's log says more"

    @contextmanager
    def _turn_of(self, caller: Caller, *, hurried: bool) -> Iterator[None]:
        """Its turn for a round; where it is `hurried`, the thread's own round gives way, and is run again soon.

        Raises:
            DeadlineError: another round does not end in time.
        """
        while not self._turn.acquire(timeout=TURN_SECONDS):
            left = caller.time_remaining()
            if left is not None and left <= 0:
                raise DeadlineError("another round of the fleet has not ended in time")
            if hurried and (polled := self._polled) is not None:
                self._gave_way = True
                polled.abort()
        try:
            yield
        finally:
            self._turn.release()

    def check(self, folder: str, caller: Caller) -> None:
        """A round now, of the repository, or of a folder. Too soon after the last one, or before the server's Retry-After,
        how that one ended stands. A folder does not wait for packages on their way from the repository.

        Raises:
            FleetError: there is neither.
            DeadlineError: another round does not end in time.
        """
        if folder and not folder.startswith("/"):
            raise FleetError(f"{shown(folder)} is no absolute path of a folder")
        if not folder and not self.repository:
            raise FleetError("no edge_fleet_repository is configured; name a folder (fleet apply --from DIR)")
        with self._turn_of(caller, hurried=bool(folder)):
            if folder or self._clock.monotonic() >= self._not_before:
                self._round(folder or self.repository, caller)
        self.telling.tell()

    def describe(self) -> dict[str, Any]:
        """The device's state in its fleet, as FleetStatus in proto/operations.proto has it."""
        fleet, state = self.fleet, self.fleet.state
        standing = "refused" if fleet.refused else "committed" if state.proved else "trying"
        names = sorted({*state.models, *fleet.refused, *fleet.pinned})
        return {
            "fleet": fleet.name,
            "repository": self.repository,
            "deployment": state.deployment,
            "state": "switching" if fleet.switching else standing if state.deployment or fleet.refused else "",
            "models": [
                {
                    "name": name,
                    "package": state.models[name].package if name in state.models else "",
                    "refused": fleet.refused.get(name, ""),
                    "pinned": name in fleet.pinned,
                }
                for name in names
            ],
            "checked_unix_seconds": int(self.checked.at),
            "last_error": self.checked.error or self._look_error,
            "judged_by": fleet.judged.by,
        }

    def standing(self) -> dict[str, Any]:
        """The same in short, for a heartbeat (F-22)."""
        now = self.describe()
        return {name: now[name] for name in ("deployment", "state", "judged_by", "last_error")}

    def _round(self, repository: str, caller: Caller | None) -> None:
        polled = repository == self.repository
        try:
            with self._opened(repository, own=caller is None) as source:
                if self.fleet.round(source, repository, caller):
                    log.info("fleet: what %s offers was taken over", printable(repository))
        except (EdgeError, OSError) as error:
            if self._stop.is_set() or (caller is None and self._gave_way):
                return
            text = printable(str(error), MAX_ERROR_CHARACTERS)
            if text != self.checked.error:
                log.warning("fleet: %s", text)
            self.checked = Checked(self.checked.at, text)
            if polled:
                self._failures += 1
                self._retry_after = error.retry_after if isinstance(error, SourceError) else 0.0
                self._not_before = self._clock.monotonic() + self._retry_after
        except Exception:
            log.exception("fleet: the round failed")
            self.checked = Checked(self.checked.at, self._fault())
            self._failures += polled
        else:
            self.checked = Checked(self._clock.now())
            if polled:
                self._failures, self._retry_after = 0, 0.0
                self._not_before = self._clock.monotonic() + times.LEAST_SECONDS

    @contextmanager
    def _opened(self, repository: str, *, own: bool) -> Iterator[Source]:
        folder = folder_of(repository)
        source = Folder(Path(folder)) if folder is not None else self._connect(repository)
        self._source, self._polled = source, source if own else None
        try:
            if self._stop.is_set():
                source.abort()
            yield source
        finally:
            self._polled = None
            source.close()
