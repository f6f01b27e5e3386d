"""What many numbers have in common, told without keeping them: count, mean, deviation, range (K-7). Pure."""

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Statistics:
    """Of numbers that come part by part; parts are joined as Chan, Golub and LeVeque do (1979, Updating Formulae)."""

    def __init__(self) -> None:
        self.count = 0  # of finite numbers
        self.non_finite = 0
        self._mean = self._squares = 0.0  # and the sum of squared distances from it
        self._low, self._high = math.inf, -math.inf

    def add(self, values: Array) -> None:
        """Take a part; values that are no number or infinite are counted alone."""
        flat = values.reshape(-1).astype(np.float64)
        finite = np.isfinite(flat)
        if not finite.all():
            self.non_finite += int(flat.size - np.count_nonzero(finite))
            flat = flat[finite]
        if not flat.size:
            return
        with np.errstate(over="ignore", invalid="ignore"):  # of doubles near their largest
            mean = float(flat.mean())
            squares = float(((flat - mean) ** 2).sum())
        count, distance = self.count + flat.size, mean - self._mean
        self._squares += squares + distance * distance * self.count * flat.size / count
        self._mean += distance * flat.size / count
        self.count = count
        self._low, self._high = min(self._low, float(flat.min())), max(self._high, float(flat.max()))

    def told(self) -> dict[str, Any]:
        """As a summary has it; what nothing is known of is null."""
        known = self.count > 0
        return {
            "count": self.count,
            "mean": _number(self._mean) if known else None,
            "standardDeviation": _number(math.sqrt(self._squares / self.count)) if known else None,
            "min": _number(self._low) if known else None,
            "max": _number(self._high) if known else None,
            "nonFinite": self.non_finite,
        }


def _number(value: float) -> float | None:
    """Nine digits of a number, those of a float32; null where doubles overflow."""
    return float(f"{value:.9g}") if math.isfinite(value) else None
