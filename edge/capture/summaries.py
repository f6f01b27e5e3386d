"""Summaries: what a model did in a period, in one small record (K-7).

Calls are counted by whoever serves them, all of them. Values are those of a sample, at most one call every SAMPLE_SECONDS of a
model: a copy of few numbers is taken at the call, and added up by the thread that makes the records.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edge import histogram
from edge.capture.record import iso_seconds
from edge.clock import Clock
from edge.tensors import DYNAMIC, TensorSpec

log = logging.getLogger(__name__)

SUMMARY_VERSION = 1
SAMPLE_SECONDS = 0.1  # between calls of a model whose values are looked at
MAX_SAMPLE_VALUES = 16_384  # taken from a tensor for a summary: spread over an input, the first rows of an output
MAX_TOLD_CLASSES = 1000  # classes of an output that a summary counts; an output with more is not counted by class
MAX_COLLECTORS = 256  # models with a summary at a time


class CallCounts(NamedTuple):
    """Calls on a model since it was loaded: by the names of their statuses; seconds of those answered, and their buckets."""

    statuses: Mapping[str, int]
    seconds: float
    buckets: Sequence[int]  # as edge.histogram has them


@dataclass(frozen=True)
class Watchable:
    """A model as it is watched: the alias, its package's name and version, its tensors as applications see them.

    `serves`: whether the alias means it now.
    """

    alias: str
    name: str
    version: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    counts: Callable[[], CallCounts]
    serves: Callable[[], bool]


@dataclass
class _Tensors:
    """What is known of one input or output."""

    spec: TensorSpec
    statistics: Any
    classes: Counter[int] = field(default_factory=Counter)
    has_classes: bool = False

    def told(self) -> dict[str, Any]:
        told = {"name": self.spec.name, **self.statistics.told()}
        if self.has_classes:
            told["classes"] = {str(number): count for number, count in sorted(self.classes.items())}
        return told


class Collector:
    """The summary of one model in the making. `sampled` is asked by calls, the rest is for one thread."""

    def __init__(self, model: Watchable, clock: Clock) -> None:
        self.model = model
        self.next_sample = 0.0  # on the monotonic clock
        self._clock = clock
        self._before = CallCounts({}, 0.0, histogram.empty())
        self._begin()

    def _begin(self) -> None:
        from edge.capture.statistics import Statistics  # numpy, which only summaries need

        self._since = self._clock.now()
        self._sampled = 0
        self._inputs = [_Tensors(spec, Statistics()) for spec in self.model.inputs]
        self._outputs = [_Tensors(spec, Statistics(), has_classes=_has_classes(spec)) for spec in self.model.outputs]

    def wants(self, since: float) -> bool:
        """Whether the values of a call that began at a time are looked at."""
        if since < self.next_sample:
            return False
        self.next_sample = since + SAMPLE_SECONDS
        return True

    def add(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Take the values of a call: parts of its tensors, in the model's order, as arrays of their own dtypes."""
        from edge.capture.triggers import stands_for  # likewise

        self._sampled += 1
        for tensors, values in zip((*self._inputs, *self._outputs), (*inputs, *outputs), strict=True):
            tensors.statistics.add(stands_for(tensors.spec, values))
            if tensors.has_classes and values.size and not values.size % tensors.spec.shape[-1]:
                rows = values.reshape(-1, tensors.spec.shape[-1])
                tensors.classes.update(rows.argmax(axis=1).tolist())

    def take(self, *, complete: bool) -> "Summary | None":
        """What there is since the last that was stored; None where there were no calls. `complete`: a whole period or more."""
        now = self.model.counts()
        statuses = {
            name: count - self._before.statuses.get(name, 0)
            for name, count in now.statuses.items()
            if count > self._before.statuses.get(name, 0)
        }
        if not statuses:
            return None
        buckets = [new - old for new, old in zip(now.buckets, self._before.buckets, strict=True)]
        return Summary(
            self,
            now,
            {
                "summaryVersion": SUMMARY_VERSION,
                "alias": self.model.alias,
                "from": iso_seconds(self._since) + "Z",
                "to": iso_seconds(self._clock.now()) + "Z",
                "complete": complete,
                "calls": statuses,
                "latencyMilliseconds": _latency(buckets, now.seconds - self._before.seconds),
                "sampled": self._sampled,
                "inputs": [one.told() for one in self._inputs],
                "outputs": [one.told() for one in self._outputs],
            },
        )

    def stored(self, summary: "Summary") -> None:
        """The next begins where this one ends."""
        self._before = summary.counts
        self._begin()


