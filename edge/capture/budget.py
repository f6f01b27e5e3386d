"""How much the policies may keep in a day, of records and of bytes, over restarts too (K-4). Pure.

A day is one of UTC. The clock may be set at any time: only one that says 2024 or later begins a day, and one that stands before
the day that was noted begins none, so that a clock that starts in the past at each boot gives no budget anew.
"""

import datetime
import threading
from collections.abc import Callable, Iterable
from typing import Any

from edge.capture_policy import Policy
from edge.errors import BudgetSpentError

MIB = 1 << 20
_FIRST_DAY = "2024-01-01"
_DAY_SECONDS = 86_400.0


def day_of(unix_seconds: float) -> str:
    """YYYY-MM-DD in UTC."""
    return datetime.datetime.fromtimestamp(unix_seconds, datetime.UTC).date().isoformat()


class Budget:
    """What one policy may keep; all models under it share it. Safe from any thread.

    `spent`: nothing is left, or next to nothing; `said` where that was told.
    """

    def __init__(self, policy: Policy) -> None:
        self._lock = threading.Lock()
        self._max_records, self._max_bytes = policy.records_per_day, policy.mib_per_day * MIB
        self.records = self.bytes = 0
        self._unfit = False  # a record was refused that the rest of the day's bytes did not hold
        self.spent = self.said = False

    def resize(self, policy: Policy) -> None:
        """Take the bounds of a policy that took the place of the one before; the counts stay."""
        with self._lock:
            self._max_records, self._max_bytes = policy.records_per_day, policy.mib_per_day * MIB
            self._unfit = False
            self._judge()

    def begin(self, records: int = 0, size: int = 0) -> None:
        """Begin a day of which so much is used."""
        with self._lock:
            self.records, self.bytes, self.said, self._unfit = records, size, False, False
            self._judge()

    def reserve(self) -> bool:
        """Take a record; false where none is left."""
        with self._lock:
            if self.spent:
                return False
            self.records += 1
            self._judge()
            return True

    def take(self, size: int) -> None:
        """Take the bytes of a reserved record.

        Raises:
            BudgetSpentError: they are not left. The record stays counted, or a client could have records made and refused
                without end.
        """
        with self._lock:
            if self.bytes + size > self._max_bytes:
                self._unfit = self._unfit or size <= self._max_bytes  # else this record alone is too large for any day
                self._judge()
                raise BudgetSpentError(
                    f"{self.bytes} bytes were captured today, {size} more would pass mib_per_day ({self._max_bytes} bytes)"
                )
            self.bytes += size

    def give_back(self, size: int = 0) -> None:
        """A reserved record, and the bytes that were taken for it, came to nothing."""
        with self._lock:
            self.records = max(0, self.records - 1)  # a day may have begun since it was reserved
            self.bytes = max(0, self.bytes - size)
            self._judge()

    def _judge(self) -> None:
        self.spent = self._unfit or self.records >= self._max_records or self.bytes >= self._max_bytes


class Day:
    """Which day it is to the budgets."""

    def __init__(self) -> None:
        self.day = ""
        self._since: float | None = None  # monotonic: when it began, or was first asked for in this run

    def begins(self, unix_seconds: float, monotonic: float, synchronised: Callable[[], bool]) -> bool:
        """Whether a day began since the last time.

        A clock that stands before the noted day begins none until a day's seconds have passed: the device came up in the past.
        One that is `synchronised` is believed where it does: the noted day was the future. That day's counts go on.
        """
        today = day_of(unix_seconds)
        if self._since is None:
            self._since = monotonic
        if today == self.day:
            return False
        late = monotonic - self._since >= _DAY_SECONDS
        if today < _FIRST_DAY or (today < self.day and not late and not synchronised()):
            return False
        begins, self.day = today > self.day or late, today
        if begins:
            self._since = monotonic
        return begins


def noted(day: str, budgets: Iterable[tuple[str, Budget]]) -> dict[str, Any]:
    """What is to be remembered over a restart."""
    return {"day": day, "used": {key: [one.records, one.bytes] for key, one in budgets if one.records}}


def read(value: Any) -> tuple[str, dict[str, tuple[int, int]]]:
    """The day and what was used in it, by policy, of what `noted` made; nothing where it is something else."""
    try:
        day, used = value["day"], value["used"]
        datetime.date.fromisoformat(day)
        return day, {str(key): (int(records), int(size)) for key, (records, size) in used.items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        return "", {}
