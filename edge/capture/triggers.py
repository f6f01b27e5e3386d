"""What the values of a call's outputs say of whether to capture it (K-3). Pure.

The last dimension of the output that is looked at is taken to be its classes, whatever comes before it rows of them; one row
that gives a reason is enough.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.arrays import numpy_dtype
from edge.capture_policy import Policy
from edge.tensors import TensorSpec

MAX_MEAN_VALUES = 4096  # of an output, from its beginning, that are held against their running means
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
        self._policy = policy
        self._specs = tuple(outputs)
        self._floats = tuple(at for at, spec in enumerate(outputs) if spec.dtype.name.startswith("FLOAT"))
        self._classes = np.array(policy.class_seen)
        self._mean = RunningMean(policy.unlike_mean_sigmas) if policy.unlike_mean_sigmas else None
        self._looks_at_rows = bool(policy.class_seen) or (
            (policy.max_probability_below, policy.max_probability_above, policy.margin_below) != (None, None, None)
        )

    def reasons(self, outputs: Sequence[Any]) -> list[str]:
        """The reasons that the outputs of a call give; nothing holds them afterwards."""
        found: list[str] = []
        with np.errstate(invalid="ignore", over="ignore"):
            self._look(outputs, found)
        return found

    def _look(self, outputs: Sequence[Any], found: list[str]) -> None:
        if self.position >= 0 and (self._looks_at_rows or self._mean is not None):
            values = numbers(self._specs[self.position], outputs[self.position])
            if values.size:
                if self._looks_at_rows:
                    shape = outputs[self.position].shape
                    self._look_at_rows(values.reshape(-1, shape[-1] if shape else 1), found)
                if self._mean is not None and self._mean.is_unlike(values):
                    found.append("unlike_mean_sigmas")
        if self._policy.nan_or_inf and not all(
            np.isfinite(numbers(self._specs[at], outputs[at])).all() for at in self._floats
        ):
            found.append("nan_or_inf")

    def _look_at_rows(self, rows: Array, found: list[str]) -> None:
        policy = self._policy
        best = rows.max(axis=1)
        if policy.max_probability_below is not None and (best < policy.max_probability_below).any():
            found.append("max_probability_below")
        if policy.max_probability_above is not None and (best > policy.max_probability_above).any():
            found.append("max_probability_above")
        if rows.shape[1] < 2:
            return
        if policy.margin_below is not None:
            two = np.partition(rows, -2, axis=1)[:, -2:]
            if (two[:, 1] - two[:, 0] < policy.margin_below).any():
                found.append("margin_below")
        if policy.class_seen and np.isin(rows.argmax(axis=1), self._classes).any():
            found.append("class_seen")


def numbers(spec: TensorSpec, output: Any) -> Array:
    """What the elements of an output stand for, flat; a copy where they are quantised."""
    flat: Array = np.frombuffer(output, numpy_dtype(spec.dtype)) if output.nbytes else np.empty(0)
    return (flat.astype(np.float32) - spec.zero_point) * spec.scale if spec.scale else flat
