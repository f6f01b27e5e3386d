"""What the values of a call's outputs say of whether to capture it (K-3). Pure.

The last dimension of the output that is looked at is taken to be its classes, whatever comes before it rows of them; one row
that gives a reason is enough.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.arrays import numpy_dtype
from edge.capture_policy import Policy
from edge.tensors import TensorSpec

MAX_MEAN_VALUES = 4096  # of an output, from its beginning, that are compared with their running means
FEW_VALUES = 128  # of an output, up to which numpy takes longer to begin than to look at them without it
MEAN_CALLS = 100  # before a mean says anything
MEAN_WEIGHT_CALLS = 10_000  # whose weight a mean has at most: it follows what changes slowly

Array = np.ndarray[Any, Any]


class RunningMean:
    """Means and variances of an output's values, element by element. For one thread at a time."""

    def __init__(self, sigmas: float) -> None:
        self._sigmas = sigmas
        self._calls = 0
        self._mean: Array = np.empty(0)
        self._variance: Array = np.empty(0)

    def is_unlike(self, values: Array) -> bool:
        """Whether a value lies more than the sigmas from its own mean; the values are then learnt."""
        values = values[:MAX_MEAN_VALUES].astype(np.float64)
        if not np.isfinite(values).all():
            return False  # they are a reason of their own, and would spoil the means
        if values.shape != self._mean.shape:
            self._calls, self._mean, self._variance = 0, values, np.zeros(values.shape)
        self._calls += 1
        distance = values - self._mean
        unlike = False
        if self._calls > MEAN_CALLS:
            # A value that never changed has no sigma: what rounding does to it must not be a reason.
            floor = 1e-6 + 1e-6 * np.abs(self._mean)
            unlike = bool((np.abs(distance) > self._sigmas * np.sqrt(self._variance) + floor).any())
        weight = 1.0 / min(self._calls, MEAN_WEIGHT_CALLS)
        self._mean = self._mean + weight * distance
        self._variance = (1.0 - weight) * (self._variance + weight * distance * distance)
        return unlike


class Triggers:
    """A policy's reasons on values, for one model. For one thread at a time."""

    def __init__(self, policy: Policy, outputs: Sequence[TensorSpec]) -> None:
        """`outputs` are the model's, as applications see them."""
        names = [spec.name for spec in outputs]
        wanted = policy.output or (names[0] if names else "")
        self.position = names.index(wanted) if wanted in names else -1  # below zero: the model has no such output
        self._specs = tuple(outputs)
        self._floats = [at for at, spec in enumerate(outputs) if spec.dtype.name.startswith("FLOAT")]
        self._below, self._above = policy.max_probability_below, policy.max_probability_above
        self._margin, self._classes = policy.margin_below, frozenset(policy.class_seen)
        self._nan_or_inf = policy.nan_or_inf
        self._mean = RunningMean(policy.unlike_mean_sigmas) if policy.unlike_mean_sigmas else None
        self._looks_at_rows = bool(self._classes) or (self._below, self._above, self._margin) != (None, None, None)

    def reasons(self, outputs: Sequence[Any]) -> list[str]:
        """The reasons that the outputs of a call give; nothing holds them afterwards."""
        found: list[str] = []
        if self.position >= 0 and (self._looks_at_rows or self._mean is not None):
            output = outputs[self.position]
            values = numbers(self._specs[self.position], output)
            classes = output.shape[-1] if output.shape else 1
            if not values.size:
                pass
            elif self._looks_at_rows and values.size > FEW_VALUES:
                with np.errstate(invalid="ignore", over="ignore"):
                    self._look_at_rows(values.reshape(-1, classes), found)
            elif self._looks_at_rows:
                few = values.tolist()
                for start in range(0, len(few), classes):
                    self._look_at_row(few[start : start + classes], found)
            if self._mean is not None and values.size and self._mean.is_unlike(values):
                found.append("unlike_mean_sigmas")
        if self._nan_or_inf and not all(_is_finite(numbers(self._specs[at], outputs[at])) for at in self._floats):
            found.append("nan_or_inf")
        return found

    def _look_at_row(self, row: list[float], found: list[str]) -> None:
        """One row of few values: what `_look_at_rows` does, where numpy would take longer to begin."""
        best = max(row)
        if not math.isfinite(sum(row)) and any(map(math.isnan, row)):  # NaN is the largest of all to numpy
            best = math.nan
        self._note(
            found,
            below=self._below is not None and best < self._below,
            above=self._above is not None and best > self._above,
            close=self._margin is not None and len(row) > 1 and best - sorted(row)[-2] < self._margin,
            seen=len(row) > 1 and (_first_best(row, best) in self._classes if self._classes else False),
        )

    def _look_at_rows(self, rows: Array, found: list[str]) -> None:
        if rows.dtype.kind != "f":  # differences of int8 overflow, and of booleans there are none
            rows = rows.astype(np.float64)
        best, several = rows.max(axis=1), rows.shape[1] > 1
        close = False
        if self._margin is not None and several:
            two = np.partition(rows, -2, axis=1)[:, -2:]
            close = bool((two[:, 1] - two[:, 0] < self._margin).any())
        self._note(
            found,
            below=self._below is not None and bool((best < self._below).any()),
            above=self._above is not None and bool((best > self._above).any()),
            close=close,
            seen=several and not self._classes.isdisjoint(rows.argmax(axis=1).tolist()),
        )

    @staticmethod
    def _note(found: list[str], *, below: bool, above: bool, close: bool, seen: bool) -> None:
        """Add the reasons that are there and not known yet."""
        if not (below or above or close or seen):
            return
        names = ("max_probability_below", "max_probability_above", "margin_below", "class_seen")
        for name, holds in zip(names, (below, above, close, seen), strict=True):
            if holds and name not in found:
                found.append(name)


def _first_best(row: list[float], best: float) -> int:
    """The position of the largest value; of a NaN where there is one, as numpy says."""
    return next(at for at, value in enumerate(row) if math.isnan(value)) if math.isnan(best) else row.index(best)


def _is_finite(values: Array) -> bool:
    if values.size > FEW_VALUES:
        return bool(np.isfinite(values).all())
    few = values.tolist()
    # No sum of so few float32 is infinite; of float64 one may be, and is then looked at again.
    return math.isfinite(sum(few)) or all(map(math.isfinite, few))


def numbers(spec: TensorSpec, output: Any) -> Array:
    """What the elements of an output stand for, flat; a copy where they are quantised."""
    return stands_for(spec, np.frombuffer(output, numpy_dtype(spec.dtype)) if output.nbytes else np.empty(0))


def stands_for(spec: TensorSpec, elements: Array) -> Array:
    """What elements of a tensor stand for; a copy where they are quantised."""
    return (elements.astype(np.float32) - spec.zero_point) * spec.scale if spec.scale else elements
