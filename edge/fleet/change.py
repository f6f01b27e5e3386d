"""What an act on a repository is to write, and how it is written: so that whoever reads in between sees the state before."""

import contextlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from edge import durable
from edge.errors import EdgeError


class FleetRepositoryError(EdgeError):
    """The repository cannot be read or changed so."""


@dataclass
class Change:
    """What an act is to write: metadata by file name, other files with where they come from or their bytes."""

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

    def write(self, folder: Path) -> None:
        """Write it all into a repository's folder.

        Raises:
            FleetRepositoryError: something could not be written; what was before is in force.
        """
        try:
            for name, given in self.targets.items():
                path = folder / "targets" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(given, bytes):
                    durable.write_file(path, given)
                else:
                    _copy(given, path)
            metadata = folder / "metadata"
            metadata.mkdir(parents=True, exist_ok=True)
            for name in self.ordered():
                durable.write_file(metadata / name, self.metadata[name])
        except OSError as error:
            raise FleetRepositoryError(f"{error.filename or folder}: {durable.why(error)}") from None


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(target.name + durable.TEMPORARY)
    try:
        shutil.copyfile(source, temporary)
        durable.fsync_file(temporary)
        durable.rename_all([(temporary, target)])
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
