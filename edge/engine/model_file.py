"""Whether a TensorFlow Lite model file holds together: every offset in it leads to a place inside it. Pure.

The engine follows the offsets of the FlatBuffer without looking, so that a damaged file makes it read anywhere: a crash in
one process and luck in another. Here the tables of the public schema (tensorflow/lite/schema/schema.fbs, version 3) are
walked once and each table, vector and string is held to the file's bounds and to the format's alignment. What the values
mean is the engine's own matter, and the trial's (`edge.engine.probe`).
"""

import struct
from typing import Final, NamedTuple

from edge.errors import ModelRefusedError

IDENTIFIER: Final = b"TFL3"
MAX_STEPS: Final = 1_000_000  # tables, vectors and strings visited; a damaged file can name one place many times over
_UOFFSET, _SOFFSET, _VOFFSET = struct.Struct("<I"), struct.Struct("<i"), struct.Struct("<H")


class Scalar(NamedTuple):
    """A number of `size` bytes."""

    size: int


class Vector(NamedTuple):
    """Numbers of `size` bytes each."""

    size: int


class Text(NamedTuple):
    """A string, with its terminating zero."""


class Table(NamedTuple):
    """A table of a known kind."""

    kind: str


class Tables(NamedTuple):
    """A vector of tables of a known kind."""

    kind: str


class Union(NamedTuple):
    """A table whose kind the number in field `selector` says; one not in `kinds` holds numbers only."""

    selector: int
    kinds: tuple[tuple[int, str], ...] = ()


Field = Scalar | Vector | Text | Table | Tables | Union
_BYTE, _INT, _LONG, _INTS, _BYTES = Scalar(1), Scalar(4), Scalar(8), Vector(4), Vector(1)
# Of the operators' options only these two, of those that models in use have, hold more than numbers.
_OPTIONS = ((17, "ReshapeOptions"), (30, "SqueezeOptions"))
_INDEX_VECTORS = ((1, "Int32Vector"), (2, "Uint16Vector"), (3, "Uint8Vector"))

# Fields by their number in the schema.
SCHEMA: Final[dict[str, dict[int, Field]]] = {
    "Model": {
        0: _INT, 1: Tables("OperatorCode"), 2: Tables("SubGraph"), 3: Text(), 4: Tables("Buffer"), 5: _INTS,
        6: Tables("Metadata"), 7: Tables("SignatureDef"),
    },
    "OperatorCode": {0: _BYTE, 1: Text(), 2: _INT, 3: _INT},
    "SubGraph": {0: Tables("Tensor"), 1: _INTS, 2: _INTS, 3: Tables("Operator"), 4: Text(), 5: _INT},
    "Tensor": {
        0: _INTS, 1: _BYTE, 2: _INT, 3: Text(), 4: Table("Quantization"), 5: _BYTE, 6: Table("Sparsity"), 7: _INTS,
        8: _BYTE, 9: Tables("VariantSubType"),
    },
    "VariantSubType": {0: _INTS, 1: _BYTE, 2: _BYTE},
    "Quantization": {0: _INTS, 1: _INTS, 2: _INTS, 3: Vector(8), 4: _BYTE, 5: Union(4), 6: _INT},
    "Sparsity": {0: _INTS, 1: _INTS, 2: Tables("DimensionMetadata")},
    "DimensionMetadata": {
        0: _BYTE, 1: _INT, 2: _BYTE, 3: Union(2, _INDEX_VECTORS), 4: _BYTE, 5: Union(4, _INDEX_VECTORS),
    },
    "Int32Vector": {0: _INTS},
    "Uint16Vector": {0: Vector(2)},
    "Uint8Vector": {0: _BYTES},
    "Operator": {
        0: _INT, 1: _INTS, 2: _INTS, 3: _BYTE, 4: Union(3, _OPTIONS), 5: _BYTES, 6: _BYTE, 7: _BYTES, 8: _INTS,
        9: _LONG, 10: _LONG, 11: _BYTE, 12: Union(11), 13: _INT,
    },
    "ReshapeOptions": {0: _INTS},
    "SqueezeOptions": {0: _INTS},
    "Buffer": {0: _BYTES, 1: _LONG, 2: _LONG},
    "Metadata": {0: Text(), 1: _INT},
    "SignatureDef": {0: Tables("TensorMap"), 1: Tables("TensorMap"), 2: Text(), 3: Text(), 4: _INT},
    "TensorMap": {0: Text(), 1: _INT},
}  # fmt: skip


