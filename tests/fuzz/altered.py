"""A good message with one value in it changed, wherever it lies; the same generator changes the same."""

from random import Random
from typing import Any

from google.protobuf.message import Message

_TEXTS = ("", "x", "y", "FP32", "FP16", "INT8", "BYTES", "1.0", "2", "region", "\0", "a" * 300, "ümlaut", "../x", "/")
_NUMBERS = (0, 1, 2, 3, 4, 15, 16, 17, 64, 65, 256, 1 << 31, (1 << 63) - 1, (1 << 64) - 1, -1, -(1 << 63))
_BYTES = (0, 1, 3, 4, 15, 16, 17, 32, 48, 64, 4096)


def altered(chance: Random, message: Any) -> None:
    """Change one value, take one away, or put one in twice.

    Args:
        message: a message, which is changed in place
    """
    fields = [field for field, _ in message.ListFields()]
    if not fields or chance.random() < 0.2:
        if message.DESCRIPTOR.fields:
            _set(chance, message, chance.choice(message.DESCRIPTOR.fields))
        return
    field = chance.choice(fields)
    if chance.random() < 0.1:
        message.ClearField(field.name)
        return
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        altered(chance, value[chance.choice(sorted(value))])
    elif field.is_repeated:
        _alter_list(chance, field, value)
    elif isinstance(value, Message):
        altered(chance, value)
    else:
        _set(chance, message, field)


def _alter_list(chance: Random, field: Any, values: Any) -> None:
    """Change an item, take it away, or put it in again at the end."""
    which = chance.randrange(len(values))
    kind = chance.random()
    if kind < 0.15:
        del values[which]
    elif kind < 0.3:
        values.append(values[which])
    elif isinstance(values[which], Message):
        altered(chance, values[which])
    else:
        values[which] = _within(field, _like(chance, values[which]))


def _set(chance: Random, message: Any, field: Any) -> None:
    """Give a field another value; one of messages gets an empty one."""
    if field.message_type is not None:
        if not field.message_type.GetOptions().map_entry:
            (getattr(message, field.name).add if field.is_repeated else getattr(message, field.name).SetInParent)()
    elif field.is_repeated:
        for value in _NUMBERS[: chance.randrange(6)]:
            getattr(message, field.name).append(_as(field, value))
    else:
        setattr(message, field.name, _within(field, _like(chance, getattr(message, field.name))))


def _as(field: Any, number: int) -> Any:
    """A small number as a value of a field."""
    if field.type == field.TYPE_STRING:
        return str(number)
    return bytes(number) if field.type == field.TYPE_BYTES else number


def _like(chance: Random, value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return chance.choice(_TEXTS)
    if isinstance(value, bytes):
        return chance.randbytes(chance.choice(_BYTES))
    if isinstance(value, float):
        return chance.choice((0.0, -1.5, float("inf"), float("nan"), 1e300))
    return chance.choice(_NUMBERS)


def _within(field: Any, value: Any) -> Any:
    """The value, or 1 where the field's type cannot hold it."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    signed = field.type in (field.TYPE_INT32, field.TYPE_INT64)
    bits = 32 if field.type in (field.TYPE_INT32, field.TYPE_UINT32, field.TYPE_ENUM) else 64
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return value if low <= value <= high else 1
