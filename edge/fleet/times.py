"""The time for checking whether metadata has expired (F-6), and when the next poll is due (F-3). Pure.

A clock that was set from a trusted source is believed, unless it stands before the agent was built. Otherwise the latest
moment that is known to have passed stands in: the build date, or what a signed timestamp has named.
"""

from collections.abc import Collection
from dataclasses import dataclass

JITTER = 0.1  # of the interval, either way: devices that were switched on together drift apart
RETRY_SECONDS = 30.0  # after a first failure; each further one doubles it
MAX_RETRY_SECONDS = 3600.0  # longest pause between polls that fail, unless the interval itself is longer
MAX_RETRY_AFTER_SECONDS = 86_400.0  # longest pause that a server's Retry-After can ask for
PAUSE_DAYS = 90  # between two timestamps of an operator; a longer one is a wrong clock, more likely
FIRST_SECONDS = 60.0  # the first poll comes within so long after the start, at a random moment
LEAST_SECONDS = 1.0  # between rounds of the repository that calls ask for
WHOLE_SECONDS = 86_400.0  # between refreshes of everything, news or none (F-1)


@dataclass(frozen=True)
class Judged:
    """A moment, in seconds since the epoch, and what it rests on, in words."""

    at: float
    by: str


def judge(now: float, *, synchronised: bool, build_date: int, issued: int) -> Judged:
    """The moment that expiry is judged by."""
    if synchronised and now >= build_date:
        return Judged(now, "the clock")
    why = "the clock is not synchronised" if not synchronised else "the clock stands before the agent's build"
    if issued > build_date:
        return Judged(float(issued), f"the repository's newest date; {why}")
    return Judged(float(build_date), f"the agent's build date; {why}")


def stands(by: Collection[str], keys: Collection[str], threshold: int) -> bool:
    """Whether a date that keys `by` signed still counts, where root names `keys` for timestamps, `threshold` of them together.

    As TUF's client forgets versions that a replaced key has counted up: whoever had that key may have named any date. A date
    of which nobody knows the keys stands.
    """
    return not by or len(set(by) & set(keys)) >= threshold


def until_next(interval: float, failures: int, retry_after: float, chance: float) -> float:
    """Seconds until the next poll; `failures` in a row so far, `chance` from 0 to 1."""
    wait = interval
    if failures:
        most = max(interval, MAX_RETRY_SECONDS)
        wait = min(interval, RETRY_SECONDS) * 2.0 ** min(failures - 1, 16)
        wait = min(wait, most)
    wait *= 1 - JITTER + 2 * JITTER * chance
    return max(wait, min(retry_after, MAX_RETRY_AFTER_SECONDS))


def doubt(now: float, *, build_date: int, issued: int) -> str:
    """Why an operator's clock may be wrong, in words; empty where nothing says so. What it signs holds from its date on."""
    if now < build_date:
        return "is before this program was built"
    days = (now - issued) / 86_400
    return f"is {days:.0f} days after the last timestamp" if issued and days > PAUSE_DAYS else ""
