"""The capture side as operators see it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CaptureSnapshot:
    """The capture side at one moment, as operators see it (CaptureStatus in proto/operations.proto)."""

    destination: str
    pending: int
    pending_bytes: int
    oldest_pending_unix_seconds: int
    succeeded: int
    failed: int
    dropped: int
    refused: int
    refusing_since_unix_seconds: int
    last_error: str
    last_error_unix_seconds: int
    accepted: int
    files: int
