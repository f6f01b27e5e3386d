"""Bytes near good ones, made by chance; the same generator makes the same bytes."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 63, 1 << 70, 1e308, float("nan"), "", "\0", "\ud800", "x" * 5000, [], [[]], {}, {"a": {}},
)  # fmt: skip
_MANY = 300


def mutate(chance: Random, seeds: Sequence[bytes], tokens: Sequence[bytes], *, is_json: bool) -> bytes:
    """One of the seeds, changed in one place or a few."""
    seed = chance.choice(seeds)
    if is_json and chance.random() < 0.5:
        seed = _other_value(chance, seed)
    data = bytearray(seed)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 8)) if is_json else chance.choice((1, 1, 1, 2, 3, 8))):
        start = chance.randint(0, len(data))
        chance.choice(_CHANGES)(chance, data, start, _piece(chance, seeds, tokens))
    return bytes(data)


def _piece(chance: Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """What is put in: a token of the format, a part of a good input, or anything."""
    kind = chance.random()
    if kind < 0.5:
        return chance.choice(tokens)
    if kind < 0.75:
        other = chance.choice(seeds)
        begin = chance.randint(0, len(other))
        return other[begin : begin + chance.choice((1, 8, 64, 512, 4096))]
    return chance.randbytes(chance.choice((1, 2, 4, 8, 16)))


def _flip(chance: Random, data: bytearray, start: int, piece: bytes) -> None:
    if start < len(data):
        data[start] ^= 1 << chance.randrange(8)


def _put_in(chance: Random, data: bytearray, start: int, piece: bytes) -> None:
    data[start:start] = piece


def _overwrite(chance: Random, data: bytearray, start: int, piece: bytes) -> None:
    data[start : start + len(piece)] = piece


def _cut(chance: Random, data: bytearray, start: int, piece: bytes) -> None:
    del data[start : start + chance.choice((1, 4, 64, 512, len(data)))]


def _repeat(chance: Random, data: bytearray, start: int, piece: bytes) -> None:
    part = data[start : start + chance.choice((1, 8, 64, 512))]
    data[start:start] = part * chance.choice((1, 2, _MANY))


_CHANGES: tuple[Callable[[Random, bytearray, int, bytes], None], ...] = (_flip, _put_in, _overwrite, _cut, _repeat)


def _other_value(chance: Random, good: bytes) -> bytes:
    """A document with one value somewhere replaced, removed or added."""
    top: Any = json.loads(good)
    at = top
    while isinstance(at, dict | list) and at:
        key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if isinstance(at[key], dict | list) and chance.random() < 0.7:
            at = at[key]
            continue
        change = chance.randrange(3)
        if change == 0:
            del at[key]
        elif change == 1 and isinstance(at, dict):
            at[chance.choice(("", "a", key + "x"))] = chance.choice(_VALUES)
        else:
            at[key] = chance.choice(_VALUES)
        break
    return json.dumps(top).encode()


def smaller(data: bytes, fails: Callable[[bytes], bool], most: int = 2000) -> bytes:
    """A part of the data that fails as well, found in at most so many tries."""
    size = len(data)
    while size:
        at = 0
        while at < len(data):
            if not most:
                return data
            most -= 1
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data
