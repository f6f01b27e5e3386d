"""JSON from strangers: bounded, no repeated keys, no constants that JSON has not. Pure."""

import json
from typing import Any, NoReturn


def loads(data: bytes, *, max_bytes: int) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: in words, what is wrong with it.
    """
    if len(data) > max_bytes:
        raise ValueError(f"it has {len(data)} bytes; at most {max_bytes} are allowed")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a key stands twice in it")
    return seen


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
