"""Lets an inference read an input where it lies, in a client's shared memory, instead of copying it into the engine first.

TensorFlow Lite's C++ interface has that (custom allocations); its Python bindings do not. But they take delegates, and the
preparation of a delegate is shown the interpreter's tensors: a C structure that is part of the public interface of delegates
(tensorflow/lite/core/c/common.h), in which each tensor has the address of its data. The delegate here takes no operator and
remembers where that structure is. An input is borrowed by writing another address there for the length of one inference.

Whether that may be done with an input is found out when a model is tried out (docs/adr/0019-borrowed-inputs.md).
"""

import ctypes
from typing import Any

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
