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
from edge.deploy.turn import held
from edge.errors import EdgeError, FleetError
from edge.fleet import times
from edge.fleet.device import Fleet
from edge.fleet.source import Folder, Source, SourceError, folder_of
from edge.fleet.telling import Telling
from edge.serving.scheduler import Caller
from edge.text import printable, shown

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # between looks at a deployment that has yet to prove itself
STOP_SECONDS = 2.0  # that a round has to end when the agent does
MAX_ERROR_CHARACTERS = 600  # of why a round failed, as it is shown


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
        self._asked = threading.Lock()
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
        """End what is under way; a package that is on its way is gone on with in the next run."""
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
            if self.repository:
                self._round(self.repository, None)
            self.telling.tell()
            wait = times.until_next(self._interval, self._failures, self._retry_after, self._chance.random())

    def _sleep(self, seconds: float) -> bool:
        """Wait, and look at what is on trial meanwhile; true where the agent stops."""
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0:
            trying = not self.fleet.state.proved
            if self._clock.wait(self._stop, min(left, LOOK_SECONDS if trying else left)):
                return True
            try:
                if self.fleet.look():
                    self.telling.tell(now=True)
            except (EdgeError, OSError) as error:
                log.error("fleet: %s", error)
        return self._stop.is_set()

    def check(self, folder: str, caller: Caller) -> None:
        """A round now, of the repository, or of a folder. Too soon after the last one, or before the server's Retry-After,
        how that one ended stands.

        Raises:
            FleetError: there is neither.
        """
        if folder and not folder.startswith("/"):
            raise FleetError(f"{shown(folder)} is no absolute path of a folder")
        if not folder and not self.repository:
            raise FleetError("no edge_fleet_repository is configured; name a folder (fleet apply --from DIR)")
        with held(self._asked, caller):
            if folder or self._clock.monotonic() >= self._not_before:
                self._round(folder or self.repository, caller)
        self.telling.tell()

    def describe(self) -> dict[str, Any]:
        """How the device stands in its fleet, as FleetStatus in proto/operations.proto has it."""
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
            "last_error": self.checked.error,
            "judged_by": fleet.judged.by,
        }

    def _round(self, repository: str, caller: Caller | None) -> None:
        polled = repository == self.repository
        try:
            with self._opened(repository) as source:
                if self.fleet.round(source, repository, caller):
                    log.info("fleet: what %s offers was taken over", printable(repository))
        except (EdgeError, OSError) as error:
            if self._stop.is_set():
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
            self.checked = Checked(self.checked.at, "internal error; the agent's log says more")
            self._failures += polled
        else:
            self.checked = Checked(self._clock.now())
            if polled:
                self._failures, self._retry_after = 0, 0.0
                self._not_before = self._clock.monotonic() + times.LEAST_SECONDS

    @contextmanager
    def _opened(self, repository: str) -> Iterator[Source]:
        folder = folder_of(repository)
        source = Folder(Path(folder)) if folder is not None else self._connect(repository)
        self._source = source
        try:
            if self._stop.is_set():
                source.abort()
            yield source
        finally:
            source.close()
