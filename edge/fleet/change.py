"""The files that an operator's command writes, in an order in which readers see the old state or the new one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge.fleet.files import Files

TIMESTAMP = "timestamp.json"  # the one file that is written over


@dataclass
class Change:
    """The files to write: metadata by file name, other files as their bytes or the path that they come from."""

    metadata: dict[str, bytes] = field(default_factory=dict)
    targets: dict[str, bytes | Path] = field(default_factory=dict)

    def paths(self) -> list[str]:
        """Files in the order that they are written in."""
        return [*(f"targets/{name}" for name in self.targets), *(f"metadata/{name}" for name in self.ordered())]

    def ordered(self) -> list[str]:
        """Metadata in that order."""

        def rank(name: str) -> int:
            role = name.removesuffix(".json").partition(".")[2] or "timestamp"
            return {"root": 0, "snapshot": 2, "timestamp": 3}.get(role, 1)

        return sorted(self.metadata, key=lambda name: (rank(name), name))

    def write(self, files: Files, check: Callable[[], None], *, first: bool) -> None:
        """Write it all; `check` is called between the other files and the metadata. `first`: there is no timestamp yet.

        Raises:
            FleetRepositoryError: something could not be written; what was before is in force.
        """
        for name, given in self.targets.items():
            files.put(f"targets/{name}", given)
        check()
        for name in self.ordered():
            path = f"metadata/{name}"
            if name == TIMESTAMP and not first:
                files.replace(path, self.metadata[name])
            else:
                files.create(path, self.metadata[name])
