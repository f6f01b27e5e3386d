"""The text that a monitoring system reads: OpenMetrics 1.0, or Prometheus' own text format 0.0.4. Pure.

Of the first: https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md. Of the second:
https://prometheus.io/docs/instrumenting/exposition_formats/. They differ in where a counter's name ends with `_total`, in what they
call an info, and in the mark at the end.
"""

from collections.abc import Callable, Sequence

from edge import histogram
from edge.metrics.table import Kind, Metric

OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
MAX_LABEL_CHARACTERS = 128  # of a label's value: a package's version may be long

_BUCKETS = [*(f"{bound:g}" for bound in histogram.TOLD), "+Inf"]


class Sheet:
    """The samples of one look at the agent, to be written as text."""

    def __init__(self) -> None:
        self._lines: dict[Metric, list[str]] = {}

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        """One sample; `labels` are the values of the metric's labels, in its order."""
        self._lines.setdefault(metric, []).append(f"{metric.series}{_labels(metric.labels, labels)} {_number(value)}\n")

    def add_histogram(self, metric: Metric, counts: Sequence[int], total: float, *labels: str) -> None:
        """A histogram: `counts` in the buckets of edge.histogram, and the `total` of seconds."""
        lines = self._lines.setdefault(metric, [])
        sums = histogram.cumulated(counts)
        own = _labels(metric.labels, labels)
        inner = own[1:-1] + "," if own else ""
        for bound, count in zip(_BUCKETS, sums, strict=True):
            lines.append(f'{metric.name}_bucket{{{inner}le="{bound}"}} {count}\n')
        lines.append(f"{metric.name}_sum{own} {_number(total)}\n")
        lines.append(f"{metric.name}_count{own} {sums[-1]}\n")

    def text(self, *, open_metrics: bool) -> bytes:
        """All of it, a family after the other."""
        parts = []
        for metric, lines in self._lines.items():
            name, kind = (metric.name, metric.kind) if open_metrics else (metric.series, _PLAIN_KIND[metric.kind])
            parts.append(f"# TYPE {name} {kind.value}\n")
            if open_metrics and metric.unit:
                parts.append(f"# UNIT {name} {metric.unit}\n")
            parts.append(f"# HELP {name} {_escaped(metric.help)}\n")
            parts += lines
        if open_metrics:
            parts.append("# EOF\n")
        return "".join(parts).encode("utf-8", "replace")


_PLAIN_KIND = {kind: Kind.GAUGE if kind is Kind.INFO else kind for kind in Kind}

Collector = Callable[[Sheet], None]


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escaped(value[:MAX_LABEL_CHARACTERS])}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(float(value))
