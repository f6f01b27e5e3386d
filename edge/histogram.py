"""How long things took, counted in buckets of seconds: one list of numbers, of which a bucket is found in a table. Pure.

A bucket holds what took at most as long as its bound says, and longer than the bound before it; the last one the rest.
"""

from collections.abc import Sequence

_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
BOUNDS = (*(float(f"{step}e{power}") for power in range(-5, 2) for step in _STEPS), 100.0)
TOLD = tuple(bound for bound in BOUNDS if 1e-4 <= bound <= 10 and f"{bound:e}"[0] in "125" and f"{bound:e}"[2] == "0")


def empty() -> list[int]:
    """Nothing was counted. Count with `counts[bisect_left(BOUNDS, seconds)] += 1`."""
    return [0] * (len(BOUNDS) + 1)


def cumulated(counts: Sequence[int]) -> list[int]:
    """How many took at most as long as each bound in TOLD, and how many there were."""
    sums, total, position = [], 0, 0
    for bound, count in zip(BOUNDS, counts, strict=False):
        total += count
        if position < len(TOLD) and TOLD[position] == bound:
            sums.append(total)
            position += 1
    return [*sums, sum(counts)]


def without_last_zeros(counts: Sequence[int]) -> Sequence[int]:
    """The buckets up to the last in which something is."""
    used = len(counts)
    while used and not counts[used - 1]:
        used -= 1
    return counts[:used]


def quantile(counts: Sequence[int], part: float, bounds: Sequence[float] = BOUNDS) -> float | None:
    """The seconds that a `part` (0 to 1) of what was counted took at most, as well as the buckets tell; None: nothing was.

    `bounds`: of an agent that may have others.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = part * total, 0
    for position, count in enumerate(counts):
        if count and below + count >= wanted:
            if position >= len(bounds):
                break
            low = bounds[position - 1] if position else 0.0
            return low + (bounds[position] - low) * (wanted - below) / count
        below += count
    return bounds[-1] if bounds else None
