"""`captures report`: one page that shows what a model saw and said."""

from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from edge.client import show as words
from edge.client.captures import charts, page
from edge.client.captures.bucket import source_of
from edge.client.captures.charts import moment, text
from edge.client.captures.commands import selected
from edge.client.captures.files import new_file
from edge.client.captures.gallery import Gallery
from edge.client.captures.selection import Refusals, selection_of
from edge.client.captures.tallies import OTHERS, PERIODS, SummaryTally, Tallies, Tally
from edge.client.outcome import Exit
from edge.text import counted

MAX_GALLERIES = 20  # models with pictures on a page


def report(options: Namespace) -> Exit:
    """Writes the page."""
    refusals = Refusals(quiet=bool(options.json))
    target = Path(options.html)
    with new_file(target, force=options.force) as file:
        source, selection = source_of(options), selection_of(options)
        tallies, galleries = Tallies(), dict[tuple[str, str], Gallery]()
        for chosen in selection.of(source, refusals):
            tally = tallies.add(chosen)
            key = (tally.model_name, tally.model_version)
            if key in galleries or len(galleries) < MAX_GALLERIES:
                galleries.setdefault(key, Gallery(options.pictures)).add(chosen, refusals)
        for summary in selected(source, selection, refusals):
            tallies.add_summary(summary)
        file.write(page_of(options.where, tallies, galleries, refusals).encode("utf-8"))
    captured = sum(tally.count for tally in tallies.captures.values())
    if options.json:
        words.as_json({"report": str(target), "captures": captured} | refusals.as_json(), refusals.fault)
    else:
        print(f"{target}: {counted(captured, 'capture')}")
    return refusals.end()


def page_of(where: str, tallies: Tallies, galleries: dict[tuple[str, str], Gallery], refusals: Refusals) -> str:
    """The page."""
    return page.page(f"Captures in {where}", _body(where, tallies, galleries, refusals))


def _body(where: str, tallies: Tallies, galleries: dict[tuple[str, str], Gallery], refusals: Refusals) -> Iterator[str]:
    models = tallies.models()
    yield f'<h1>Captures</h1><p class="pale">{text(where, words.PATH_CHARACTERS)}, as of {moment(datetime.now(UTC))} UTC</p>'
    sections = [_section(key, tallies, galleries.get(key), refusals) for key in models]
    drawn = ["\n".join(section) for section in sections]  # which may find more that cannot be used
    if not models:
        yield "<p>No capture passes the filters.</p>"
    if refusals.count:
        yield page.wide(f"{counted(refusals.count, 'record')} cannot be used", _list(refusals.first))
    yield from drawn


def _list(lines: list[str]) -> str:
    return "".join(f'<p class="bad">{text(line, 600)}</p>' for line in lines)


def _section(key: tuple[str, str], tallies: Tallies, gallery: Gallery | None, refusals: Refusals) -> Iterator[str]:
    yield f"<h2>{text(key[0]) or '(no name)'} {text(key[1])}</h2>"
    if tally := tallies.captures.get(key):
        yield page.tiles(list(_facts(tally)))
        yield f'<div class="charts">{"".join(_charts(tally))}</div>'
        if tally.reasons.counts or tally.statuses.counts:
            rows = [("kept for " + word, str(n)) for word, n in tally.reasons.counts.most_common(30)]
            rows += [("ended with " + word, str(n)) for word, n in tally.statuses.counts.most_common(30)]
            yield page.wide("Why they were kept", page.table(("", "captures"), rows))
    if summed := tallies.summaries.get(key):
        yield page.wide("All calls, by the agent's summaries", page.table(("", ""), _summed(summed)))
        yield page.wide("Period by period", page.table(PERIODS, list(summed.latest)[::-1]))
    if gallery is not None:
        yield from gallery.shown(refusals)


def _facts(tally: Tally) -> Iterator[tuple[str, str]]:
    yield "captures", str(tally.count)
    yield "devices", str(len(tally.devices.counts))
    yield "first", moment(tally.first)
    if tally.last != tally.first:
        yield "last", moment(tally.last)
    if tally.mean_confidence is not None:
        yield "mean confidence", f"{tally.mean_confidence:.2%}"
    if tally.latency.count:
        yield "latency, median", f"{tally.latency.at(0.5):.3g} ms"
        yield "latency, 99 %", f"{tally.latency.at(0.99):.3g} ms"


def _charts(tally: Tally) -> Iterator[str]:
    counts = tally.classes.counts
    if counts:
        colours = _colours(tally)
        shown = sorted(((word, counts[word]) for word in colours if word in counts), key=_by_number)
        rest = counts.total() - sum(n for _, n in shown)
        yield page.chart("Classes", charts.bars(shown + [(OTHERS, rest)] * bool(rest), colours))
        yield page.chart("Classes over time", charts.over_time(tally.timeline, colours), colours)
    if any(tally.confidences):
        yield page.chart("Confidence", charts.confidences(tally.confidences))
    unknown = '<p class="pale">These records do not tell how long an inference took; those that the agent keeps by itself do.</p>'
    yield page.chart("Latency", charts.latencies(tally.latency) if tally.latency.count else unknown)


def _colours(tally: Tally) -> dict[str, str]:
    """A colour for each of the classes that come most often, in the order of the classes; and one for all others."""
    most = tally.classes.counts.most_common(charts.MAX_COLOURS)
    ordered = sorted(((word, n) for word, n in most if word != OTHERS), key=_by_number)
    colours = {word: f"c{number}" for number, (word, _) in enumerate(ordered)}
    return colours | ({OTHERS: "c10"} if len(tally.classes.counts) > len(colours) else {})


def _by_number(one: tuple[str, int]) -> tuple[bool, int, str]:
    word = one[0]
    is_number = word.isascii() and word.isdigit() and len(word) < 20
    return not is_number, int(word) if is_number else 0, word


def _summed(summed: SummaryTally) -> Iterator[tuple[str, str]]:
    yield "periods", f"{summed.count}, {moment(summed.first)} to {moment(summed.last)}"
    for status, n in summed.calls.counts.most_common(20):
        yield f"calls that ended with {status}", str(n)
    for name, size in summed.worst.items():
        yield f"latency {name}, in the slowest period", f"{size:.3g} ms"
    for word, n in sorted(summed.classes.counts.most_common(20), key=_by_number):
        yield f"class {word}, of the calls that were sampled", str(n)
