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
