"""Lets an inference read an input where it lies, in a client's shared memory, instead of copying it into the engine first.

TensorFlow Lite's C++ interface has that (custom allocations); its Python bindings do not. But they take delegates, and the
preparation of a delegate is shown the interpreter's tensors: a C structure that is part of the public interface of delegates
(tensorflow/lite/core/c/common.h), in which each tensor has the address of its data. The delegate here takes no operator and
remembers where that structure is. An input is borrowed by writing another address there for the length of one inference.

Whether that may be done with an input is found out when a model is tried out (docs/adr/0019-borrowed-inputs.md).
"""

import ctypes
import math
import mmap
from typing import Any

from edge.engine.engine import Session
from edge.engine.interpreter import operators_of
from edge.tensors import READABLE_BEHIND_BYTES, Data, Lent, TensorSpec

ALIGNMENT_BYTES = 64  # kDefaultTensorAlignment in tensorflow/lite/util.h: what the engine's own tensors have
MIN_BYTES = 16 * 1024  # a smaller input is copied sooner than it is borrowed

# Operators that do nothing with a value but calculate with it, and at which of their inputs. A client may change the memory
# during the inference, and nobody can prevent it: that may spoil its own answer, but must not lead the engine astray, as it
# could where a value is an index or a size, where two passes must agree on it, or where it is checked first and used later.
_ANY = range(1 << 16)
_CALCULATES: dict[str, range] = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "CONCATENATION"), _ANY),
    **dict.fromkeys(
        (
            "AVERAGE_POOL_2D",
            "CAST",
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "DEQUANTIZE",
            "FULLY_CONNECTED",
            "GATHER",
            "MAX_POOL_2D",
            "MEAN",
            "PAD",
            "PADV2",
            "QUANTIZE",
            "RESIZE_BILINEAR",
            "RESIZE_NEAREST_NEIGHBOR",
            "SLICE",
            "SPACE_TO_DEPTH",
            "STRIDED_SLICE",
            "TRANSPOSE",
        ),
        range(1),
    ),
}

_ALLOW_DYNAMIC_TENSORS = 1  # kTfLiteDelegateFlagsAllowDynamicTensors: the delegate asks nothing of the graph
_OK = 0


class _Tensor(ctypes.Structure):
    """TfLiteTensor."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("dims", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int32),
        ("allocation_type", ctypes.c_int),
        ("bytes", ctypes.c_size_t),
        ("allocation", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("delegate", ctypes.c_void_p),
        ("buffer_handle", ctypes.c_int),
        ("data_is_stale", ctypes.c_bool),
        ("is_variable", ctypes.c_bool),
        ("quantization_type", ctypes.c_int),
        ("quantization", ctypes.c_void_p),
        ("sparsity", ctypes.c_void_p),
        ("dims_signature", ctypes.c_void_p),
    )


class _Context(ctypes.Structure):
    """The beginning of TfLiteContext."""

    _fields_ = (
        ("tensors_size", ctypes.c_size_t),
        ("get_execution_plan", ctypes.c_void_p),
        ("tensors", ctypes.POINTER(_Tensor)),
    )


_Prepare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Context), ctypes.c_void_p)


class _Delegate(ctypes.Structure):
    """TfLiteDelegate."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("prepare", _Prepare),
        ("copy_from_buffer_handle", ctypes.c_void_p),
        ("copy_to_buffer_handle", ctypes.c_void_p),
        ("free_buffer_handle", ctypes.c_void_p),
        ("flags", ctypes.c_int64),
        ("opaque_delegate_builder", ctypes.c_void_p),
    )


class TensorTable:
    """An interpreter's tensors as the engine has them. It must live as long as the interpreter."""

    def __init__(self, interpreter: Any) -> None:
        """Before the interpreter's tensors are allocated.

        Raises:
            AttributeError: the bindings have no way to take a delegate.
            RuntimeError: the engine refuses it.
        """
        self._contexts: list[int] = []
        self._delegate = _Delegate(prepare=_Prepare(self._prepare), flags=_ALLOW_DYNAMIC_TENSORS)
        interpreter._interpreter.ModifyGraphWithDelegate(ctypes.addressof(self._delegate))

    def _prepare(self, context: Any, _delegate: int) -> int:
        self._contexts.append(ctypes.addressof(context.contents))
        return _OK

    def data_pointer(self, index: int, name: str, view: Any) -> ctypes.c_void_p | None:
        """Where the engine has the address of a tensor's data; `view` is that data as the bindings show it.

        None where what is found there is not just that tensor: the engine is another than this was written for.
        """
        if not self._contexts:
            return None
        context = _Context.from_address(self._contexts[0])  # of the main graph
        if not 0 <= index < context.tensors_size:
            return None
        tensor = context.tensors[index]
        if (tensor.data, tensor.bytes) != (view.ctypes.data, view.nbytes) or tensor.name != name.encode():
            return None
        return ctypes.c_void_p.from_address(ctypes.addressof(tensor) + _Tensor.data.offset)


Opened = tuple[Any, TensorTable | None]  # an interpreter, and where its tensors are


def borrowable(interpreter: Any) -> tuple[int, ...]:
    """The inputs that may be borrowed, by position, of a model opened without delegates, which hide operators."""
    outputs = {int(detail["index"]) for detail in interpreter.get_output_details()}
    return tuple(
        position
        for position, detail in enumerate(interpreter.get_input_details())
        if int(detail["index"]) not in outputs
        and interpreter.tensor(int(detail["index"]))().nbytes >= MIN_BYTES
        and _only_calculated_with(interpreter, int(detail["index"]))
    )


def _only_calculated_with(interpreter: Any, index: int) -> bool:
    uses = [
        at in _CALCULATES.get(name, ())
        for name, inputs, _ in operators_of(interpreter)
        for at, number in enumerate(inputs)
        if number == index
    ]
    return bool(uses) and all(uses)


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
    """Numbers for an input, others for each seed; with seed 0 zeros. Not random ones, which the binary's numpy does not have."""
    import numpy as np

    from edge.arrays import numpy_dtype

    dtype = numpy_dtype(spec.dtype)
    numbers = np.arange(math.prod(spec.shape)) * seed % 97  # whole numbers that any dtype can hold
    return (numbers / 97 if dtype.kind == "f" else numbers).astype(dtype).tobytes()


def _read_only(data: Any) -> Lent:
    """A copy in memory that can only be read. It is never given back."""
    memory = mmap.mmap(-1, len(data) + READABLE_BEHIND_BYTES)
    memory.write(data)
    array = (ctypes.c_ubyte * len(data)).from_buffer(memory)
    address = ctypes.addressof(array)
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(len(memory)), mmap.PROT_READ) != 0:
        raise OSError("memory cannot be made read-only")
    return Lent(memoryview(array).cast("B").toreadonly(), address)