def check_model_file(data: memoryview) -> None:
    """Check the bytes of a model file.

    Raises:
        ModelRefusedError: it is no TensorFlow Lite model, or something in it leads outside (L-7).
    """
    if len(data) < 8 or bytes(data[4:8]) != IDENTIFIER:
        raise ModelRefusedError("the runtime refuses the model file: it is not a TensorFlow Lite model")
    try:
        _Walk(data).table(_UOFFSET.unpack_from(data, 0)[0], "Model")
    except (struct.error, _DamageError) as damage:
        reason = str(damage) if isinstance(damage, _DamageError) else "an offset points outside the file"
        raise ModelRefusedError(f"the runtime refuses the model file: it is damaged ({reason})") from None


def vtable_of(data: memoryview, at: int) -> tuple[int, ...]:
    """Where in a table its fields lie, by their number; 0 for one that is not there. Of a table that has been checked."""
    vtable = at - _SOFFSET.unpack_from(data, at)[0]
    size = struct.unpack_from("<H", data, vtable)[0]
    return struct.unpack_from(f"<{(size - 4) // 2}H", data, vtable + 4)


class _DamageError(Exception):
    """Where the file does not hold together."""


class _Walk:
    """One pass over the file; positions are in bytes from its start."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._size = len(data)
        self._steps = 0

    def table(self, at: int, kind: str) -> None:
        """A table, and everything that it leads to."""
        offsets, length = self._vtable(at, kind)
        fields = SCHEMA.get(kind, {})
        for number, offset in enumerate(offsets):
            if not offset:
                continue
            field = fields.get(number)
            size = field.size if isinstance(field, Scalar) else 4 if field is not None else 1
            if offset + size > length:
                raise _DamageError(f"a field of {kind} lies outside its table")
            if field is not None and not isinstance(field, Scalar):
                self._follow(at, offset, field, offsets)

    def _vtable(self, at: int, kind: str) -> tuple[tuple[int, ...], int]:
        """Where in a table its fields lie, and the table's length."""
        self._step()
        if at % 4 or not 0 < at <= self._size - 4:
            raise _DamageError(f"{kind} lies outside")
        vtable = at - _SOFFSET.unpack_from(self._data, at)[0]
        if vtable % 2 or not 0 <= vtable <= self._size - 4:
            raise _DamageError(f"the vtable of {kind} lies outside")
        size, length = struct.unpack_from("<HH", self._data, vtable)
        if size < 4 or size % 2 or vtable + size > self._size or length < 4 or at + length > self._size:
            raise _DamageError(f"the vtable of {kind} is malformed")
        return vtable_of(self._data, at), length

    def _follow(self, table: int, offset: int, field: Field, offsets: tuple[int, ...]) -> None:
        at = table + offset
        target = at + _UOFFSET.unpack_from(self._data, at)[0]
        if isinstance(field, Table):
            self.table(target, field.kind)
        elif isinstance(field, Union):
            place = offsets[field.selector] if field.selector < len(offsets) else 0
            self.table(target, dict(field.kinds).get(self._data[table + place] if place else 0, "options"))
        elif isinstance(field, Tables):
            start, count = self._vector(target, 4)
            for position in range(start, start + 4 * count, 4):
                self.table(position + _UOFFSET.unpack_from(self._data, position)[0], field.kind)
        else:
            text = isinstance(field, Text)
            start, count = self._vector(target, field.size if isinstance(field, Vector) else 1)
            if text and (start + count >= self._size or self._data[start + count]):
                raise _DamageError("a string is not terminated")

    def _vector(self, at: int, size: int) -> tuple[int, int]:
        """Where the elements of a vector start, and how many there are."""
        self._step()
        if at % 4 or at > self._size - 4:
            raise _DamageError("a vector lies outside the file")
        count = _UOFFSET.unpack_from(self._data, at)[0]
        if count * size > self._size - at - 4:
            raise _DamageError("a vector ends outside")
        return at + 4, count

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _DamageError("it names the same places too often")
