"""What many captures come to, in memory that does not grow with them."""

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from edge.client.captures.selection import Chosen
from edge.client.captures.summaries import Summary, Values

MAX_MODELS = 200  # models and versions that are told apart
MAX_WORDS = 1000  # classes, reasons and devices of a model that are told apart
MAX_WORD_CHARACTERS = 200  # of one; what is longer is cut
MAX_PERIODS = 60  # of a timeline; a period is as long as that needs
CONFIDENCE_BINS = 20
OTHERS = "others"
LATEST_SUMMARIES = 48
MAX_VALUES = 4  # inputs, and outputs, of a model whose values are told
PERIODS = (
    "from",
    "to",
    "device",
    "calls",
    "failed",
    "median, ms",
    "99 %, ms",
    "inputs: mean ± deviation",
    "outputs: mean ± deviation",
)
_PERIOD_SECONDS = (1, 10, 60, 600, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400)
_STEP = math.log(1.02)  # of the sizes that are told apart, 2 %
_LEAST = 1e-6
EARLIEST, LATEST = (one.replace(tzinfo=UTC) for one in (datetime.min, datetime.max))


class Words:
    """How often each word came; beyond `MAX_WORDS` different ones, new ones count together."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, word: str, count: int = 1) -> str:
        """Count a word; returns it as it is counted, cut or among the others."""
        word = word[:MAX_WORD_CHARACTERS]
        counted = word if word in self.counts or len(self.counts) < MAX_WORDS else OTHERS
        self.counts[counted] += count
        return counted


class Quantiles:
    """Sizes, 0 or more, each remembered to 2 %."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.most = 0.0

    def add(self, size: float) -> None:
        """Count a size."""
        self._counts[round(math.log(min(max(size, _LEAST), 1e12)) / _STEP)] += 1
        self.count += 1
        self.most = max(self.most, size)

    def at(self, share: float) -> float:
        """The size that `share` of all are not above; 0 where there are none."""
        wanted, seen = share * self.count, 0
        for step in sorted(self._counts):
            seen += self._counts[step]
            if seen >= wanted:
                return min(math.exp(step * _STEP), self.most)
        return 0.0

    def bins(self, count: int) -> list[tuple[float, float, int]]:
        """From the smallest to the largest, in steps that are equal as factors: from, to, how many."""
        if not self._counts:
            return []
        low, high = min(self._counts), max(self._counts) + 1
        width = max(1, math.ceil((high - low) / count))
        starts = range(low, high, width)
        return [
            (math.exp((at - 0.5) * _STEP), math.exp((at + width - 0.5) * _STEP), self._between(at, at + width))
            for at in starts
        ]

    def _between(self, low: int, high: int) -> int:
        return sum(count for step, count in self._counts.items() if low <= step < high)


