"""When a device sends which reports: the end of each deployment, and heartbeats (F-12)."""

import logging
import random
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from edge.clock import Clock
from edge.errors import EdgeError
from edge.fleet.membership import Outcome, Settings
from edge.fleet.reports import Reports, heartbeat_key, report_key
from edge.fleet.times import JITTER
from edge.host import memory

log = logging.getLogger(__name__)


class Telling:
    """Makes reports and heartbeats, and has them sent. For any thread."""

    def __init__(self, settings: Settings, version: str, clock: Clock, reports: Reports, interval: float) -> None:
        self.account: Callable[[], Mapping[str, Any]] = dict  # what the agent says of itself besides
        self.standing: Callable[[], Mapping[str, Any]] = dict  # what is declared now, and how the last round ended
        self._settings = settings
        self._version = version
        self._clock = clock
        self._reports = reports
        self._interval = interval
        self._due = 0.0  # monotonic
        self._said = ""  # of what failed, once
        self._chance = random.Random()  # noqa: S311 - for spreading load

    def outcome(self, outcome: Outcome) -> None:
        """A deployment has ended here.

        Raises:
            FleetError: the report cannot be kept.
        """
        models = {
            alias: {"package": package, "status": "failed" if alias in outcome.reasons else "ok"}
            | ({"reason": outcome.reasons[alias]} if alias in outcome.reasons else {})
            for alias, package in outcome.models.items()
        }
        key = report_key(
            self._settings.fleet, outcome.deployment, self._settings.device.name, failed=bool(outcome.reasons)
        )
        self._reports.put(key, {**self._who(), "deployment": outcome.deployment, "models": models})
        self._due = 0.0  # a heartbeat on change

    def _who(self) -> dict[str, Any]:
        return {
            "device": self._settings.device.name,
            "fleet": self._settings.fleet,
            "agent": self._version,
            "arch": self._settings.device.arch,
            "at": int(self._clock.now()),
            "clock_synchronised": self._clock.synchronised(),
        }

    def tell(self, *, now: bool = False) -> None:
        """Send what waits, and a heartbeat where one is due, or `now`. What fails is told by the log, and tried again later."""
        if self._reports.outlet is None:
            return
        try:
            if now or self._clock.monotonic() >= self._due:
                self._reports.put(heartbeat_key(self._settings.fleet, self._settings.device.name), self._heartbeat())
                self._due = self._clock.monotonic() + self._interval * (1 - JITTER + 2 * JITTER * self._chance.random())
            self._reports.send()
            self._said = ""
        except EdgeError as error:
            if str(error) != self._said:
                log.warning("fleet: %s", error)
            self._said = str(error)
        except Exception:
            log.exception("fleet: reports are not sent")

    def _heartbeat(self) -> dict[str, Any]:
        return {
            **self._who(),
            **self.standing(),
            "disk_free_bytes": shutil.disk_usage(self._settings.folder.parent).free,
            "memory_available_bytes": memory.available(),
            **self.account(),
        }

    def abort(self) -> None:
        """End what is under way."""
        if self._reports.outlet is not None:
            self._reports.outlet.abort()
