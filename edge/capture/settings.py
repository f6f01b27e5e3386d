"""What the capture side needs to know of the configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.access import why_unusable
from edge.config import Config
from edge.settings import full_key

MIB = 1 << 20
MAX_BATCH_BYTES = 16 * MIB  # of a batch, which is sealed at this size however few captures it has


@dataclass(frozen=True)
class CaptureSettings:
    """Sizes in bytes, times in seconds.

    `bucket` is set when captures are uploaded; `disk_path` when they go to Disk; both for Disk with periodic upload.
    """

    device: str
    fleet: str
    folder_prefix: str
    spool_path: Path
    disk_path: Path | None
    bucket: str | None
    embed_limit: int = 3072
    buffer_captures: int = 30
    buffer_bytes: int = 64 * MIB
    batch_captures: int = 10
    push_period: float = 4.0
    spool_max_bytes: int = 1024 * MIB
    spool_max_files: int = 100_000
    spool_min_free: int = 64 * MIB
    drop_oldest: bool = False
    records_per_file: int = 0  # 0: no limit but the batch
    compress: bool = False  # record files, by gzip

    @property
    def batch_bytes(self) -> int:
        """Bytes that wait at most before a batch is sealed."""
        return min(MAX_BATCH_BYTES, max(1, self.buffer_bytes // 2))

    @property
    def destination(self) -> str:
        """`Disk` or `Cloud`, as the configuration says it."""
        return "Cloud" if self.disk_path is None else "Disk"


def unusable_folders(config: Config) -> Iterator[tuple[str, str]]:
    """Keys whose folder this user could not keep captures in, and why."""
    folders = {"edge_spool_path": config.edge_spool_path}
    if config.core_capture_data_destination == "Disk" and not Path(config.edge_spool_path).is_relative_to(
        config.core_capture_data_disk_path
    ):
        folders[full_key("core_capture_data_disk_path")] = config.core_capture_data_disk_path
    for key, folder in folders.items():
        if why := why_unusable(folder):
            yield key, f"{folder} cannot be used: {why}"


def capture_settings(config: Config) -> CaptureSettings:
    """The part of the configuration that captures depend on."""
    cloud = config.core_capture_data_destination == "Cloud"
    uploads = cloud or config.core_capture_data_periodic_upload
    return CaptureSettings(
        device=config.core_device_name,
        fleet=config.core_device_fleet_name,
        folder_prefix=config.core_folder_prefix,
        spool_path=Path(config.edge_spool_path),
        disk_path=None if cloud else Path(config.core_capture_data_disk_path),
        bucket=config.provider_s3_bucket_name if uploads else None,
        embed_limit=config.core_capture_data_base64_embed_limit,
        buffer_captures=config.core_capture_data_buffer_size,
        buffer_bytes=config.edge_capture_buffer_mib * MIB,
        batch_captures=config.core_capture_data_batch_size,
        push_period=float(config.core_capture_data_push_period_seconds),
        spool_max_bytes=config.edge_spool_max_mib * MIB,
        spool_max_files=config.edge_spool_max_files,
        spool_min_free=config.edge_spool_min_free_mib * MIB,
        drop_oldest=config.edge_spool_full_policy == "drop-oldest",
        records_per_file=config.edge_capture_records_per_file,
        compress=config.edge_capture_compress == "gzip",
    )
