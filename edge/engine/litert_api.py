"""LiteRT's C interface by ctypes: its structures, calls and statuses, and nothing of what they are used for.

The headers are litert/c/*.h of the LiteRT sources. Structures have kept their layout since 2.1.0; calls have not, so that
only the release that this was written for is loaded (`edge.engine.litert` sees to that).
"""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

MAX_RANK = 8  # LITERT_TENSOR_MAX_RANK
ALIGNMENT_BYTES = 64  # LITERT_HOST_MEMORY_BUFFER_ALIGNMENT; memory that begins elsewhere is refused
READ_BEHIND_BYTES = 128  # XNN_EXTRA_BYTES: kernels read as far past the end of a tensor

# LiteRtStatus, as far as a status means something of its own here.
OK, NO_MEMORY = 0, 2
_STATUSES = {
    1: "invalid argument",
    NO_MEMORY: "no memory",
    3: "runtime failure",
    4: "an input is missing",
    5: "unsupported",
    6: "not found",
    8: "wrong version",
    100: "cancelled",
    501: "not a valid FlatBuffer",
    504: "it cannot be compiled",
}
# LiteRtEnvOptionTag and LiteRtLogSeverity.
_LIBRARY_FOLDER, _ACCELERATORS, _LEAST_SEVERITY = 22, 24, 25
_SILENT = 4
_INTEGER, _STRING = 2, 8  # of LiteRtAnyType
CPU, GPU = 1, 2  # LiteRtHwAccelerators, a bit each
_KEEP_ERRORS = "error_reporter_mode = 2\n"

Handles = ctypes.Array[c_void_p]
Flag = ctypes.Array[ctypes.c_char]


class _Layout(ctypes.Structure):
    """LiteRtLayout. Its first word has the rank in 7 bits, and whether there are strides in the 8th."""

    _fields_ = (("rank", c_uint32), ("dimensions", c_int32 * MAX_RANK), ("strides", c_uint32 * MAX_RANK))

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions."""
        return tuple(self.dimensions[: self.rank & 0x7F])


class _TensorType(ctypes.Structure):
    """LiteRtRankedTensorType."""

    _fields_ = (("element_type", c_int), ("layout", _Layout))


class _Option(ctypes.Structure):
    """LiteRtEnvOption with an integer or a text's address: a tag, and a LiteRtAny, which begins at a multiple of 8."""

    _fields_ = (("tag", c_int64), ("kind", c_int64), ("value", c_int64))


_Handle = c_void_p
_HandleOut = POINTER(c_void_p)
# All that return a status, by their names without LiteRt, and what they take.
_CALLS: dict[str, tuple[Any, ...]] = {
    "CreateEnvironment": (c_int, POINTER(_Option), _HandleOut),
    "CreateModelFromBuffer": (_Handle, c_void_p, c_size_t, _HandleOut),
    "GetNumModelSignatures": (_Handle, POINTER(c_size_t)),
    "GetModelSignature": (_Handle, c_size_t, _HandleOut),
    "GetSignatureKey": (_Handle, POINTER(c_char_p)),
    "GetNumSignatureInputs": (_Handle, POINTER(c_size_t)),
    "GetNumSignatureOutputs": (_Handle, POINTER(c_size_t)),
    "GetSignatureInputTensorByIndex": (_Handle, c_size_t, _HandleOut),
    "GetSignatureOutputTensorByIndex": (_Handle, c_size_t, _HandleOut),
    "GetTensorIndex": (_Handle, POINTER(c_uint32)),
    "CreateOptions": (_HandleOut,),
    "SetOptionsHardwareAccelerators": (_Handle, c_int),
    "CreateOpaqueOptions": (c_char_p, c_void_p, c_void_p, _HandleOut),
    "AddOpaqueOptions": (_Handle, _Handle),
    "CreateCompiledModel": (_Handle, _Handle, _Handle, _HandleOut),
    "CompiledModelResizeInputTensor": (_Handle, c_size_t, c_size_t, POINTER(c_int), c_size_t),
    "GetCompiledModelOutputTensorLayouts": (_Handle, c_size_t, c_size_t, POINTER(_Layout), c_bool),
    "CreateTensorBufferFromHostMemory": (POINTER(_TensorType), c_void_p, c_size_t, c_void_p, _HandleOut),
    "CompiledModelGetErrorMessages": (_Handle, POINTER(c_void_p)),
    "CompiledModelClearErrors": (_Handle,),
    "CompiledModelIsFullyAccelerated": (_Handle, POINTER(c_bool)),
    "SetCompiledModelCancellationFunction": (_Handle, c_void_p, c_void_p),
}
_DESTROYED = ("Environment", "Model", "Options", "CompiledModel", "TensorBuffer")

