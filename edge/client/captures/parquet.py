"""Captures as Parquet, by pyarrow where it is installed: a row a capture, a list column for each tensor."""

import json
from typing import Any, BinaryIO

from edge.client.captures.rows import check_same, tensors_of
from edge.client.captures.selection import Chosen
from edge.text import is_unicode, printable

GROUP_ROWS = 1000
GROUP_BYTES = 16 << 20


class ParquetWriter:
    """A `Writer`. `arrow` and `parquet` are pyarrow's modules. A tensor's shape is in the metadata of its column."""

    def __init__(self, file: BinaryIO, arrow: Any, parquet: Any) -> None:
        self._file, self._arrow, self._parquet = file, arrow, parquet
        self._writer: Any = None
        self._schema: Any = None
        self._known: dict[str, tuple[Any, tuple[int, ...]]] = {}
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, chosen: Chosen) -> None:
        """As `Writer`; a tensor that a capture does not have is null."""
        tensors, capture, said = tensors_of(chosen.capture), chosen.capture, chosen.prediction
        if self._writer is None:
            self._begin(tensors)
        made: dict[str, Any] = {
            "id": _text(capture.capture_id),
            "time": capture.time,
            "device": _text(capture.device),
            "fleet": _text(capture.fleet),
            "model": _text(capture.model_name),
            "version": _text(capture.model_version),
            "class": said.index if said is not None else None,
            "label": _text(chosen.label),
            "confidence": said.confidence if said is not None else None,
            "reasons": [_text(reason) for reason in capture.reasons],
            "milliseconds": capture.milliseconds,
            "status": _text(capture.status),
        }
        for name, known in self._known.items():
            entry = tensors.get(name)
            if entry is not None:
                check_same(name, entry, known)
                array = entry.array()
                self._bytes += array.nbytes
                made[name] = array.reshape(-1)
        self._rows.append(made)
        if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _begin(self, tensors: dict[str, Any]) -> None:
        pa = self._arrow
        texts = [pa.field(name, pa.string()) for name in ("device", "fleet", "model", "version", "label", "status")]
        fields = [
            pa.field("id", pa.string()),
            pa.field("time", pa.timestamp("ms", "UTC")),
            pa.field("class", pa.int64()),
            pa.field("confidence", pa.float64()),
            pa.field("reasons", pa.list_(pa.string())),
            pa.field("milliseconds", pa.float64()),
            *texts,
        ]
        for name, entry in tensors.items():
            kind = pa.from_numpy_dtype(entry.array().dtype.newbyteorder("="))
            shape = {"shape": json.dumps(entry.shape)}
            fields.append(pa.field(_text(name), pa.list_(kind), metadata=shape))
            self._known[name] = (entry.dtype, entry.shape)
        self._schema = pa.schema(fields)
        self._writer = self._parquet.ParquetWriter(self._file, self._schema)

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = []
        for field in self._schema:
            columns.append(self._arrow.array([one.get(field.name) for one in self._rows], field.type))
        self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))
        self._rows, self._bytes = [], 0

    def finish(self) -> None:
        """As `Writer`."""
        self._flush()
        self._writer.close()

    def close(self) -> None:
        """Nothing is left open that matters."""


def _text(words: str) -> str:
    return words if is_unicode(words) else printable(words, len(words) * 10)
