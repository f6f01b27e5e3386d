"""JSON as signed files and configurations must have it: one meaning for every reader. Pure.

RFC 8259 lets parsers differ over repeated keys, NaN and lone surrogates; here each of them is refused.
"""

import json
from collections.abc import Collection
from typing import Any, NoReturn

from edge import json_faults
from edge.tensors import MAX_DIMENSION, MAX_RANK
from edge.text import is_unicode, shown


class JsonFault(Exception):
    """What is wrong with the text, in words that follow the name of the file."""


def parse_object(data: bytes, *, max_bytes: int, max_marks: int | None = None) -> dict[str, Any]:
    """The JSON object that `data` is.

    Args:
        data: the text.
        max_bytes: the most that is looked at.
        max_marks: the most commas, colons, brackets and braces. A value costs one at least, and many times its size in
            memory: so it is bounded before any is made.

    Raises:
        JsonFault: over a bound, not UTF-8, not JSON, nested too deep, a repeated key, or not an object.
    """
    if len(data) > max_bytes:
        raise JsonFault(f"is larger than {max_bytes} bytes")
    if max_marks is not None and sum(map(data.count, b",:[{")) > max_marks:
        raise JsonFault(f"has too many values: more than {max_marks} of , : [ and {{")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise JsonFault(f"is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise JsonFault("is nested too deep") from error
    except json.JSONDecodeError as error:
        raise JsonFault(f"is not JSON: {json_faults.explain(error)}") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise JsonFault("has a number that is too long") from error
    if not isinstance(value, dict):
        raise JsonFault(f"must be a JSON object, not {kind(value)}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise JsonFault(f"has the key {shown(name)} twice")
            seen.add(name)
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise JsonFault(f"has {name}, which is not JSON")


def check_keys(value: dict[str, Any], where: str, *, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Exactly the keys that may be there.

    Raises:
        JsonFault: one is missing, or one is unknown.
    """
    for key in required:
        if key not in value:
            raise JsonFault(f"lacks {_path(where, key)}")
    for key in value:
        if key not in required and key not in optional:
            known = ", ".join(sorted((*required, *optional)))
            raise JsonFault(f"has the unknown key {shown(_path(where, key))}; known: {known}")


def text(value: object, where: str) -> str:
    """A string that is text: no lone surrogates, no NUL.

    Raises:
        JsonFault: it is something else.
    """
    if not isinstance(value, str):
        raise JsonFault(f"{where} must be text, not {kind(value)}")
    if "\0" in value or not is_unicode(value):
        raise JsonFault(f"{where} has characters that are not text")
    return value


def table(value: object, where: str) -> dict[str, Any]:
    """An object.

    Raises:
        JsonFault: it is something else.
    """
    if not isinstance(value, dict):
        raise JsonFault(f"{where} must be an object, not {kind(value)}")
    return value


def array(value: object, where: str, *, most: int) -> list[Any]:
    """A list of at most `most` items.

    Raises:
        JsonFault: it is something else, or longer.
    """
    if not isinstance(value, list):
        raise JsonFault(f"{where} must be a list, not {kind(value)}")
    if len(value) > most:
        raise JsonFault(f"{where} has {len(value)} items; at most {most} are allowed")
    return value


def sizes(value: object, where: str) -> tuple[int, ...]:
    """A list of whole numbers that is a tensor's shape.

    Raises:
        JsonFault: it is something else.
    """
    shape = array(value, where, most=MAX_RANK)
    for size in shape:
        if type(size) is not int or not 0 <= size <= MAX_DIMENSION:
            raise JsonFault(f"{where} must be whole numbers from 0 to {MAX_DIMENSION}, got {shown(str(size))}")
    return tuple(shape)


def kind(value: object) -> str:
    """What a JSON value is, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