_libc = ctypes.CDLL(None)
_libc.strdup.argtypes, _libc.strdup.restype = (c_char_p,), c_void_p
_libc.free.argtypes, _libc.free.restype = (c_void_p,), None
_STRLEN = ctypes.cast(_libc.strlen, c_void_p)


class LitertError(Exception):
    """A call that failed, and its status."""

    def __init__(self, call: str, status: int) -> None:
        super().__init__(f"{_STATUSES.get(status, f'status {status}')} ({call})")
        self.status = status


class Api:
    """The calls of a libLiteRt.so. Handles are numbers; what is made is destroyed by `destroy`."""

    def __init__(self, path: str) -> None:
        """Load it.

        Raises:
            OSError: it cannot be loaded.
            AttributeError: it lacks a call.
        """
        library = ctypes.CDLL(path)  # its calls give up the interpreter lock
        self._calls: dict[str, Any] = {}
        for name, types in _CALLS.items():
            function = getattr(library, f"LiteRt{name}")
            function.argtypes, function.restype = types, c_int
            self._calls[name] = function
        self._destroyers: dict[str, Any] = {}
        for name in _DESTROYED:
            function = getattr(library, f"LiteRtDestroy{name}")
            function.argtypes, function.restype = (_Handle,), None
            self._destroyers[name] = function
        self._run = library["LiteRtRunCompiledModel"]

    def call(self, name: str, *arguments: Any) -> None:
        """Call it.

        Raises:
            LitertError: its status says that it failed.
        """
        status: int = self._calls[name](*arguments)
        if status != OK:
            raise LitertError(name, status)

    def _told(self, name: str, kind: Any, *arguments: Any) -> Any:
        """What it gives by its last argument."""
        value = kind()
        self.call(name, *arguments, byref(value))
        return value.value

    def destroy(self, what: str, handle: int) -> None:
        """Destroy a thing of that kind."""
        self._destroyers[what](handle)

    def environment(self, gpu_folder: str = "") -> int:
        """One that says nothing on stderr itself, with the CPU alone or also with the GPU, whose library is in a folder."""
        wanted = [
            _Option(_ACCELERATORS, _INTEGER, CPU | GPU if gpu_folder else CPU),
            _Option(_LEAST_SEVERITY, _INTEGER, _SILENT),
        ]
        folder = ctypes.create_string_buffer(gpu_folder.encode())  # LiteRT copies it
        if gpu_folder:
            wanted.append(_Option(_LIBRARY_FOLDER, _STRING, ctypes.addressof(folder)))
        options = (_Option * len(wanted))(*wanted)
        return int(self._told("CreateEnvironment", c_void_p, len(options), options))

    def model(self, environment: int, address: int, size: int) -> int:
        """The model of a file in memory, which must stay there; the FlatBuffer is verified."""
        return int(self._told("CreateModelFromBuffer", c_void_p, environment, address, size))

    def signatures(self, model: int) -> list[tuple[str, int]]:
        """Each signature's key and handle; a model without any has one that LiteRT makes up for its first graph."""
        count = self._told("GetNumModelSignatures", c_size_t, model)
        handles = [self._told("GetModelSignature", c_void_p, model, number) for number in range(count)]
        return [
            ((self._told("GetSignatureKey", c_char_p, one) or b"").decode(errors="replace"), one) for one in handles
        ]

    def ends(self, signature: int, kind: str) -> list[int]:
        """A signature's inputs or outputs (`kind` "Input" or "Output"), each as its tensor's index in the graph, in the order in

        which an inference takes them.
        """
        count = self._told(f"GetNumSignature{kind}s", c_size_t, signature)
        tensors = [self._told(f"GetSignature{kind}TensorByIndex", c_void_p, signature, at) for at in range(count)]
        return [self._told("GetTensorIndex", c_uint32, tensor) for tensor in tensors]

    def compiled(
        self, environment: int, model: int, threads: int, gpu_precision: int | None = None, weights: str = ""
    ) -> int:
        """A model made ready for the CPU, or for the GPU and the CPU for the rest. Its errors are kept for `words`.

        `weights`: a file for packed weights, read if it has this model's and else written.
        """
        texts = {"xnnpack": f"num_threads = {threads}\n", "runtime_options_string": _KEEP_ERRORS}
        if weights:
            texts["xnnpack"] += f'weight_cache_file_path = "{weights}"\n'
        if gpu_precision is not None:
            texts["gpu_options"] = f"precision = {gpu_precision}\n"
        options = self._told("CreateOptions", c_void_p)
        try:
            self.call("SetOptionsHardwareAccelerators", options, CPU if gpu_precision is None else CPU | GPU)
            for name, text in texts.items():
                self.call("AddOpaqueOptions", options, self._opaque(name, text))
            return int(self._told("CreateCompiledModel", c_void_p, environment, model, options))
        finally:
            self.destroy("Options", options)

    def end_by(self, compiled: int, flag: Flag) -> None:
        """Have inferences end, before the next operator, while the flag is set; it must stay where it is.

        LiteRT asks a function of an address and gets a bool. strlen is one: of a flag that is not set it says 0, else 1. One in
        Python would take the interpreter lock at each operator.
        """
        self.call("SetCompiledModelCancellationFunction", compiled, ctypes.addressof(flag), _STRLEN)

    def fully_accelerated(self, compiled: int) -> bool:
        """Whether accelerators have all of its operators; XNNPACK is one, of the CPU."""
        return bool(self._told("CompiledModelIsFullyAccelerated", c_bool, compiled))

    def _opaque(self, name: str, text: str) -> int:
        """Options of a part of LiteRT's, as TOML, which it frees."""
        free = ctypes.cast(_libc.free, c_void_p)
        return int(self._told("CreateOpaqueOptions", c_void_p, name.encode(), _libc.strdup(text.encode()), free))

    def resize(self, compiled: int, signature: int, position: int, shape: tuple[int, ...]) -> None:
        """Give an input another shape; one of fixed shape takes none."""
        dimensions = (c_int * len(shape))(*shape)
        self.call("CompiledModelResizeInputTensor", compiled, signature, position, dimensions, len(shape))

    def output_shapes(self, compiled: int, signature: int, count: int) -> list[tuple[int, ...]]:
        """The shapes of the outputs, once the operators have seen those of the inputs."""
        layouts = (_Layout * count)()
        self.call("GetCompiledModelOutputTensorLayouts", compiled, signature, count, layouts, True)
        return [layout.shape for layout in layouts]

    def buffer(self, element_type: int, shape: tuple[int, ...], address: int, size: int) -> int:
        """A tensor's buffer over memory that it does not own, at a multiple of ALIGNMENT_BYTES."""
        kind = _TensorType(element_type, _Layout(len(shape), shape))
        return int(self._told("CreateTensorBufferFromHostMemory", c_void_p, byref(kind), address, size, None))

    def inference(self, compiled: int, signature: int, inputs: Handles, outputs: Handles) -> Callable[[], int]:
        """A call that runs the model on buffers, of which each may be changed from one run to the next; it gives a status.

        Its arguments are converted once: that takes longer than the call.
        """
        run = self._run
        arguments = (
            c_void_p.from_param(compiled),
            c_size_t.from_param(signature),
            c_size_t.from_param(len(inputs)),
            byref(inputs),
            c_size_t.from_param(len(outputs)),
            byref(outputs),
        )
        return lambda: run(*arguments)  # a partial would put the arguments together anew for each call

    def words(self, compiled: int) -> str:
        """What LiteRT has reported of a compiled model since it was asked last."""
        text = c_void_p()
        try:
            self.call("CompiledModelGetErrorMessages", compiled, byref(text))
            words = ctypes.string_at(text.value).decode(errors="replace") if text.value else ""
            _libc.free(text)
            self.call("CompiledModelClearErrors", compiled)
        except LitertError:
            return ""
        return words


def new_flag() -> Flag:
    """A flag that is not set: a byte, and one that stays 0."""
    return ctypes.create_string_buffer(2)


def handles(values: Sequence[int]) -> Handles:
    """An array of handles."""
    return (c_void_p * len(values))(*values)
