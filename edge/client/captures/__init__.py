"""Reads captures: this agent's and the original's, in a folder, in the agent's spool, in a copy of a bucket, or in a bucket.

    from edge.client import captures

    for capture in captures.read("/var/lib/sagemaker-edge-agent/captures"):
        print(capture.time, capture.model_name, capture.inputs[0].array().shape, captures.prediction(capture))

Records are read one at a time, large tensors when `array()` or `content()` asks for them. A record that cannot be used does
not end the rest: give `refused` a function that is called with each `Refusal`, or find them in the log.
"""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from edge.client.captures.predictions import Prediction, prediction
from edge.client.captures.reading import Refusal, Refused, captures_of
from edge.client.captures.records import Capture, Entry, RecordError
from edge.client.captures.sources import Folder, Source

__all__ = ["Capture", "Entry", "Prediction", "RecordError", "Refusal", "Source", "prediction", "read"]


def read(where: str | PathLike[str], refused: Refused | None = None) -> Iterator[Capture]:
    """The captures in a folder.

    Raises:
        InputError: it cannot be read.
    """
    return captures_of(Folder(Path(where)), refused)
