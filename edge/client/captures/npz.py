"""Captures as an .npz of numpy: an array for each tensor, a capture a row. Memory does not grow with the captures.

The members are written to temporary files first: a .npy begins with its shape, which is known at the end.
"""

import contextlib
import math
import tempfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edge.client.captures.records import Entry, RecordError
from edge.client.captures.rows import check_same, file_word, tensors_of
from edge.client.captures.selection import Chosen
from edge.text import shown

MAX_MEMBERS = 256
MAX_ID_CHARACTERS = 256
_COPY_BYTES = 1 << 20
_NO_CLASS = -1


class _Column:
    """Rows of one dtype and shape, in a temporary file."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.dtype, self.shape, self.count = dtype, shape, 0
        self.file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by NpzWriter

    def add(self, data: Any) -> None:
        self.file.write(np.asarray(data, self.dtype).tobytes())
        self.count += 1

    def copy_to(self, member: Any) -> None:
        # Rows that are batches of one are joined, others are stacked.
        rows = self.shape[1:] if self.shape[:1] == (1,) else self.shape
        head = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *rows)}
        np.lib.format.write_array_header_1_0(member, head)  # type: ignore[no-untyped-call]
        self.file.seek(0)
        while chunk := self.file.read(_COPY_BYTES):
            member.write(chunk)


class NpzWriter:
    """A `Writer`. Members: `input.NAME`, `output.NAME`; `id`, `time`, `class` (-1: none), `confidence` (nan: not known)."""

    def __init__(self, file: BinaryIO, folder: Path) -> None:
        self._file, self._folder = file, folder
        self._tensors: dict[str, tuple[Entry, _Column]] = {}
        self._facts: dict[str, _Column] = {}
        self._close = contextlib.ExitStack()

    def add(self, chosen: Chosen) -> None:
        """As `Writer`."""
        tensors = tensors_of(chosen.capture)
        if not self._facts:
            self._begin(tensors)
        if set(tensors) != set(self._tensors):
            different = min(set(tensors) ^ set(self._tensors))
            raise RecordError(
                f"{shown(different)}: expected the same tensors as in the first, {', '.join(self._tensors)[:200]}"
            )
        for name, (first, _) in self._tensors.items():
            check_same(name, tensors[name], (first.dtype, first.shape))
        arrays = {name: entry.array() for name, entry in tensors.items()}
        for name, array in arrays.items():
            self._tensors[name][1].add(array)
        said = chosen.prediction
        self._facts["id"].add(np.asarray(chosen.capture.capture_id[:MAX_ID_CHARACTERS]))
        self._facts["time"].add(np.datetime64(chosen.capture.time.replace(tzinfo=None), "ms"))
        self._facts["class"].add(said.index if said is not None else _NO_CLASS)
        sure = said.confidence if said is not None else None
        self._facts["confidence"].add(math.nan if sure is None else sure)

    def _begin(self, tensors: dict[str, Entry]) -> None:
        if len(tensors) > MAX_MEMBERS:
            raise RecordError(f"it has {len(tensors)} tensors; at most {MAX_MEMBERS} become arrays")
        self._tensors = {
            name: (entry, self._column(entry.array().dtype, entry.shape)) for name, entry in tensors.items()
        }
        facts = {"id": f"<U{MAX_ID_CHARACTERS}", "time": "<M8[ms]", "class": "<i8", "confidence": "<f8"}
        self._facts = {name: self._column(np.dtype(dtype), ()) for name, dtype in facts.items()}

    def _column(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> _Column:
        made = _Column(self._folder, dtype, shape)
        self._close.callback(made.file.close)
        return made

    def finish(self) -> None:
        """As `Writer`."""
        columns = list(self._facts.items())
        for name, (_, column) in self._tensors.items():
            kind, _, own = name.partition(".")
            plain = f"{kind}.{file_word(own)}"
            taken = {known for known, _ in columns}
            columns.append((plain if plain not in taken else f"{plain}-{len(columns)}", column))
        with zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, column in columns:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    column.copy_to(member)

    def close(self) -> None:
        """Let the temporary files go."""
        self._close.close()
