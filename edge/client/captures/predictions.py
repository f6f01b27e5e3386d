"""What a model said, where it is one score a class: the best class, and how sure the model was."""

import math
from dataclasses import dataclass
from typing import Any

from edge.client.captures.records import Capture, Entry, RecordError

MAX_CLASSES = 1 << 20
# What a quantised softmax gives in TensorFlow Lite: 256 stands for 1, and the scores add up to it but for rounding.
_QUANTISED_ONE, _ROUNDING = 256, 0.03
_ZERO = {"uint8": 0, "int8": -128}


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
    return Prediction(entry.name, index, _confidence(scores, index))


def _confidence(scores: Any, index: int) -> float | None:
    if scores.dtype.kind == "f":
        shares = scores.min() >= 0 and scores.max() <= 1.0001
        return min(1.0, float(scores[index])) if shares else None
    if scores.dtype.name not in _ZERO:
        return None
    zero = _ZERO[scores.dtype.name]
    total = (int(scores.sum(dtype="int64")) - zero * scores.size) / _QUANTISED_ONE
    return (int(scores[index]) - zero) / _QUANTISED_ONE if abs(total - 1) <= _ROUNDING else None


__all__ = ["Prediction", "RecordError", "is_scores", "prediction"]
