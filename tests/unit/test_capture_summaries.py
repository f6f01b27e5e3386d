"""Summaries: numbers told without keeping them, and the periods of models (K-7)."""

from typing import Any

import numpy as np
import pytest

from edge import histogram
from edge.capture import layout
from edge.capture.statistics import Statistics
from edge.capture.summaries import (
    MAX_COLLECTORS,
    MAX_SAMPLE_VALUES,
    SAMPLE_SECONDS,
    CallCounts,
    Summaries,
    Watchable,
    first_rows,
    spread,
)
from edge.tensors import DType, TensorSpec
from tests.fakes.clock import FakeClock

INPUT = TensorSpec("x", DType.FLOAT32, (1, 4), (1, 4))
OUTPUT = TensorSpec("p", DType.UINT8, (1, 3), (1, 3), scale=0.5)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Model:
    def __init__(self, alias: str) -> None:
        self.calls = 0
        self.watched = Watchable(alias, "digits", "1.0", (INPUT,), (OUTPUT,), self.counts, lambda: True)

    def counts(self) -> CallCounts:
        buckets = histogram.empty()
        buckets[10] = self.calls
        return CallCounts({"OK": self.calls, "INTERNAL": 0}, 0.001 * self.calls, buckets)


def test_parts_tell_what_the_whole_does() -> None:  # [K-7]
    numbers = np.random.default_rng(3).normal(1e6, 2.0, 10_000)
    parts = Statistics()
    for part in np.split(numbers, [1, 2, 700, 701, 9_000]):
        parts.add(part)
    parts.add(np.array([np.nan, np.inf, -np.inf]))
    parts.add(np.empty(0))
    told = parts.told()
    assert (told["count"], told["nonFinite"]) == (10_000, 3)
    assert told["mean"] == pytest.approx(numbers.mean()) and told["standardDeviation"] == pytest.approx(
        numbers.std(), 1e-4
    )
    assert (told["min"], told["max"]) == (pytest.approx(numbers.min()), pytest.approx(numbers.max()))
    assert Statistics().told() == {
        "count": 0, "mean": None, "standardDeviation": None, "min": None, "max": None, "nonFinite": 0,
    }  # fmt: skip


def test_numbers_that_doubles_cannot_square() -> None:  # [K-7]
    statistics = Statistics()
    statistics.add(np.array([1e308, -1e308]))
    assert statistics.told()["standardDeviation"] is None


def test_a_period(clock: FakeClock) -> None:  # [K-7]
    summaries, model = Summaries(60.0, clock), Model("m")
    collector = summaries.collector(model.watched)
    assert collector is not None and summaries.collector(model.watched) is collector
    now = clock.monotonic()
    assert (
        collector.wants(now) and not collector.wants(now + SAMPLE_SECONDS / 2) and collector.wants(now + SAMPLE_SECONDS)
    )
    model.calls = 5
    collector.add([np.ones(4, "<f4")], [np.array([0, 2, 1], "u1")])
    assert summaries.due(now + 59.0, stopping=False) == []
    [summary] = summaries.due(now + 60.0, stopping=False)
    told = summary.content
    assert (told["calls"], told["complete"], told["sampled"]) == ({"OK": 5}, True, 1)
    assert told["outputs"][0]["mean"] == 0.5 and told["outputs"][0]["classes"] == {"1": 1}
    model.calls = 7
    [again] = summaries.due(now + 120.0, stopping=False)  # the first could not be stored
    assert again.content["calls"] == {"OK": 7}
    collector.stored(again)
    assert summaries.due(now + 180.0, stopping=False) == []  # nobody called
    model.calls = 8
    [last] = summaries.due(now + 181.0, stopping=True)
    assert (last.content["calls"], last.content["complete"], last.content["sampled"]) == ({"OK": 1}, False, 0)


def test_a_model_that_is_gone_is_told_once(clock: FakeClock) -> None:  # [K-7]
    summaries, old = Summaries(60.0, clock), Model("m")
    collector = summaries.collector(old.watched)
    old.calls = 3
    summaries.keep_only({})
    new = Model("m")
    assert summaries.collector(new.watched) is not collector
    new.calls = 2
    found = summaries.due(clock.monotonic() + 60.0, stopping=False)
    assert [one.content["calls"]["OK"] for one in found] == [3, 2]
    for one in found:
        one.collector.stored(one)
    assert summaries.due(clock.monotonic() + 120.0, stopping=False) == []


def test_models_are_bounded(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:  # [K-7]
    summaries = Summaries(60.0, clock)
    made = [summaries.collector(Model(f"m{number}").watched) for number in range(MAX_COLLECTORS + 2)]
    assert made[-2:] == [None, None] and None not in made[:-2]
    assert caplog.text.count("further ones are not summarised") == 1
    assert Summaries(0.0, clock).collector(Model("m").watched) is None


@pytest.mark.parametrize("size", [0, 1, MAX_SAMPLE_VALUES, MAX_SAMPLE_VALUES + 1, 10 * MAX_SAMPLE_VALUES])
def test_what_is_looked_at_is_bounded(size: int) -> None:  # [K-7]
    spec = TensorSpec("x", DType.UINT8, (size,), (size,))
    data: Any = memoryview(bytes(size))
    assert min(size, MAX_SAMPLE_VALUES // 2) <= spread(spec, data, copied=False).size <= MAX_SAMPLE_VALUES
    assert spread(spec, data, copied=True).flags.owndata
    assert first_rows(spec, np.zeros((size // 10, 10), "u1"), (size // 10, 10)).size <= MAX_SAMPLE_VALUES


def test_names_of_summaries_are_record_files() -> None:  # [K-7]
    name = "summary-20260131T120000000Z-device-1-0123abcd-000001.jsonl"
    assert layout.is_record_name(name, "device-1") and not layout.is_record_name(name, "other")
    assert layout.accepted_at(name) == layout.accepted_at(name.removeprefix("summary-")) > 0
