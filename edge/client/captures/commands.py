"""`captures ls`, `show` and `stats`."""

import json
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from typing import Any

from edge.capture.record import MAX_ID_CHARACTERS
from edge.client import show as text
from edge.client.captures.bucket import source_of
from edge.client.captures.pictures import drawing, picture_entry, picture_of
from edge.client.captures.predictions import is_scores
from edge.client.captures.records import Capture, Entry, RecordError
from edge.client.captures.selection import Chosen, Refusals, Selection, selection_of
from edge.client.captures.sources import Source
from edge.client.captures.summaries import Summary, summaries_of
from edge.client.captures.tallies import SummaryTally, Tallies, Tally
from edge.client.outcome import Exit, RefusedError
from edge.rpc._generated import agent_pb2 as pb
from edge.tensors import shape_text
from edge.text import counted, printable

PAGE_ROWS = 200  # that are lined up with each other
MAX_CELL_CHARACTERS = 48  # of a cell of the list; --json has all
MAX_TEXT_BYTES = 2000  # of an auxiliary entry that is shown
HEAD = ["TIME", "MODEL", "VERSION", "CLASS", "CONFIDENCE", "REASON", "ID"]
_MARGIN_COLUMNS = 2


def ls(options: Namespace) -> Exit:
    """Captures, a line each, as they are read."""
    refusals = Refusals(quiet=bool(options.json))
    found = islice(selection_of(options).of(source_of(options), refusals), options.limit)
    if options.json:
        print('{"captures": [', end="")
        for number, chosen in enumerate(found):
            print(", " * bool(number) + json.dumps(_row_json(chosen)), end="")
        verdict = {"ok": False, "error": refusals.fault, **refusals.as_json()} if refusals.count else {"ok": True}
        print("], " + json.dumps(verdict)[1:])
        return refusals.end()
    head = HEAD
    while page := list(islice(found, PAGE_ROWS)):
        lines = text.table([_row(chosen) for chosen in page], HEAD).splitlines()
        print("\n".join(lines if head else lines[1:]))
        head = []
    if head:
        print("no capture passes the filters")
    return refusals.end()


def _row(chosen: Chosen) -> list[str]:
    capture, said = chosen.capture, chosen.prediction
    return [
        moment(capture),
        printable(capture.model_name, MAX_CELL_CHARACTERS),
        printable(capture.model_version, MAX_CELL_CHARACTERS),
        printable(chosen.label, MAX_CELL_CHARACTERS),
        f"{said.confidence:.2%}" if said and said.confidence is not None else "",
        printable(", ".join(capture.reasons), MAX_CELL_CHARACTERS),
        printable(capture.capture_id, MAX_ID_CHARACTERS),
    ]


def moment(capture: Capture) -> str:
    """Its time, to the second."""
    return capture.time.isoformat()[:19] + "Z"


def _row_json(chosen: Chosen) -> dict[str, Any]:
    capture, said = chosen.capture, chosen.prediction
    return {
        "id": capture.capture_id,
        "time": moment(capture),
        "model": capture.model_name,
        "version": capture.model_version,
        "device": capture.device,
        "fleet": capture.fleet,
        "class": said.index if said else None,
        "label": chosen.label or None,
        "confidence": said.confidence if said else None,
        "reasons": list(capture.reasons),
        "milliseconds": capture.milliseconds,
        "status": capture.status or None,
        "file": capture.origin,
    }


def show(options: Namespace) -> Exit:
    """One capture: the one with the id, or the newest."""
    refusals = Refusals(quiet=True)
    selection = selection_of(options)
    chosen = _find(selection.of(source_of(options), refusals), options.capture_id)
    if chosen is None:
        name = f"no capture {options.capture_id}" if options.capture_id else "no capture"
        raise RefusedError(
            "NOT_FOUND", f"{printable(name)} is in {options.where}" + f"; {refusals.fault}" * bool(refusals.count)
        )
    if options.json:
        text.as_json(_row_json(chosen) | {"tensors": [_entry_json(entry) for entry in chosen.capture.entries]})
        return Exit.OK
    print("\n".join(_described(chosen, selection, options.top)))
    return Exit.OK


def _find(found: Iterator[Chosen], capture_id: str | None) -> Chosen | None:
    newest: Chosen | None = None
    for chosen in found:
        if capture_id is not None and chosen.capture.capture_id.startswith(capture_id):
            return chosen
        if capture_id is None and (newest is None or chosen.capture.time >= newest.capture.time):
            newest = chosen
    return newest


def _entry_json(entry: Entry) -> dict[str, Any]:
    dtype = entry.dtype.name if entry.dtype is not None else None
    facts: dict[str, Any] = {"name": entry.name, "part": entry.part, "content_type": entry.content_type}
    return facts | {"data_type": dtype, "shape": list(entry.shape), "file": entry.reference or None}


def _described(chosen: Chosen, selection: Selection, top: int) -> Iterator[str]:
    capture = chosen.capture
    yield f"{printable(capture.capture_id)}  {moment(capture)}  {printable(capture.model_name)} {printable(capture.model_version)}"
    yield f"  from {printable(capture.device)} of {printable(capture.fleet)}, in {printable(capture.origin, text.PATH_CHARACTERS)}"
    if capture.reasons:
        yield f"  kept for {printable(', '.join(capture.reasons))}"
    if capture.milliseconds is not None:
        yield f"  took {capture.milliseconds:.3g} ms"
    if capture.status:
        yield f"  ended with {printable(capture.status)}"
    entry = picture_entry(capture)
    for one in capture.entries:
        yield f"{one.part} {printable(one.name)}  {printable(one.content_type)}"
        try:
            if one is entry and drawn():
                columns = shutil.get_terminal_size().columns - _MARGIN_COLUMNS
                yield drawing(picture_of(one.array(), columns), columns)
            elif one is entry:
                array = one.array()
                yield f"  a picture, values from {float(array.min()):.6g} to {float(array.max()):.6g}, mean {array.mean(dtype=float):.6g}"
            elif one.dtype is not None:
                yield _tensor(one, selection.labels, top)
            else:
                yield "  " + printable(one.content()[:MAX_TEXT_BYTES].decode("utf-8", "replace"), MAX_TEXT_BYTES)
        except RecordError as error:
            yield f"  {printable(str(error), MAX_TEXT_BYTES)}"


