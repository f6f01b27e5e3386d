"""Tries out whether a session answers from inputs that it is lent as from copied ones: for the trial of a model."""

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

from edge.engine.engine import Output, Session
from edge.engine.sample_inputs import repeated
from edge.tensors import READABLE_BEHIND_BYTES, Data, DType, Lent, TensorSpec


def borrows_well(session: Session, data: Sequence[Data], outputs: Sequence[Output]) -> bool:
    """Whether a session answers the same from inputs that it is lent, in memory that nobody can write to, as from copied ones.

    It ran last on `data`, and gave these `outputs`. For the trial of a model: where it does not, the process may end here.

    Raises:
        InferenceError: it fails on other values.
        OSError: there is no such memory.
    """
    shapes = tuple(spec.shape for spec in session.inputs)
    others: list[Data] = [
        _other_than(one, spec) if position in session.borrows else one
        for position, (one, spec) in enumerate(zip(data, session.inputs, strict=True))
    ]
    lent = [_read_only(one) if position in session.borrows else one for position, one in enumerate(others)]
    # By turns: each answer would be that of the one before where the engine did not look at other memory.
    first = _bytes_of(outputs)
    second, third, fourth = (_bytes_of(session.run(one, shapes)) for one in (lent, data, others))
    return first == third and second == fourth


def _bytes_of(outputs: Sequence[Output]) -> list[bytes]:
    return [bytes(memoryview(output)) for output in outputs]


def _other_than(data: Data, spec: TensorSpec) -> bytes:
    """Numbers for an input, others than these."""
    one = _numbers(spec, 1)
    return one if one != data else _numbers(spec, 2)


def _numbers(spec: TensorSpec, seed: int) -> bytes:
    numbers = [at * seed % 97 for at in range(97)]  # whole numbers that any dtype can hold
    if spec.dtype is DType.BOOL or spec.dtype.name.startswith("FLOAT"):
        return repeated(spec.dtype, spec.shape, [number / 97 for number in numbers])
    return repeated(spec.dtype, spec.shape, numbers)


def _read_only(data: Any) -> Lent:
    """A copy in memory that can only be read. It is never given back."""
    memory = mmap.mmap(-1, len(data) + READABLE_BEHIND_BYTES)
    memory.write(data)
    array = (ctypes.c_ubyte * len(data)).from_buffer(memory)
    address = ctypes.addressof(array)
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(len(memory)), mmap.PROT_READ) != 0:
        raise OSError("memory cannot be made read-only")
    return Lent(memoryview(array).cast("B").toreadonly(), address)