class Summary(NamedTuple):
    """What a collector has, and the counts that it ends with."""

    collector: Collector
    counts: CallCounts
    content: dict[str, Any]


class Summaries:
    """The collectors of all models, and when their summaries are due. For one thread at a time."""

    def __init__(self, period: float, clock: Clock) -> None:
        """`period` in seconds; 0: nothing is summarised."""
        self.period = period
        self._clock = clock
        self._due = clock.monotonic() + period
        self._collectors: dict[str, Collector] = {}
        self._ended: list[Collector] = []  # of models that are gone
        self._full = False

    def collector(self, model: Watchable) -> Collector | None:
        """The collector of a model that serves under its alias now; None where it is not summarised."""
        if not self.period:
            return None
        known = self._collectors.get(model.alias)
        if known is not None and known.model.outputs is model.outputs:
            return known
        if len(self._collectors) + len(self._ended) >= MAX_COLLECTORS:
            if not self._full:
                log.warning("more than %d models in a period: further ones are not summarised", MAX_COLLECTORS)
            self._full = True
            return None
        if known is not None:
            self._ended.append(known)
        self._collectors[model.alias] = made = Collector(model, self._clock)
        return made

    def keep_only(self, models: Mapping[str, Sequence[TensorSpec]]) -> None:
        """Only these models serve, by their aliases and outputs; those that are gone are summarised a last time."""
        for alias, one in list(self._collectors.items()):
            if models.get(alias) is not one.model.outputs:
                self._ended.append(self._collectors.pop(alias))

    def seconds_to_next(self, now: float) -> float:
        """Monotonic seconds until summaries are due."""
        return self._due - now if self.period else math.inf

    def due(self, now: float, *, stopping: bool) -> list[Summary]:
        """What is to be stored now; at a stop, whatever there is. What was stored is told by `Collector.stored`."""
        if not self.period or (now < self._due and not stopping):
            return []
        self._due, self._full = now + self.period, False
        ended = [(one, one.take(complete=not stopping)) for one in self._ended]
        self._ended = [
            one for one, summary in ended if summary is not None
        ]  # one that is stored has none the next time
        serving = [one.take(complete=not stopping) for one in self._collectors.values()]
        return [summary for summary in (*(summary for _, summary in ended), *serving) if summary is not None]


def _latency(buckets: Sequence[int], seconds: float) -> dict[str, Any]:
    count = sum(buckets)
    told: dict[str, Any] = {"count": count, "mean": round(1000 * seconds / count, 4) if count else None}
    for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        found = histogram.quantile(buckets, part)
        told[name] = None if found is None else round(1000 * found, 4)
    return told


def _has_classes(spec: TensorSpec) -> bool:
    """Whether an output looks like scores of classes."""
    few = 1 <= len(spec.shape) <= 2 and 2 <= spec.shape[-1] <= MAX_TOLD_CLASSES
    return few and spec.signature[-1] != DYNAMIC


def spread(spec: TensorSpec, memory: Any, *, copied: bool) -> Any:
    """Elements of a tensor from all over it, as an array of its dtype; without `copied` it holds the memory."""
    elements = _elements(spec, memory)
    some = elements[:: -(-elements.size // MAX_SAMPLE_VALUES)] if elements.size > MAX_SAMPLE_VALUES else elements
    return some.copy() if copied else some


def first_rows(spec: TensorSpec, memory: Any, shape: Sequence[int]) -> Any:
    """A copy of the first rows of an output, as an array of its dtype, flat."""
    elements = _elements(spec, memory)
    row = max(1, shape[-1]) if shape else 1
    return elements[: max(1, MAX_SAMPLE_VALUES // row) * row][:MAX_SAMPLE_VALUES].copy()


def _elements(spec: TensorSpec, memory: Any) -> Any:
    import numpy as np

    from edge.arrays import numpy_dtype

    empty = not (memory.nbytes if hasattr(memory, "nbytes") else len(memory))
    return np.empty(0, numpy_dtype(spec.dtype)) if empty else np.frombuffer(memory, numpy_dtype(spec.dtype))
