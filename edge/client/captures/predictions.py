"""What a model said, where it is one score a class: the best class, and how sure the model was."""

import math
from dataclasses import dataclass
from typing import Any

from edge.client.captures.records import Capture, Entry, RecordError

MAX_CLASSES = 1 << 20


@dataclass(frozen=True)
class Prediction:
    """`index`: the class of the highest score of output `output`; `confidence`: that score, where scores are from 0 to 1."""

    output: str
    index: int
    confidence: float | None


def prediction(capture: Capture) -> Prediction | None:
    """What the first output says that is one score a class; None where there is none, or a score is no number.

    Raises:
        RecordError: the output's file cannot be read.
    """
    for entry in capture.outputs:
        if is_scores(entry):
            return _best(entry, entry.array())
    return None


def is_scores(entry: Entry) -> bool:
    """Whether a tensor is one score a class: a row of numbers, two at least."""
    size = math.prod(entry.shape)
    kind = entry.dtype is not None and entry.dtype.name != "BOOL"
    return kind and 2 <= size <= MAX_CLASSES and max(entry.shape) == size


def _best(entry: Entry, array: Any) -> Prediction | None:
    import numpy as np

    scores = array.reshape(-1)
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        return None
    index = int(scores.argmax())
    shares = scores.dtype.kind == "f" and scores.min() >= 0 and scores.max() <= 1.0001
    return Prediction(entry.name, index, min(1.0, float(scores[index])) if shares else None)


__all__ = ["Prediction", "RecordError", "is_scores", "prediction"]
