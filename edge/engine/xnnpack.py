"""XNNPACK with the operators of quantised models, for an interpreter that leaves them out unless it is told.

tflite_runtime 2.14.0 applies XNNPACK by itself, but was built with the quantised operators off: an int8 net takes nine
times as long on x86-64. They are in its library all the same, and can be turned on by making the delegate here, with the C
functions that the library exports (tensorflow/lite/delegates/xnnpack/xnnpack_delegate.h). Answers are then those of
ai_edge_litert, to the byte. That package has them on, and exports no such functions: nothing is done for it.
"""

import ctypes
import importlib
import weakref
from typing import Any, Self

# TFLITE_XNNPACK_DELEGATE_FLAG_QS8 and _QU8: operators on signed and on unsigned 8-bit integers.
QUANTISED = 0x1 | 0x2


class _Options(ctypes.Structure):
    """The beginning of TfLiteXNNPackDelegateOptions, and more room than any release has used behind it."""

    _fields_ = (
        ("num_threads", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("rest", ctypes.c_uint64 * 31),
    )


class Delegate:
    """For one interpreter, which must not outlive it."""

    def __init__(self, library: Any, options: _Options) -> None:
        """
        Raises:
            MemoryError: it cannot be made.
        """
        pointer = library.TfLiteXNNPackDelegateCreate(ctypes.byref(options))
        if not pointer:
            raise MemoryError("no XNNPACK delegate can be made")
        self.pointer: int = pointer
        # Not at the exit: an interpreter that nobody closed is still there then.
        weakref.finalize(self, library.TfLiteXNNPackDelegateDelete, pointer).atexit = False


class Xnnpack:
    """The functions of an interpreter's library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """
        Raises:
            AttributeError: the library does not export them.
        """
        library.TfLiteXNNPackDelegateOptionsDefault.restype = _Options
        library.TfLiteXNNPackDelegateOptionsDefault.argtypes = ()
        library.TfLiteXNNPackDelegateCreate.restype = ctypes.c_void_p
        library.TfLiteXNNPackDelegateCreate.argtypes = (ctypes.POINTER(_Options),)
        library.TfLiteXNNPackDelegateDelete.restype = None
        library.TfLiteXNNPackDelegateDelete.argtypes = (ctypes.c_void_p,)
        self._library = library

    @classmethod
    def of(cls, package: str) -> Self | None:
        """Those of an interpreter package; None where it keeps them to itself, or needs no help."""
        try:
            bindings = importlib.import_module(f"{package}._pywrap_tensorflow_interpreter_wrapper")
            found = cls(ctypes.CDLL(str(bindings.__file__)))
        except (ImportError, AttributeError, OSError):
            return None
        return found if found.lacks_quantised() else None

    def lacks_quantised(self) -> bool:
        """Whether the delegate that the interpreter makes by itself has no quantised operators."""
        flags: int = self._library.TfLiteXNNPackDelegateOptionsDefault().flags
        return flags & QUANTISED != QUANTISED

    def delegate(self, threads: int) -> Delegate:
        """One for one interpreter.

        Raises:
            MemoryError: it cannot be made.
        """
        options: _Options = self._library.TfLiteXNNPackDelegateOptionsDefault()
        options.num_threads = threads
        options.flags |= QUANTISED
        return Delegate(self._library, options)
