"""What `top` makes of two answers of the agent."""

from bisect import bisect_left

from edge import histogram
from edge.client import top
from edge.client.rates import rows
from edge.rpc._generated import operations_pb2 as ops


def model(name: str, *seconds: float, failed: int = 0, version: str = "1") -> ops.ModelStatus:
    counts = histogram.empty()
    for one in seconds:
        counts[bisect_left(histogram.BOUNDS, one)] += 1
    shown = histogram.without_last_zeros(counts)
    return ops.ModelStatus(
        name=name, package_version=version, state="READY", predicted=len(seconds), failed=failed, inference_counts=shown
    )


def reply(*models: ops.ModelStatus) -> ops.GetStatusResponse:
    return ops.GetStatusResponse(models=models, bucket_seconds=histogram.BOUNDS)


def test_what_happened_in_between() -> None:
    before = reply(model("a", 0.5, failed=1), model("b", 0.1))
    (a, b) = rows(before, reply(model("a", 0.5, 0.001, 0.001, 0.001, 0.02, failed=3), model("b", 0.1)), 2.0)
    assert (a.calls_per_second, a.failed_per_second) == (2.0, 1.0)
    assert a.p50_seconds is not None and 0.0007 < a.p50_seconds <= 0.001
    assert a.p99_seconds is not None and 0.015 < a.p99_seconds <= 0.02
    assert (b.calls_per_second, b.p50_seconds, b.p99_seconds) == (0.0, None, None)


def test_a_model_that_was_loaded_in_between() -> None:
    before = reply(model("a", *[0.001] * 9), model("same", *[0.001] * 9))
    now = reply(model("a", 0.02, version="2"), model("same", 0.02), model("new", 0.02, 0.02))
    assert [row.calls_per_second for row in rows(before, now, 1.0)] == [1.0, 1.0, 2.0]
    assert all(row.p50_seconds and row.p50_seconds > 0.01 for row in rows(before, now, 1.0))


def test_an_agent_that_tells_no_latencies() -> None:
    (row,) = rows(ops.GetStatusResponse(), ops.GetStatusResponse(models=[ops.ModelStatus(predicted=4)]), 2.0)
    assert (row.calls_per_second, row.p50_seconds) == (2.0, None)


def test_the_table() -> None:
    text = top.as_text(reply(), reply(model("digits", *[0.00025] * 30, failed=2)), 2.0)
    (line,) = [line for line in text.splitlines() if line.startswith("digits")]
    assert line.split()[1:5] == ["1", "READY", "15.0", "1.0"] and "0.25 ms" in line and "0.299 ms" in line
    assert "15.0 calls/s, 1.0 failed/s over 2.0 s" in text and "none waiting" in text
    assert "no models are loaded" in top.as_text(reply(), reply(), 2.0)


def test_words_of_a_hostile_agent() -> None:
    words = "\x1b[31m\n" + "x" * 100_000
    hostile = ops.ModelStatus(name=words, package_name=words, package_version=words, state=words, predicted=1 << 63)
    given = ops.GetStatusResponse(version=words, engine=words, models=[hostile, hostile])
    given.bucket_seconds.extend([float("nan"), -1.0, float("inf")])
    given.models[0].inference_counts.extend([1 << 63, 0, 3, 4, 5])
    text = top.as_text(given, given, 1e-9)
    assert "\x1b" not in text and len(text) < 200_000
    assert "\x1b" not in top.as_text(ops.GetStatusResponse(), given, 2.0)
