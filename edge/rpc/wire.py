"""The protobuf wire format, read without making anything of it (https://protobuf.dev/programming-guides/encoding). Pure.

A parser makes an object of every field, and two bytes may be a field: a message no larger than is allowed could take a
hundred times its size. So tags and lengths are counted first, in one pass that ends at the first bound.
"""

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

from edge.errors import RequestError

HARMLESS_BYTES = 4096  # a request no larger is parsed without a look: it cannot cost much
MAX_VALUES = 16_384  # of a request: fields, those of nested messages included, and numbers in lists
MAX_NUMBERS = 1 << 20  # bytes of typed contents in a request; each becomes a number of 8 bytes at most
MAX_TEXT_BYTES = 4096  # of a name, an id or a url in a request
LARGE_BYTES = 64 * 1024  # of a request; a parser copies smaller ones whole
HELD_BYTES = 256  # of such a request's contents that it does not copy: those it does are 4 MiB at most

_CONTENTS = "inference.InferTensorContents"  # its lists are tensors

_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10


def fields(raw: bytes, start: int, stop: int) -> Iterator[tuple[int, bool, int, int]]:
    """The fields of the message between two places: number, whether it has a length, begin and end of its content.

    Raises:
        ValueError: these bytes are no message, or one with groups, which nothing here has.
    """
    while start < stop:
        tag, start = _varint(raw, start, stop)
        kind = tag & 7
        if kind == _SIZED:
            size, start = _varint(raw, start, stop)
            end = start + size
        elif kind == _VARINT:
            _, end = _varint(raw, start, stop)
        else:
            end = start + _FIXED_BYTES.get(kind, stop)
        if end > stop:
            raise ValueError("a field reaches past the end")
        yield tag >> 3, kind == _SIZED, start, end
        start = end


def _varint(raw: bytes, start: int, stop: int) -> tuple[int, int]:
    number = 0
    for place in range(start, min(stop, start + _MAX_VARINT_BYTES)):
        byte = raw[place]
        number |= (byte & 0x7F) << 7 * (place - start)
        if byte < 0x80:
            return number, place + 1
    raise ValueError("a number without an end")


def check_cost(message: Any, raw: bytes) -> None:
    """Refuse a request that is dear to parse; `message` is the descriptor of what it should be.

    Raises:
        RequestError: it has too many values, or a text in it is too long.
        ValueError: it is no message.
    """
    if len(raw) > HARMLESS_BYTES:
        _Count(raw).message(message, 0, len(raw))


class _Count:
    """One pass over a request."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._values = self._numbers = 0

    def message(self, message: Any, start: int, stop: int) -> None:
        texts, lists, messages = _kinds(message)
        for number, sized, begin, end in fields(self._raw, start, stop):
            self._values += 1
            if sized and number in lists:
                self._list(message, end - begin)
            if self._values > MAX_VALUES:
                raise RequestError(
                    f"the request has more than {MAX_VALUES} fields and dimensions, the most that are allowed together"
                )
            if not sized:
                continue
            if number in texts and end - begin > MAX_TEXT_BYTES:
                raise RequestError(
                    f"{message.name}.{texts[number]} has {end - begin} bytes; at most {MAX_TEXT_BYTES} are allowed"
                )
            if number in messages:
                self.message(messages[number], begin, end)

    def _list(self, message: Any, size: int) -> None:
        """A list of numbers in so many bytes; each takes one or more."""
        if message.full_name != _CONTENTS:
            self._values += size
            return
        self._numbers += size
        if self._numbers > MAX_NUMBERS:
            raise RequestError(
                f"the request has more than {MAX_NUMBERS} bytes of typed contents; send larger tensors in raw_input_contents"
            )


class Contents:
    """The large contents of a request, which are not copied. A parser is given the rest of it (`rest`).

    In their places are words that a request cannot have, for nobody else knows them. So what the parser makes of fields that come
    twice, or of parts of a message that are apart, is made of them as well.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._view = memoryview(raw)
        self._held: dict[bytes, slice] = {}
        self._taken: dict[int, tuple[memoryview, slice]] = {}

    def rest(self, message: Any) -> bytes:
        """The request without what is large in it; `message` is its descriptor.

        Raises:
            ValueError: it is no message.
        """
        return self._rest(message, 0, len(self._raw)) if len(self._raw) > LARGE_BYTES else self._raw

    def take(self, data: bytes) -> bytes | memoryview:
        """What the parser found as `data`."""
        place = self._held.get(data)
        if place is None:
            return data
        view = self._view[place]
        self._taken[id(view)] = view, place
        return view

    def place(self, data: object) -> slice | None:
        """Where in the request something lies that was taken; None where the parser has copied it."""
        known = self._taken.get(id(data))
        return known[1] if known is not None else None

    def _rest(self, message: Any, start: int, stop: int) -> bytes:
        raw, parts, kept, at = self._raw, list[bytes](), start, start
        *_, messages = _kinds(message)
        known = message.fields_by_number
        for number, sized, begin, end in fields(raw, start, stop):
            if (
                sized
                and end - begin > HELD_BYTES
                and (number not in known or _is_bytes(known[number]) or number in messages)
            ):
                parts.append(raw[kept:at])
                kept = end
                if number in messages:
                    parts.append(_field(number, self._rest(messages[number], begin, end)))
                elif number in known:
                    word = _SECRET + len(self._held).to_bytes(4)
                    self._held[word] = slice(begin, end)
                    parts.append(_field(number, word))
            at = end
        return b"".join((*parts, raw[kept:stop]))


_SECRET = os.urandom(16)


def _is_bytes(field: Any) -> bool:
    return bool(field.type == field.TYPE_BYTES)


def _field(number: int, content: bytes) -> bytes:
    """A field that has a length."""
    return varint(number << 3 | _SIZED) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """A number as the wire has it."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


@cache
def _kinds(message: Any) -> tuple[dict[int, str], frozenset[int], dict[int, Any]]:
    """Of a kind of message the texts with their names, the lists of numbers, and the messages, by their numbers."""
    texts = {field.number: field.name for field in message.fields if field.type == field.TYPE_STRING}
    messages = {field.number: field.message_type for field in message.fields if field.message_type is not None}
    lists = {field.number for field in message.fields if field.is_packed}
    return texts, frozenset(lists), messages
