"""A device's settings as a member of a fleet, and how a deployment ended on it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.fleet.document import Device


@dataclass(frozen=True)
class Settings:
    """What a device knows of its fleet: its `device`, the fleet's name, the root of trust (a file), the folder for all this.

    `roots` is the folder of the roots that packages' signers are judged by.
    """

    fleet: str
    device: Device
    root: Path
    folder: Path
    build_date: int
    roots: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a deployment ended here: `reasons` by alias, empty where all went well."""

    deployment: str
    models: Mapping[str, str]
    reasons: Mapping[str, str]
