"""Captures as rows: what is known of each, and its small tensors, a column for each element."""

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Any, BinaryIO

from edge.capture.record import INPUT_TENSOR
from edge.client.captures.records import Capture, Entry, RecordError
from edge.client.captures.selection import Chosen
from edge.tensors import shape_text
from edge.text import is_unicode, printable, shown

HEAD = ["id", "time", "device", "fleet", "model", "version", "class", "label", "confidence", "reasons", "milliseconds", "status"]  # fmt: skip
MAX_ELEMENTS = 64  # of a tensor that has columns; larger ones are left out
_FORMULA = re.compile(r"[=+\-@\t\r]")  # what a spreadsheet would take for one at the begin of a cell
_FILE_CHARACTERS = 100


def row(chosen: Chosen) -> list[str]:
    """The cells below `HEAD`."""
    capture, said = chosen.capture, chosen.prediction
    sure = said.confidence if said is not None else None
    return [
        cell(capture.capture_id),
        capture.time.isoformat().replace("+00:00", "Z"),
        cell(capture.device),
        cell(capture.fleet),
        cell(capture.model_name),
        cell(capture.model_version),
        str(said.index) if said is not None else "",
        cell(chosen.label),
        repr(sure) if sure is not None else "",
        cell(" ".join(capture.reasons)),
        repr(capture.milliseconds) if capture.milliseconds is not None else "",
        cell(capture.status),
    ]


def cell(text: str) -> str:
    """Words of any origin, so that no spreadsheet runs them: they would be formulas."""
    made = text if is_unicode(text) and "\0" not in text else printable(text, len(text) * 10)
    return "'" + made if _FORMULA.match(made) else made


def file_word(text: str) -> str:
    """Words of any origin as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]|(?<!\w)\.|\.$", "_", text)[:_FILE_CHARACTERS] or "_"


def column(entry: Entry) -> str:
    """A tensor's own name: input.NAME or output.NAME."""
    return ("input." if entry.part == INPUT_TENSOR else "output.") + entry.name


def tensors_of(capture: Capture) -> dict[str, Entry]:
    """The tensors of a capture by column."""
    return {column(entry): entry for entry in capture.entries if entry.dtype is not None}


def check_same(name: str, entry: Entry, known: tuple[Any, tuple[int, ...]]) -> None:
    """Raises:
    RecordError: a tensor has another dtype or shape than the first capture's of that name.
    """
    if (entry.dtype, entry.shape) != known:
        got = f"{entry.dtype.name if entry.dtype is not None else ''} {shape_text(entry.shape)}"
        raise RecordError(f"{shown(name)}: got {got}, expected {known[0].name} {shape_text(known[1])} as in the first")


class CsvWriter:
    """Rows as RFC 4180 has them, in UTF-8."""

    def __init__(self, file: BinaryIO, head: Sequence[str]) -> None:
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text)
        self._file = file
        self.write([cell(name) for name in head])

    def write(self, cells: Sequence[str]) -> None:
        """Write a row."""
        self._writer.writerow(cells)
        self._file.write(self._text.getvalue().encode("utf-8"))
        self._text.seek(0)
        self._text.truncate()


class TableWriter:
    """A `Writer` of CSV; the first capture says which tensors have columns."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows: CsvWriter | None = None
        self._known: dict[str, tuple[Any, tuple[int, ...]]] = {}

    def add(self, chosen: Chosen) -> None:
        """As `Writer`; a tensor that a capture does not have leaves its cells empty."""
        tensors = tensors_of(chosen.capture)
        if self._rows is None:
            small = {name: one for name, one in tensors.items() if 0 < math.prod(one.shape) <= MAX_ELEMENTS}
            self._known = {name: (one.dtype, one.shape) for name, one in small.items()}
            heads = [f"{name}[{n}]" for name, one in small.items() for n in range(math.prod(one.shape))]
            self._rows = CsvWriter(self._file, HEAD + heads)
        cells = row(chosen)
        for name, known in self._known.items():
            if (entry := tensors.get(name)) is None:
                cells += [""] * math.prod(known[1])
                continue
            check_same(name, entry, known)
            cells += [repr(value) for value in entry.array().reshape(-1).tolist()]
        self._rows.write(cells)

    def finish(self) -> None:
        """As `Writer`."""

    def close(self) -> None:
        """Nothing is open."""
