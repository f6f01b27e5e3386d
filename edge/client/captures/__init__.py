"""Reads captures: this agent's and the original's, in a folder, in the agent's spool, in a copy of a bucket, or in a bucket.

    from edge.client import captures

    for capture in captures.read("/var/lib/sagemaker-edge-agent/captures"):
        print(capture.time, capture.model_name, capture.inputs[0].array().shape, captures.prediction(capture))

Records are read one at a time, large tensors when `array()` or `content()` asks for them. A record that cannot be used does
not end the rest: give `refused` a function that is called with each `Refusal`, or find them in the log.
"""

import os
from argparse import Namespace
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from edge.client.captures.predictions import Prediction, prediction
from edge.client.captures.reading import Refusal, Refused, captures_of
from edge.client.captures.records import Capture, Entry, RecordError
from edge.client.captures.sources import Folder, Source
from edge.client.outcome import CommandError

__all__ = [
    "Capture",
    "CommandError",
    "Entry",
    "Prediction",
    "RecordError",
    "Refusal",
    "Source",
    "prediction",
    "read",
    "source",
]


def read(
    where: str | PathLike[str],
    refused: Refused | None = None,
    *,
    config: str | None = None,
    region: str | None = None,
    endpoint: str | None = None,
) -> Iterator[Capture]:
    """The captures in a folder or in a bucket, s3://BUCKET/PREFIX.

    A bucket is asked with the keys in the environment (AWS_ACCESS_KEY_ID and others), in the region that AWS_REGION names, or
    as an agent's configuration, `config`, has it. `endpoint` is the URL of a store other than AWS.

    Raises:
        CommandError: it cannot be read.
    """
    return captures_of(source(os.fspath(where), config=config, region=region, endpoint=endpoint), refused)


def source(where: str, *, config: str | None = None, region: str | None = None, endpoint: str | None = None) -> Source:
    """What `read` reads, for `captures.summaries.summaries_of` and others that take a source.

    Raises:
        CommandError: it is none.
    """
    if not where.startswith("s3://"):
        return Folder(Path(where))
    from edge.client.captures.bucket import source_of

    return source_of(Namespace(where=where, config=config, region=region, endpoint=endpoint))
