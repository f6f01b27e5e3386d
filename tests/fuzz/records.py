"""Record files and summaries, as whoever may write to a bucket makes them: read, counted and made a page."""

import contextlib
import io
import json
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from edge.client.captures.gallery import Gallery
from edge.client.captures.pictures import picture_entry, picture_of, png
from edge.client.captures.records import RecordError
from edge.client.captures.report import page_of
from edge.client.captures.rows import row
from edge.client.captures.selection import Refusals, Selection
from edge.client.captures.summaries import summaries_of
from edge.client.captures.tallies import Tallies
from tests.fakes.written import entry, record, summary

TOKENS = (
    b"Tensor[FLOAT32; 1, 1]",
    b"Tensor[UINT8; 99999999999]",
    b"data-ref",
    b"raw-data/input-tensors/..",
    b"\\ud800",
    b"NaN",
    b"1e999",
)


class Bytes:
    """A source of one file; every large entry has four bytes."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name = data, name

    def files(self) -> Iterator[str]:
        yield f"f/m/2026/01/31/12/{self._name}"

    def open(self, _: str) -> contextlib.AbstractContextManager[BinaryIO]:
        return contextlib.closing(io.BytesIO(self._data))

    def raw(self, _: str) -> bytes:
        return bytes(4)


def seeds() -> tuple[bytes, ...]:
    """Good ones."""
    large = record("large") | {
        "deviceFleetInputs": [entry("x", np.zeros(4, np.uint8), "Input", "s3://b/raw-data/input-tensors/x")]
    }
    kept = record("kept", captureReason=["margin_below"], inferenceMilliseconds=0.5, status="OK")
    return tuple(json.dumps(one).encode() for one in (record("plain"), large, kept, summary()))


def check(data: bytes) -> None:
    """Nothing but refusals, and a page that is text."""
    refusals, tallies, gallery = Refusals(quiet=True), Tallies(), Gallery(5)
    for chosen in Selection().of(Bytes(data, "a.jsonl"), refusals):
        tallies.add(chosen)
        gallery.add(chosen, refusals)
        assert all(cell.isascii() or cell.encode("utf-8") for cell in row(chosen))
        picture = picture_entry(chosen.capture)
        if picture is not None:
            with contextlib.suppress(RecordError):
                png(picture_of(picture.array(), 32))
    for one in summaries_of(Bytes(data, "summary-a.jsonl"), refusals.add):
        tallies.add_summary(one)
    galleries = dict.fromkeys(tallies.models(), gallery)
    page = page_of("fuzz", tallies, galleries, refusals)
    page.encode("utf-8")
    assert "<script" not in page
