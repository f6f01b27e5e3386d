"""A device's state by its last heartbeat: when its models last ran, and problems that need an operator. Pure.

A device may tell anything: what is of another kind than expected counts as not told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LATEST = 1e11  # seconds since the epoch; what is later is no time that a device told of
LOW_DISK_BYTES = 64 << 20  # free; less asks for a person
MANY_FAIL = 100  # one inference of so many that fails asks for a person
REASON_CHARACTERS = 200  # of an error that is shown


@dataclass(frozen=True)
class Standing:
    """The newest inference and capture of its models, in seconds since the epoch (0: none was told of), and worries in words."""

    inference: float
    capture: float
    worries: tuple[str, ...]


def moment(value: object) -> float:
    """Seconds since the epoch, as a device told them; 0 for what is no such time."""
    number = _number(value)
    return number if number is not None and number <= LATEST else 0.0


def standing(heartbeat: Mapping[str, Any]) -> Standing:
    """What a heartbeat says."""
    models = [(str(alias), one) for alias, one in _table(heartbeat.get("models")).items() if isinstance(one, dict)]
    return Standing(
        max((moment(one.get("last_inference")) for _, one in models), default=0.0),
        max((moment(one.get("last_capture")) for _, one in models), default=0.0),
        tuple(_worries(heartbeat, models)),
    )


def _worries(heartbeat: Mapping[str, Any], models: list[tuple[str, dict[str, Any]]]) -> list[str]:
    found = []
    if error := _text(heartbeat.get("last_error")):
        found.append(f"last round: {error}")
    if heartbeat.get("clock_synchronised") is False:
        found.append("the clock is not synchronised")
    free = _number(heartbeat.get("disk_free_bytes"))
    if free is not None and free < LOW_DISK_BYTES:
        found.append("less than 64 MiB of the disk are free")
    for alias, one in models:
        failed, well = _number(one.get("failed")) or 0.0, _number(one.get("predicted")) or 0.0
        if failed and failed * MANY_FAIL >= failed + well:
            found.append(f"inferences of {alias[:REASON_CHARACTERS]} fail")
    if error := _text(_table(heartbeat.get("captures")).get("last_error")):
        found.append(f"captures: {error}")
    return found


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    """A number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        return None
    return float(value) if value <= LATEST * 1e6 else LATEST * 1e6


def _text(value: object) -> str:
    return value[:REASON_CHARACTERS] if isinstance(value, str) else ""