class Timeline:
    """Classes by time, in at most `MAX_PERIODS` periods; those in which nothing was are left out."""

    def __init__(self) -> None:
        self.seconds = _PERIOD_SECONDS[0]
        self._periods: dict[int, Counter[str]] = {}

    def add(self, time: datetime, word: str) -> None:
        """Count a class."""
        self._at(self._period(time.timestamp()))[word] += 1
        while len(self._periods) > MAX_PERIODS:
            self.seconds = next((one for one in _PERIOD_SECONDS if one > self.seconds), self.seconds * 10)
            old, self._periods = self._periods, {}
            for start, counts in old.items():
                self._at(self._period(start)).update(counts)

    def _period(self, seconds: float) -> int:
        return int(seconds // self.seconds) * self.seconds

    def _at(self, start: int) -> Counter[str]:
        return self._periods.setdefault(start, Counter())

    def periods(self) -> list[tuple[datetime, Counter[str]]]:
        """Each period's start, and how often each class was, in order."""
        return [(_moment(start), self._periods[start]) for start in sorted(self._periods)]


def _moment(seconds: int) -> datetime:
    """A period may begin before the first time that there is."""
    least = datetime.min.replace(tzinfo=UTC)
    return datetime.fromtimestamp(max(seconds, least.timestamp()), UTC)


@dataclass
class _Counted:
    """How many were counted of one version of a model, and over which time."""

    model_name: str
    model_version: str
    count: int = 0
    first: datetime = LATEST
    last: datetime = EARLIEST
    classes: Words = field(default_factory=Words)

    def count_one(self, begins: datetime, ends: datetime) -> None:
        """Count one that was from a time to another."""
        self.count += 1
        self.first, self.last = min(self.first, begins), max(self.last, ends)


@dataclass
class Tally(_Counted):
    """Captures of one version of a model."""

    reasons: Words = field(default_factory=Words)
    devices: Words = field(default_factory=Words)
    statuses: Words = field(default_factory=Words)
    timeline: Timeline = field(default_factory=Timeline)
    confidences: list[int] = field(default_factory=lambda: [0] * CONFIDENCE_BINS)
    confidence_sum: float = 0.0
    latency: Quantiles = field(default_factory=Quantiles)

    def add(self, chosen: Chosen) -> None:
        """Count a capture."""
        capture, said = chosen.capture, chosen.prediction
        self.count_one(capture.time, capture.time)
        self.devices.add(capture.device)
        for reason in capture.reasons:
            self.reasons.add(reason)
        if capture.status:
            self.statuses.add(capture.status)
        if capture.milliseconds is not None:
            self.latency.add(capture.milliseconds)
        if said is not None:
            self.timeline.add(capture.time, self.classes.add(chosen.label))
            if said.confidence is not None:
                self.confidences[min(int(said.confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)] += 1
                self.confidence_sum += said.confidence

    @property
    def mean_confidence(self) -> float | None:
        """Of the captures that tell how sure the model was."""
        known = sum(self.confidences)
        return self.confidence_sum / known if known else None


@dataclass
class SummaryTally(_Counted):
    """Summaries of one version of a model. Quantiles cannot be added up: `worst` has the largest of any period."""

    calls: Words = field(default_factory=Words)
    worst: dict[str, float] = field(default_factory=dict)
    latest: deque[tuple[str, ...]] = field(default_factory=lambda: deque(maxlen=LATEST_SUMMARIES))  # rows of `PERIODS`

    def add(self, summary: Summary) -> None:
        """Count a summary."""
        self.count_one(summary.begins, summary.ends)
        for status, count in summary.calls.items():
            self.calls.add(status, count)
        for index, count in summary.classes.items():
            self.classes.add(str(index), count)
        for name in ("p50", "p90", "p99", "max"):
            if name in summary.latency:
                self.worst[name] = max(self.worst.get(name, 0.0), summary.latency[name])
        self.latest.append(_period(summary))


def _period(summary: Summary) -> tuple[str, ...]:
    """What one summary says, in words, below `PERIODS`."""
    failed = sum(count for status, count in summary.calls.items() if status != "OK")
    return (
        summary.begins.isoformat(" ")[:16],
        summary.ends.isoformat(" ")[11:16],
        summary.device,
        str(sum(summary.calls.values())),
        str(failed),
        *(f"{summary.latency[name]:.3g}" if name in summary.latency else "" for name in ("p50", "p99")),
        _values(summary.inputs),
        _values(summary.outputs),
    )


def _values(values: tuple[Values, ...]) -> str:
    known = [one for one in values[:MAX_VALUES] if one.mean is not None]
    words = [
        f"{one.name[:40]} {one.mean:.3g} ± {one.deviation or 0:.2g}"
        + f" ({one.not_finite} not finite)" * bool(one.not_finite)
        for one in known
    ]
    return ", ".join(words)


class Tallies:
    """A tally for each version of each model."""

    def __init__(self) -> None:
        self.captures: dict[tuple[str, str], Tally] = {}
        self.summaries: dict[tuple[str, str], SummaryTally] = {}

    def add(self, chosen: Chosen) -> Tally:
        """Count a capture."""
        key = _key(self.captures, chosen.capture.model_name, chosen.capture.model_version)
        tally = self.captures.setdefault(key, Tally(*key))
        tally.add(chosen)
        return tally

    def add_summary(self, summary: Summary) -> None:
        """Count a summary."""
        key = _key(self.summaries, summary.model_name, summary.model_version)
        self.summaries.setdefault(key, SummaryTally(*key)).add(summary)

    def models(self) -> list[tuple[str, str]]:
        """Models and versions, sorted."""
        return sorted({*self.captures, *self.summaries})


def _key(known: dict[tuple[str, str], Any], name: str, version: str) -> tuple[str, str]:
    return (name, version) if (name, version) in known or len(known) < MAX_MODELS else (OTHERS, "")
