"""A report's memory is that of what it shows, however many records there are (V-6).

REPORT_RECORDS sets their number.
"""

import dataclasses
import json
import os
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np

from edge.client import captures, main
from edge.client.captures.gallery import MAX_WAITING_BYTES, Gallery
from edge.client.captures.records import parse
from edge.client.captures.report import page_of
from edge.client.captures.selection import Chosen, Refusals
from edge.client.captures.tallies import Tallies
from tests.fakes.written import record, write

RECORDS = int(os.environ.get("REPORT_RECORDS", "5000"))
MIB = 1 << 20


def many(count: int) -> Iterator[Chosen]:
    """Captures that become newer and less sure, each with 4 KB of metadata, an input and a second one that is not shown."""
    one = record("c", confidence=0.9, captureReason=["every_nth"])
    one["deviceFleetInputs"] *= 2
    line = json.dumps(one).encode()
    capture = parse(line, "a.jsonl", lambda _: b"")
    said = captures.prediction(capture)
    assert said is not None and said.confidence is not None
    for number in range(count):
        metadata = {"note": "x" * 4000, "number": number}
        changes = {"capture_id": f"c{number}", "time": capture.time + timedelta(seconds=number), "metadata": metadata}
        sure = dataclasses.replace(said, confidence=1.0 - number / count)
        entries = parse(line, "a.jsonl", lambda _: b"").entries if number % 50 == 0 else capture.entries
        yield Chosen(dataclasses.replace(capture, entries=entries, **changes), sure, str(number % 10))


def peak_of(count: int) -> tuple[int, str]:
    """The bytes that a page of so many takes at the most, and the page."""
    refusals, tallies, gallery = Refusals(quiet=True), Tallies(), Gallery(60)
    tracemalloc.start()
    try:
        for chosen in many(count):
            tallies.add(chosen)
            gallery.add(chosen, refusals)
        html = page_of("here", tallies, dict.fromkeys(tallies.models(), gallery), refusals)
        return tracemalloc.get_traced_memory()[1], html
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_records() -> None:  # [V-6]
    few, _ = peak_of(500)
    most, html = peak_of(RECORDS)
    assert most < few + MIB // 2 and most < 3 * MIB  # the records' metadata alone has 4 KB each
    assert html.count("data:image/png") == 72
    assert f"input of c{RECORDS - 1}" in html and "xxxx" not in html


def test_what_waits_for_its_picture_is_no_more_than_that(tmp_path: Path) -> None:  # [V-6]
    """Of large inputs the picture is drawn at once, and of all others in a record nothing is kept."""
    side = 200
    assert side * side * 3 > MAX_WAITING_BYTES
    picture = np.zeros((1, side, side, 3), np.uint8)
    write(tmp_path, *[record(f"c{n}", n % 10, picture=picture, note="y" * 100_000) for n in range(80)])
    target = tmp_path / "r.html"
    tracemalloc.start()
    try:
        assert main.main(["captures", "report", str(tmp_path), "--html", str(target)]) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert target.read_text().count("data:image/png") == 72
    assert peak < 6 * MIB  # 72 of these inputs have 8 MiB, their notes 7
