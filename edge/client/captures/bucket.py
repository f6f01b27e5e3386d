"""Captures in a bucket: `s3://BUCKET/PREFIX`. A record file is fetched whole, to a temporary file where it is large."""

import contextlib
import io
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from edge.client import buckets
from edge.client.captures.records import MAX_TENSOR_BYTES, RecordError
from edge.client.captures.sources import Folder, Source, is_record_name, is_summary_name
from edge.client.outcome import InputError, RefusedError
from edge.clock import SystemClock
from edge.cloud.aws.reading import S3Reader
from edge.cloud.build import build_reader
from edge.cloud.store import StoreError
from edge.config import load_config
from edge.errors import ConfigError

MAX_RECORD_FILE_BYTES = 4 << 30
MEMORY_BYTES = 1 << 20  # of a record file that is held in memory


class Bucket:
    """The objects of a bucket whose keys begin with a prefix."""

    def __init__(self, reader: S3Reader, prefix: str) -> None:
        self._reader = reader
        self._prefix = prefix

    def files(self) -> Iterator[str]:
        """As `Source`."""
        try:
            for key in self._reader.keys(self._prefix):
                name = key.rpartition("/")[2]
                if is_record_name(name) or is_summary_name(name):
                    yield key
        except StoreError as error:
            raise RefusedError("UNAVAILABLE", str(error)) from None

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """As `Source`."""
        with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as file:
            whole = cast(BinaryIO, file)
            self._get(key, whole, MAX_RECORD_FILE_BYTES)
            yield whole

    def raw(self, key: str) -> bytes:
        """As `Source`."""
        file = io.BytesIO()
        self._get(key, file, MAX_TENSOR_BYTES)
        return file.getvalue()

    def _get(self, key: str, file: BinaryIO, most: int) -> None:
        try:
            self._reader.get(key, file, most)
        except StoreError as error:
            raise RecordError(f"{key} cannot be read: {error}") from None


def source_of(options: Namespace) -> Source:
    """What WHERE names: a folder, or a bucket with the options for it.

    Raises:
        InputError: it cannot be.
    """
    where = str(options.where)
    if not where.startswith(buckets.SCHEME):
        return Folder(Path(where))
    bucket, prefix = buckets.parse(where)
    config = None
    if options.config:
        try:
            config = load_config(options.config).config
        except ConfigError as error:
            raise InputError(f"{options.config}: {str(error).splitlines()[0]}") from None
    region, endpoint = buckets.region_and_endpoint(
        options.region or "", options.endpoint or "", configured=config is not None
    )
    return Bucket(build_reader(bucket, SystemClock(), config=config, region=region, endpoint=endpoint), prefix)
