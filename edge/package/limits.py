"""The largest package that a load reads."""

from dataclasses import dataclass

from edge.package.bundle import MAX_FILES, MAX_SIGNATURE_BYTES
from edge.package.manifest import MAX_MANIFEST_BYTES

MAX_FILE_BYTES = 2 << 30  # of a file of a package; a TFLite model has 32-bit offsets
MAX_PACKAGE_BYTES = 4 << 30  # of all files of a package
MAX_UNPACK_RATIO = 100  # times its own size that an archive may unpack to, beyond MAX_FREE_UNPACKED_BYTES
MAX_FREE_UNPACKED_BYTES = 64 << 20  # that any archive may unpack to


@dataclass(frozen=True)
class PackageLimits:
    """Bounds on what a load reads."""

    max_entries: int = MAX_FILES  # files and folders
    max_file_bytes: int = MAX_FILE_BYTES
    max_total_bytes: int = MAX_PACKAGE_BYTES
    max_manifest_bytes: int = MAX_MANIFEST_BYTES
    max_signature_bytes: int = MAX_SIGNATURE_BYTES
    max_unpack_ratio: int = MAX_UNPACK_RATIO
    free_unpacked_bytes: int = MAX_FREE_UNPACKED_BYTES