def _tensor(entry: Entry, labels: Any, top: int) -> str:
    array = entry.array()
    if not array.size:
        return "  " + shape_text(entry.shape)
    names = list(labels) if is_scores(entry) else []
    return "\n".join(text.tensor(pb.TensorMetadata(), array, names, top).splitlines()[1:])


def drawn() -> bool:
    """Whether pictures are drawn: on a terminal that may have colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def stats(options: Namespace) -> Exit:
    """Counts by model and version, of captures and of summaries."""
    refusals = Refusals(quiet=bool(options.json))
    tallies = tallied(source_of(options), selection_of(options), refusals)
    if options.json:
        facts = [_stats_json(tallies, key) for key in tallies.models()]
        text.as_json({"models": facts} | refusals.as_json(), refusals.fault)
        return refusals.end()
    lines = [line for key in tallies.models() for line in _stats(tallies, key)]
    print("\n".join(lines) or "no capture passes the filters")
    return refusals.end()


def tallied(source: Source, selection: Selection, refusals: Refusals) -> Tallies:
    """Everything that passes, counted; filters by class and reason are none of summaries."""
    tallies = Tallies()
    for chosen in selection.of(source, refusals):
        tallies.add(chosen)
    for summary in selected(source, selection, refusals):
        tallies.add_summary(summary)
    return tallies


def selected(source: Source, selection: Selection, refusals: Refusals) -> Iterator[Summary]:
    """The summaries of the models, versions and times that pass."""
    for summary in summaries_of(source, refusals.add):
        if (
            (not selection.models or summary.model_name in selection.models)
            and (not selection.versions or summary.model_version in selection.versions)
            and (selection.since is None or summary.ends > selection.since)
            and (selection.until is None or summary.begins < selection.until)
        ):
            yield summary


def _stats(tallies: Tallies, key: tuple[str, str]) -> Iterator[str]:
    yield printable(" ".join(key))
    if tally := tallies.captures.get(key):
        yield f"  {counted(tally.count, 'capture')}, {tally.first.isoformat()[:19]}Z to {tally.last.isoformat()[:19]}Z"
        yield from _words("  devices", tally.devices.counts)
        yield from _words("  classes", tally.classes.counts)
        if tally.mean_confidence is not None:
            yield f"  confidence: mean {tally.mean_confidence:.2%}, below 50 %: {sum(tally.confidences[:10])}"
        if tally.latency.count:
            p50, p90, p99 = (tally.latency.at(share) for share in (0.5, 0.9, 0.99))
            yield f"  latency: p50 {p50:.3g} ms, p90 {p90:.3g} ms, p99 {p99:.3g} ms, most {tally.latency.most:.3g} ms"
        yield from _words("  kept for", tally.reasons.counts)
        yield from _words("  ended with", tally.statuses.counts)
    if summed := tallies.summaries.get(key):
        times = f"{summed.first.isoformat()[:19]}Z to {summed.last.isoformat()[:19]}Z"
        yield f"  {'1 summary' if summed.count == 1 else f'{summed.count} summaries'}, {times}"
        yield from _words("    calls", summed.calls.counts)
        yield from _words("    classes", summed.classes.counts)
        if summed.worst:
            yield "    latency in the slowest of them: " + ", ".join(f"{n} {v:.3g} ms" for n, v in summed.worst.items())


def _words(what: str, counts: Any, most: int = 20) -> Iterator[str]:
    if counts:
        shown = ", ".join(f"{word or '(none)'} {count}" for word, count in counts.most_common(most))
        yield printable(f"{what}: {shown}" + f" and {len(counts) - most} more" * (len(counts) > most), 2000)


def _stats_json(tallies: Tallies, key: tuple[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"model": key[0], "version": key[1]}
    if tally := tallies.captures.get(key):
        facts["captures"] = _tally_json(tally)
    if summed := tallies.summaries.get(key):
        facts["summaries"] = _summed_json(summed)
    return facts


def _tally_json(tally: Tally) -> dict[str, Any]:
    latency = tally.latency
    return {
        "count": tally.count,
        "first": tally.first.isoformat(),
        "last": tally.last.isoformat(),
        "devices": dict(tally.devices.counts),
        "classes": dict(tally.classes.counts),
        "reasons": dict(tally.reasons.counts),
        "statuses": dict(tally.statuses.counts),
        "mean_confidence": tally.mean_confidence,
        "confidence_histogram": tally.confidences,
        "milliseconds": {"p50": latency.at(0.5), "p90": latency.at(0.9), "p99": latency.at(0.99), "max": latency.most}
        if latency.count
        else None,
    }


def _summed_json(summed: SummaryTally) -> dict[str, Any]:
    return {
        "count": summed.count,
        "from": summed.first.isoformat(),
        "to": summed.last.isoformat(),
        "calls": dict(summed.calls.counts),
        "classes": dict(summed.classes.counts),
        "worst_milliseconds": summed.worst,
    }
