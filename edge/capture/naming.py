"""Names of record files and large entries, unique among the processes of all devices, and the records with them."""

import itertools
import os
from pathlib import Path

from edge.capture import layout, record
from edge.capture.record import CaptureRequest, Record
from edge.capture.settings import CaptureSettings


class Naming:
    """Safe from any thread."""

    def __init__(self, settings: CaptureSettings, root: Path) -> None:
        """`root` is the folder of the keys."""
        self._settings = settings
        self._root = root
        self._names = layout.Names(settings.folder_prefix, settings.fleet, settings.device, os.urandom(4).hex())
        self._numbers = itertools.count(1)

    def record(self, request: CaptureRequest, now: float) -> tuple[str, Record]:
        """The prefix of the record file's key, which captures of one model and hour share, and the record."""
        folder = self._names.folder(request.model_name, now)
        stem = self._names.stem(now, next(self._numbers))
        made = record.build_record(
            request,
            device=self._settings.device,
            fleet=self._settings.fleet,
            accepted=now,
            embed_limit=self._settings.embed_limit,
            key_of=lambda kind, index: layout.raw_key(folder, kind, stem, index),
            uri_of=self._uri,
        )
        return f"{folder}/{layout.SUMMARY if request.summary else ''}", made

    def key(self, prefix: str, now: float) -> str:
        """The key of a new record file with a prefix."""
        packed = layout.PACKED if self._settings.compress else ""
        return f"{prefix}{self._names.stem(now, next(self._numbers))}{layout.RECORD}{packed}"

    def _uri(self, key: str) -> str:
        if self._settings.bucket is not None:
            return f"s3://{self._settings.bucket}/{key}"
        return layout.file_uri(f"{self._root}/{key}")
