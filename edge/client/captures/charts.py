"""Charts as SVG, without script and without style attributes, so that a page with the strictest policy shows them."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape

from edge.client.captures.tallies import CONFIDENCE_BINS, OTHERS, Quantiles, Timeline
from edge.text import printable

MAX_COLOURS = 10
_WIDE, _HIGH, _LEFT, _BELOW, _ABOVE = 480, 200, 44, 22, 12
_MOST_BAR = 44
LABEL_CHARACTERS = 24


def text(words: str, most: int = 200) -> str:
    """Words of any origin, for the text or an attribute of a page."""
    return escape(printable(words, most))


def bars(counts: Sequence[tuple[str, int]], colours: dict[str, str]) -> str:
    """A row for each word, with a bar as long as its count."""
    most, row = max((count for _, count in counts), default=1), 20
    left = 12 + 7 * min(LABEL_CHARACTERS, max((len(word) or 6 for word, _ in counts), default=0))
    parts = []
    for number, (word, count) in enumerate(counts):
        top = number * row
        wide = max(1, round(count / most * (_WIDE - left - 60)))
        parts += [
            f'<text x="{left - 8}" y="{top + 14}" class="end">{text(word, LABEL_CHARACTERS) or "(none)"}</text>',
            f'<rect x="{left}" y="{top + 3}" width="{wide}" height="{row - 6}" rx="3" class="{colours.get(word, "c0")}">'
            f"<title>{text(word)}: {count}</title></rect>",
            f'<text x="{left + 6 + wide}" y="{top + 14}">{count}</text>',
        ]
    return _svg(_WIDE, row * max(1, len(counts)), parts, "counts by class")


def over_time(timeline: Timeline, colours: dict[str, str]) -> str:
    """A stacked column for each period in which something was."""
    periods = [(start, _merged(counts, colours)) for start, counts in timeline.periods()]
    most = max((counts.total() for _, counts in periods), default=1)
    parts = _frame(most)
    slot = (_WIDE - _LEFT - 8) / max(1, len(periods))
    wide = min(_MOST_BAR, slot * 0.8)
    for number, (start, counts) in enumerate(periods):
        left, bottom = _LEFT + slot * number + (slot - wide) / 2, float(_HIGH - _BELOW)
        for word, colour in colours.items():
            if not counts[word]:
                continue
            high = counts[word] / most * (_HIGH - _BELOW - _ABOVE)
            bottom -= high
            parts.append(
                f'<rect x="{left:.1f}" y="{bottom:.1f}" width="{wide:.1f}" height="{high:.1f}" class="{colour}">'
                f"<title>{text(word)}: {counts[word]}, from {moment(start)}</title></rect>"
            )
    parts += _times([start for start, _ in periods], slot)
    return _svg(_WIDE, _HIGH, parts, "classes over time")


def _merged(counts: Counter[str], colours: dict[str, str]) -> Counter[str]:
    merged: Counter[str] = Counter()
    for word, count in counts.items():
        merged[word if word in colours else OTHERS] += count
    return merged


def _times(starts: Sequence[datetime], slot: float) -> list[str]:
    """The first and the last start, and one between where there is room."""
    if not starts:
        return []
    chosen = {0: "begin", len(starts) - 1: "end"} if len(starts) > 1 else {0: "mid"}
    if len(starts) > 4:
        chosen[len(starts) // 2] = "mid"
    parts = []
    for number, anchor in chosen.items():
        at = {"begin": _LEFT, "end": _WIDE - 8, "mid": _LEFT + slot * (number + 0.5)}[anchor]
        parts.append(f'<text x="{at:.0f}" y="{_HIGH - 5}" class="{anchor}">{moment(starts[number])[:16]}</text>')
    return parts


def confidences(bins: Sequence[int]) -> str:
    """How often the model was how sure."""
    labels = [f"{5 * number} to {5 * number + 5} %" for number in range(CONFIDENCE_BINS)]
    return _histogram(list(zip(labels, bins, strict=True)), ("0 %", "50 %", "100 %"), "confidence")


def latencies(sizes: Quantiles) -> str:
    """How often an inference took how long."""
    bins = sizes.bins(CONFIDENCE_BINS)
    labelled = [(f"{low:.3g} to {high:.3g} ms", count) for low, high, count in bins]
    ends = (f"{bins[0][0]:.3g} ms", "", f"{bins[-1][1]:.3g} ms") if bins else ("", "", "")
    return _histogram(labelled, ends, "latency")


def _histogram(bins: Sequence[tuple[str, int]], ends: tuple[str, str, str], what: str) -> str:
    most = max((count for _, count in bins), default=0) or 1
    parts = _frame(most)
    slot = (_WIDE - _LEFT - 8) / max(1, len(bins))
    wide = min(_MOST_BAR, slot - 2)
    for number, (label, count) in enumerate(bins):
        high = count / most * (_HIGH - _BELOW - _ABOVE)
        left = _LEFT + slot * number + (slot - wide) / 2
        parts.append(
            f'<rect x="{left:.1f}" y="{_HIGH - _BELOW - high:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="2" class="c0">'
            f"<title>{label}: {count}</title></rect>"
        )
    for at, anchor, words in zip((_LEFT, (_LEFT + _WIDE) / 2, _WIDE - 8), ("begin", "mid", "end"), ends, strict=True):
        parts.append(f'<text x="{at:.0f}" y="{_HIGH - 5}" class="{anchor}">{words}</text>')
    return _svg(_WIDE, _HIGH, parts, what)


def _frame(most: int) -> list[str]:
    bottom = _HIGH - _BELOW
    return [
        f'<line x1="{_LEFT}" y1="{_ABOVE}" x2="{_WIDE}" y2="{_ABOVE}"/>',
        f'<line x1="{_LEFT}" y1="{bottom}" x2="{_WIDE}" y2="{bottom}"/>',
        f'<text x="{_LEFT - 6}" y="{_ABOVE + 4}" class="end">{most}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom + 4}" class="end">0</text>',
    ]


def _svg(wide: int, high: int, parts: Sequence[str], what: str) -> str:
    return f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{what}">{"".join(parts)}</svg>'


def moment(time: datetime) -> str:
    """A time for people, in UTC."""
    return time.isoformat(" ")[:19]
