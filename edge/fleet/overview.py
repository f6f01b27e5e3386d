"""The reports of a fleet's devices: progress of a deployment, failures with their reasons, silent devices.

Reports and heartbeats are read from the bucket, or from a folder that has them as they lie there, `reports/…` and `heartbeats/…`.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edge import strict_json
from edge.fleet.files import Entry, Files, UnreadableFileError
from edge.fleet.reports import MAX_REPORT_BYTES, SUFFIX
from edge.fleet.standing import moment, standing
from edge.strict_json import JsonFault

SILENT_DAYS = 2.0  # after so long without a heartbeat a device counts as silent


@dataclass(frozen=True)
class Failure:
    """A deployment that failed on a device: when, in seconds since the epoch, and why by alias."""

    device: str
    deployment: str
    at: float
    reasons: dict[str, str]


@dataclass
class Overview:
    """A fleet: the last heartbeat of each device, the devices that reported each deployment as well, the failures."""

    fleet: str
    heartbeats: dict[str, dict[str, Any]] = field(default_factory=dict)
    well: dict[str, set[str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unreadable: int = 0

    def failed(self, deployment: str) -> list[Failure]:
        """The failures of one deployment, by device."""
        return sorted((one for one in self.failures if one.deployment == deployment), key=lambda one: one.device)

    def waiting(self, deployment: str) -> list[str]:
        """Devices with a heartbeat that have not reported on the deployment yet."""
        told = self.well.get(deployment, set()) | {one.device for one in self.failed(deployment)}
        return sorted(set(self.heartbeats) - told)

    def silent(self, now: float, days: float = SILENT_DAYS) -> list[str]:
        """Devices whose last heartbeat is older."""
        return sorted(d for d, one in self.heartbeats.items() if now - moment(one.get("at")) > days * 86_400)

    def versions(self) -> dict[str, Counter[str]]:
        """By alias, how many devices serve which version."""
        found: dict[str, Counter[str]] = {}
        for one in self.heartbeats.values():
            models = one.get("models")
            for alias, model in models.items() if isinstance(models, dict) else ():
                version = str(model.get("version", "")) if isinstance(model, dict) else ""
                found.setdefault(str(alias), Counter())[version] += 1
        return found

    def worries(self) -> dict[str, list[str]]:
        """Problems that need an operator, and the devices that have them; the most frequent first."""
        found: dict[str, list[str]] = {}
        for device, one in sorted(self.heartbeats.items()):
            for worry in standing(one).worries:
                found.setdefault(worry, []).append(device)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def failed_share(self, deployment: str) -> float | None:
        """The share of the devices that reported, in percent, on which it failed; None where none did."""
        failed = len(self.failed(deployment))
        whole = failed + len(self.well.get(deployment, set()))
        return 100 * failed / whole if whole else None


def read(files: Files, fleet: str) -> Overview:
    """What a fleet's devices have told. A device that serves a deployment is told by its report's name alone.

    Raises:
        FleetRepositoryError: it cannot be read.
    """
    found = Overview(fleet)
    for entry, (device,) in _named(files, f"heartbeats/{fleet}/", 1):
        if (value := _value(found, files, entry)) is not None:
            found.heartbeats[device] = value
    for entry, (deployment, ended, device) in _named(files, f"reports/{fleet}/", 3):
        if ended == "ok":
            found.well.setdefault(deployment, set()).add(device)
        elif ended == "failed" and (value := _value(found, files, entry)) is not None:
            models = value.get("models")
            reasons = {
                str(alias): str(model.get("reason", "no reason is given"))
                for alias, model in (models.items() if isinstance(models, dict) else ())
                if isinstance(model, dict) and model.get("status") != "ok"
            }
            found.failures.append(Failure(device, deployment, moment(value.get("at")), reasons))
    return found


def _named(files: Files, under: str, depth: int) -> Iterator[tuple[Entry, list[str]]]:
    """Reports, and the parts of their names; a device that may store reports may store objects of other names beside them."""
    for entry in files.entries(under):
        parts = entry.path.removeprefix(under).removesuffix(SUFFIX).split("/")
        if entry.path.endswith(SUFFIX) and len(parts) == depth:
            yield entry, parts


def _value(found: Overview, files: Files, entry: Entry) -> dict[str, Any] | None:
    """What a report says; what is none is counted."""
    with contextlib.suppress(UnreadableFileError, JsonFault):
        if entry.size <= MAX_REPORT_BYTES:
            return strict_json.parse_object(files.read(entry.path, MAX_REPORT_BYTES), max_bytes=MAX_REPORT_BYTES)
    found.unreadable += 1
    return None
