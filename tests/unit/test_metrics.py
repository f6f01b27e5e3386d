"""Metrics as text, their histograms, and the file of them."""

import threading
from bisect import bisect_left
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import histogram
from edge.metrics import sources, table
from edge.metrics.exporter import TEXTFILE_SECONDS, Exporter, TextFile
from edge.metrics.exposition import MAX_LABEL_CHARACTERS, Sheet
from tests.fakes.clock import FakeClock
from tests.system.harness import eventually


def counted(*seconds: float) -> list[int]:
    counts = histogram.empty()
    for one in seconds:
        counts[bisect_left(histogram.BOUNDS, one)] += 1
    return counts


def test_buckets_have_their_bounds() -> None:
    sums = dict(zip(histogram.TOLD, histogram.cumulated(counted(0.0, 0.001, 0.0010001, 0.7, 99, 1e9)), strict=False))
    assert (sums[0.0005], sums[0.001], sums[0.002], sums[0.5], sums[1.0], sums[10.0]) == (1, 2, 3, 3, 4, 4)
    assert histogram.cumulated(counted(1e9)) == [0] * len(histogram.TOLD) + [1]
    assert list(histogram.BOUNDS) == sorted(set(histogram.BOUNDS)) and set(histogram.TOLD) < set(histogram.BOUNDS)


@given(st.lists(st.floats(1e-5, 90), min_size=1), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_a_quantile_is_in_its_bucket(seconds: list[float], part: float) -> None:
    told = histogram.quantile(counted(*seconds), part)
    rank = max(0, -(-part * len(seconds) // 1) - 1)
    position = bisect_left(histogram.BOUNDS, sorted(seconds)[int(rank)])
    low = histogram.BOUNDS[position - 1] if position else 0.0
    assert told is not None and low <= told <= histogram.BOUNDS[position]


def test_quantiles_at_the_ends() -> None:
    assert histogram.quantile(histogram.empty(), 0.5) is None
    assert histogram.quantile(counted(1e9), 0.5) == histogram.BOUNDS[-1]


def test_both_formats() -> None:
    sheet = Sheet()
    sheet.add(table.BUILD, 1, "1.0", "tflite")
    sheet.add(table.CPU, 1.5)
    sheet.add(table.CALLS, 3, "s", "m", "OK")
    assert sheet.text(open_metrics=True).decode().splitlines() == [
        "# TYPE edge_agent_build info",
        f"# HELP edge_agent_build {table.BUILD.help}",
        'edge_agent_build_info{version="1.0",engine="tflite"} 1',
        "# TYPE edge_agent_cpu_seconds counter",
        "# UNIT edge_agent_cpu_seconds seconds",
        f"# HELP edge_agent_cpu_seconds {table.CPU.help}",
        "edge_agent_cpu_seconds_total 1.5",
        "# TYPE edge_agent_calls counter",
        f"# HELP edge_agent_calls {table.CALLS.help}",
        'edge_agent_calls_total{service="s",method="m",code="OK"} 3',
        "# EOF",
    ]
    assert sheet.text(open_metrics=False).decode().splitlines()[::3] == [
        "# TYPE edge_agent_build_info gauge",
        "# TYPE edge_agent_cpu_seconds_total counter",
        "# TYPE edge_agent_calls_total counter",
    ]


def test_a_histogram() -> None:
    sheet = Sheet()
    sheet.add_histogram(table.INFERENCE, counted(0.0002, 3.0), 3.0002, "m", "1")
    lines = sheet.text(open_metrics=True).decode().splitlines()
    assert 'edge_agent_model_inference_seconds_bucket{model="m",version="1",le="0.0002"} 1' in lines
    assert 'edge_agent_model_inference_seconds_bucket{model="m",version="1",le="+Inf"} 2' in lines
    assert 'edge_agent_model_inference_seconds_sum{model="m",version="1"} 3.0002' in lines
    assert 'edge_agent_model_inference_seconds_count{model="m",version="1"} 2' in lines


@given(st.text())
def test_a_label_is_one_label_whatever_is_in_it(value: str) -> None:
    sheet = Sheet()
    sheet.add(table.MODELS, 1, value)
    (line,) = sheet.text(open_metrics=False).decode().split("\n")[2:-1]
    inside = line.removeprefix('edge_agent_models{state="').removesuffix('"} 1')
    plain = inside.replace(r"\\", "").replace(r"\n", "").replace(r"\"", "")
    assert '"' not in plain and "\\" not in plain and len(inside) <= 2 * MAX_LABEL_CHARACTERS


def test_names_are_as_prometheus_wants_them() -> None:
    names = [one.series for one in table.METRICS]
    assert len(set(names)) == len(names)
    for one in table.METRICS:
        assert one.name.startswith("edge_agent_") and one.help.endswith((".", ",")), one.name
        assert one.name.rpartition("_")[2] not in ("total", "info", "bucket", "count", "sum", "ms", "mib"), one.name
        assert "seconds" not in one.name or one.unit == "seconds", one.name
        assert "bytes" not in one.name or one.unit == "bytes", one.name


def test_a_device_in_a_fleet() -> None:
    told = {
        "fleet": "plant-north", "deployment": "digits 7", "state": "refused", "last_error": "", "checked_unix_seconds": 5,
        "models": [{"name": "a", "refused": "no room"}, {"name": "b", "refused": ""}],
    }  # fmt: skip
    sheet = Sheet()
    sources.fleet(lambda: told)(sheet)
    lines = sheet.text(open_metrics=True).decode().splitlines()
    assert {line.split()[2] for line in lines if "# TYPE" in line} == {metric.name for metric in table.FLEETS}
    assert 'edge_agent_fleet_deployment_info{fleet="plant-north",deployment="digits 7"} 1' in lines
    assert 'edge_agent_fleet_state{state="refused"} 1' in lines and 'edge_agent_fleet_state{state="trying"} 0' in lines
    assert "edge_agent_fleet_models_refused 1" in lines and "edge_agent_fleet_failing 0" in lines


def test_what_cannot_be_collected_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter()
    exporter.register(lambda sheet: sheet.add(table.SWAPS, int("none")))
    exporter.register(lambda sheet: sheet.add(table.READY, 1))
    for _ in range(2):
        assert exporter.text(open_metrics=False).endswith(b"\nedge_agent_ready 1\n")
    assert len(caplog.records) == 1


def test_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, looked = FakeClock(), threading.Semaphore(0)
    exporter = Exporter()
    exporter.register(lambda sheet: (sheet.add(table.START, clock.now()), looked.release())[0])
    path = tmp_path / "sub" / "agent.prom"
    written = TextFile(exporter, str(path), clock)
    written.start()

    def next_look() -> None:
        while not looked.acquire(timeout=0.02):
            clock.advance(TEXTFILE_SECONDS)

    def after_next() -> str:
        next_look()
        next_look()  # what it saw before is written
        return path.read_text()

    try:
        eventually(lambda: caplog.records)
        path.parent.mkdir()
        first, second = after_next(), after_next()
        assert first != second and "# EOF" not in first
        assert [one.name for one in path.parent.iterdir() if not one.name.endswith(".tmp")] == ["agent.prom"]
    finally:
        written.stop(5)
    assert not path.exists()
    assert all("No such file" in record.message or "again" in record.message for record in caplog.records)
