"""The alert rules and the dashboard in docs/metrics ask for what the agent tells."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge.metrics.table import METRICS, Kind, Metric

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "metrics"
LABELS_OF_PROMETHEUS = {"instance", "job", "le"}
_ASKED = re.compile(r"\b(edge_agent_\w+)(?:\{([^}]*)\})?")


def series() -> dict[str, Metric]:
    ends = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
    return {metric.series + end: metric for metric in METRICS for end in ends.get(metric.kind, ("",))}


def of_rules() -> list[str]:
    """The expressions of alerts.yml: what follows `expr:`, folded or not."""
    text = (FOLDER / "alerts.yml").read_text()
    return [" ".join(found.split()) for found in re.findall(r"expr: (?:>-\n)?(.*?)\n {8}\w+:", text, re.DOTALL)]


def of_dashboard() -> list[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    queries = [one["definition"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]] + queries


def test_they_ask_for_what_is_told() -> None:
    assert len(of_rules()) == (FOLDER / "alerts.yml").read_text().count("- alert:")
    known = series()
    for expression in of_rules() + of_dashboard():
        for name, chosen in _ASKED.findall(expression):
            assert name in known, expression
            labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", chosen))
            assert labels <= {*known[name].labels, *LABELS_OF_PROMETHEUS}, expression


def test_labels_that_are_grouped_by_are_there() -> None:
    for expression in of_rules() + of_dashboard():
        grouped = {name for found in re.findall(r"\bby \(([^)]*)\)", expression) for name in re.split(r",\s*", found)}
        there = {label for name, _ in _ASKED.findall(expression) for label in series()[name].labels}
        assert grouped <= there | LABELS_OF_PROMETHEUS, expression


def test_what_the_rules_say_of_is_there() -> None:
    """Labels in the annotations are those of the rule's metric."""
    for rule in (FOLDER / "alerts.yml").read_text().split("- alert:")[1:]:
        there = {label for name, _ in _ASKED.findall(rule) for label in series()[name].labels}
        assert set(re.findall(r"\$labels\.(\w+)", rule)) <= there | LABELS_OF_PROMETHEUS, rule


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt-get install prometheus)")
def test_promtool_takes_them(tmp_path: Path) -> None:
    """The rules as they are, and the dashboard's expressions as rules."""
    panels = [one for one in of_dashboard() if not one.startswith("label_values")]
    filled = [
        one.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$model", ".*") for one in panels
    ]
    rules = [{"record": f"panel:{position}", "expr": expression} for position, expression in enumerate(filled)]
    made = tmp_path / "dashboard.yml"
    made.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    for file in (FOLDER / "alerts.yml", made):
        done = subprocess.run(
            ["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


# What each rule is tried on: series, in promtool's notation, a minute a value; and the minute at which it fires.
FIRING = {
    "EdgeAgentDown": ({'up{job="sagemaker-edge-agent",instance="i"}': "0x10"}, 3),
    "EdgeAgentNotReady": ({'edge_agent_ready{instance="i"}': "0x10"}, 6),
    "EdgeAgentStuck": ({'edge_agent_watchdog_alive_timestamp_seconds{instance="i"}': "5x10"}, 5),
    "EdgeAgentRestarts": ({'edge_agent_start_time_seconds{instance="i"}': "1 2 3 4 4 4"}, 5),
    "EdgeModelFails": (
        {'edge_agent_model_calls_total{instance="i",model="m",version="1",code="INTERNAL"}': "0 0 1 1 1 1"},
        5,
    ),
    "EdgeModelOverloaded": (
        {
            'edge_agent_model_calls_total{instance="i",model="m",version="1",code="RESOURCE_EXHAUSTED"}': "0+2x20",
            'edge_agent_model_calls_total{instance="i",model="m",version="1",code="OK"}': "0+98x20",
        },
        12,
    ),
    "EdgeAgentOverloaded": (
        {'edge_agent_calls_refused_total{instance="i",code="RESOURCE_EXHAUSTED"}': "0 0 1 1 1 1"},
        5,
    ),
    "EdgeDeclaredModelDoesNotServe": ({'edge_agent_declared_models{instance="i",serves="no"}': "1x10"}, 6),
    "EdgeVersionTakenBack": ({'edge_agent_rollbacks_total{instance="i"}': "0 0 1 1 1 1"}, 5),
    "EdgeCapturesRefused": ({'edge_agent_captures_refusing_since_timestamp_seconds{instance="i"}': "7x10"}, 6),
    "EdgeCapturesLost": ({'edge_agent_captures_total{instance="i",result="dropped"}': "0 0 3 3 3 3"}, 5),
    "EdgeCapturesWait": (
        {
            'edge_agent_captures_oldest_waiting_timestamp_seconds{instance="i"}': "1x1500",
            'edge_agent_captures_waiting{instance="i"}': "2x1500",
        },
        1450,
    ),
    "EdgeSpoolFills": (
        {'edge_agent_spool_bytes{instance="i"}': "81x20", 'edge_agent_spool_max_bytes{instance="i"}': "100x20"},
        12,
    ),
    "EdgeUploadsGivenUp": ({'edge_agent_uploads_total{instance="i",result="given_up"}': "0 0 1 1 1 1"}, 5),
    "EdgeFleetRefused": ({'edge_agent_fleet_state{instance="i",state="refused"}': "1x10"}, 6),
    "EdgeFleetOutOfReach": (
        {
            'edge_agent_fleet_checked_timestamp_seconds{instance="i"}': "1x1500",
            'edge_agent_fleet_failing{instance="i"}': "1x1500",
        },
        1450,
    ),
    "EdgeAgentNearItsDescriptors": (
        {'edge_agent_open_fds{instance="i"}': "900x20", 'edge_agent_max_fds{instance="i"}': "1024x20"},
        12,
    ),
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt-get install prometheus)")
def test_each_rule_fires(tmp_path: Path) -> None:
    """On series on which it must, and none before the first values."""
    rules = re.findall(r"- alert: (\w+)", (FOLDER / "alerts.yml").read_text())
    assert set(rules) == set(FIRING)
    # The rules without their words for people, which a test would have to repeat.
    bare = re.sub(r"\n +annotations:\n.*", "", (FOLDER / "alerts.yml").read_text())
    (tmp_path / "alerts.yml").write_text(bare)
    tests = []
    for name, (series, minute) in FIRING.items():
        labels = {key: value for one in list(series)[:1] for key, value in re.findall(r'(\w+)="([^"]*)"', one)}
        if name == "EdgeModelOverloaded":
            del labels["code"]
        severity = re.search(rf"alert: {name}\n.*?severity: (\w+)", bare, re.DOTALL)
        assert severity
        expected = [{"exp_labels": {**labels, "severity": severity[1]}}]
        tests.append(
            {
                "interval": "1m",
                "input_series": [{"series": one, "values": values} for one, values in series.items()],
                "alert_rule_test": [
                    {"eval_time": "0m", "alertname": name, "exp_alerts": []},
                    {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": expected},
                ],
            }
        )
    made = tmp_path / "test.yml"
    made.write_text(json.dumps({"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(made)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
