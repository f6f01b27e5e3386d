"""Tries out whether a session answers from inputs that it is lent as from copied ones: for the trial of a model."""

import ctypes
import mmap
from typing import Any

from edge.engine.engine import Session
from edge.engine.sample_inputs import repeated
from edge.tensors import READABLE_BEHIND_BYTES, Data, DType, Lent, TensorSpec


def borrows_well(session: Session, borrows: frozenset[int]) -> bool:
    """Whether a session answers the same from inputs that it is lent, in memory that nobody can write to, as from copied ones.

    For the trial of a model: where it does not, the process may end here.
    """
    if session.borrows != borrows:
        return False
    shapes = tuple(spec.shape for spec in session.inputs)
    for seed in (1, 2):
        copied: list[Data] = [
            _sample(spec, seed if position in borrows else 0) for position, spec in enumerate(session.inputs)
        ]
        lent = [_read_only(data) if position in borrows else data for position, data in enumerate(copied)]
        answers = [
            [bytes(memoryview(output)) for output in session.run(data, shapes)] for data in (copied, lent, copied)
        ]
        if answers[0] != answers[1] or answers[0] != answers[2]:
            return False
    return True


def _sample(spec: TensorSpec, seed: int) -> bytes:
    """Numbers for an input, others for each seed; with seed 0 zeros."""
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
