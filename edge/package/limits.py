"""How large a package may be."""

from dataclasses import dataclass

from edge.package.bundle import MAX_FILES, MAX_SIGNATURE_BYTES
from edge.package.manifest import MAX_MANIFEST_BYTES

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class PackageLimits:
    """Bounds on what a load reads. A TFLite model is at most 2 GiB: its format has 32-bit offsets."""

    max_entries: int = MAX_FILES  # files and folders
    max_file_bytes: int = 2 * GIB
    max_total_bytes: int = 4 * GIB
    max_manifest_bytes: int = MAX_MANIFEST_BYTES
    max_signature_bytes: int = MAX_SIGNATURE_BYTES
    # An archive may unpack to `free_unpacked_bytes`, and beyond that to `max_unpack_ratio` times its own size.
    max_unpack_ratio: int = 100
    free_unpacked_bytes: int = 64 * MIB
