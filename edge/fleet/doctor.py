"""What is wrong with a repository, as its operator finds out (`fleet doctor`), and what may go (`fleet prune`)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.errors import EdgeError
from edge.fleet.contents import PACKAGES, TOP
from edge.fleet.document import Document
from edge.fleet.files import Entry, Reading
from edge.fleet.metadata import Trusted
from edge.fleet.repository import FleetRepository

SOON_DAYS = {"timestamp": 3, "snapshot": 7}  # before its end a role is to be signed again
OTHERS_SOON_DAYS = 60


def problems(repository: FleetRepository, now: float) -> Iterator[str]:
    """What is wrong with a repository, in words; devices are the measure: what they would do is done."""
    try:
        yield from _of_contents(repository)
        yield from ending(repository, now)
        with tempfile.TemporaryDirectory() as folder:
            trusted = Trusted(Path(folder), Reading(repository.files), repository.data("root", 1), lambda *_: now, None)
            for fleet in repository.fleets():
                if repository.versions(fleet):
                    trusted.find(f"fleets/{fleet}/models.json")
    except (EdgeError, OSError) as error:
        yield f"a device that comes now: {error}"


def _of_contents(repository: FleetRepository) -> Iterator[str]:
    published = repository.packages()
    sizes = {entry.path: entry.size for entry in repository.files.entries("targets/packages/")}
    for path, target in published.items():
        place = f"targets/{repository.place(target)}"
        if sizes.get(place) != target.length:
            yield f"{path}: {repository.files.at(place)} is missing or has another length"
    for fleet in repository.fleets():
        document = repository.document(fleet)
        if document is None:
            continue
        for alias, rules in document.models.items():
            for rule in rules:
                if rule.package not in published:
                    yield f"fleet {fleet}: {alias}: {rule.package} is not published"


def ending(repository: FleetRepository, now: float) -> Iterator[str]:
    """The roles that end soon."""
    for role in (*TOP, PACKAGES, *repository.fleets()):
        if role not in TOP and not repository.versions(role):
            continue
        left = (repository.latest(role).signed.expires.timestamp() - now) / 86_400
        if left < SOON_DAYS.get(role, OTHERS_SOON_DAYS):
            yield f"{role} {f'ends in {left:.0f} days' if left > 0 else 'has ended'}; sign it again ({_remedy(role)})"


def _remedy(role: str) -> str:
    return "fleet timestamp" if role in ("snapshot", "timestamp") else f"fleet renew {role}"


def unused(repository: FleetRepository, older_than: float) -> list[str]:
    """The paths of files that nothing names any more and that are older than a moment; root files stay for devices that were long away.

    What the timestamp's snapshot names is in force, though a role may be newer: the online key's holder comes later.

    Raises:
        EdgeError: the repository cannot be read.
    """
    roles = ("targets", "snapshot", PACKAGES, *repository.fleets())
    kept = {(role, versions[-1]) for role in roles if (versions := repository.versions(role))}
    for snapshot in {repository.latest("timestamp").signed.snapshot_meta.version, repository.versions("snapshot")[-1]}:
        kept.add(("snapshot", snapshot))
        meta = repository.latest("snapshot", snapshot).signed.meta
        kept |= {(name.removesuffix(".json"), one.version) for name, one in meta.items()}
    named = {
        repository.place(target)
        for role, version in kept
        if role != "snapshot" and version in repository.versions(role)
        for target in repository.latest(role, version).signed.targets.values()
    }
    current = {"timestamp.json", *(f"{version}.{role}.json" for role, version in kept)}

    def goes(entry: Entry) -> bool:
        folder, _, name = entry.path.partition("/")
        if folder == "targets":
            return name not in named
        return name.endswith(".json") and name not in current and not name.endswith(".root.json")

    files = repository.files
    found = [entry for under in ("metadata/", "targets/") for entry in files.entries(under) if goes(entry)]
    return sorted(entry.path for entry in found if entry.modified < older_than)


def documents(repository: FleetRepository) -> dict[str, Document | None]:
    """The document of each fleet."""
    return {fleet: repository.document(fleet) for fleet in repository.fleets()}
