"""TensorFlow Lite: the only module that imports an interpreter package.

Either `ai_edge_litert` or `tflite_runtime` serves, whichever is installed. An interpreter is not thread-safe, and a
numpy view held on its memory makes its next invoke fail: so a session is used by one call at a time, and outputs are
copied out before it returns.
"""

import importlib
import importlib.metadata
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from edge.errors import InferenceError, ModelRefusedError, TargetError, TensorError, UnsupportedModelError
from edge.runtime.engine import Buffer, DelegateRef, TensorValue
from edge.tensors import DYNAMIC, MAX_DIMENSION, TensorSpec, dtype_of, shape_text

log = logging.getLogger(__name__)

PACKAGES = ("ai_edge_litert", "tflite_runtime")
CONTROL_FLOW = {"WHILE", "IF", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE", "CUSTOM"}
COPY_WITH_LOCK_BYTES = 16 * 1024  # of an input; a larger one is copied by numpy, which gives up the interpreter lock
# What the interpreter's bindings raise for a bad file, a failed allocation or a failed invoke.
_ENGINE_ERRORS = (ValueError, RuntimeError, TypeError, OSError, MemoryError)


def _package() -> tuple[str, ModuleType]:
    for name in PACKAGES:
        try:
            return name, importlib.import_module(f"{name}.interpreter")
        except ImportError:
            continue
    raise TargetError("no TensorFlow Lite runtime is installed; this agent looks for " + " or ".join(PACKAGES))


class TfliteEngine:
    """Sessions of the installed interpreter package, which is imported at the first one."""

    def __init__(self) -> None:
        self._name = ""
        self._module: ModuleType | None = None

    def _interpreter_module(self) -> ModuleType:
        if self._module is None:
            self._name, self._module = _package()
        return self._module

    def describe(self) -> str:
        """The interpreter package and its version, as `tflite_runtime 2.14.0`."""
        self._interpreter_module()
        try:
            return f"{self._name} {importlib.metadata.version(self._name.replace('_', '-'))}"
        except importlib.metadata.PackageNotFoundError:
            return self._name

    def open(self, model_path: str, *, threads: int, delegate: DelegateRef | None = None) -> "TfliteSession":
        """See `Engine.open`."""
        module = self._interpreter_module()
        delegates = [_load_delegate(module, delegate)] if delegate else None
        try:
            interpreter = module.Interpreter(
                model_path=model_path, num_threads=threads, experimental_delegates=delegates
            )
            interpreter.allocate_tensors()
        except _ENGINE_ERRORS as error:
            if delegate:
                raise TargetError(f"delegate {delegate.path} refuses the model: {_reason(error)}") from None
            raise ModelRefusedError(f"the runtime refuses the model file: {_reason(error)}") from None
        return TfliteSession(interpreter, steady=delegate is None and _straight(interpreter))


def _load_delegate(module: ModuleType, delegate: DelegateRef) -> Any:
    try:
        return module.load_delegate(delegate.path, dict(delegate.options))
    except (*_ENGINE_ERRORS, AttributeError) as error:  # the last for a library without a delegate's functions
        raise TargetError(f"delegate {delegate.path} cannot be loaded: {_reason(error)}") from None


def _straight(interpreter: Any) -> bool:
    """Whether the graph has neither loops nor branches; false where the bindings cannot tell."""
    try:
        names = {str(operator["op_name"]) for operator in interpreter._get_ops_details()}
    except (AttributeError, KeyError, *_ENGINE_ERRORS):
        return False
    return not names & CONTROL_FLOW


def _reason(error: BaseException) -> str:
    """The engine's own words, without the source paths and the private model path it puts into them."""
    words = str(error).strip().splitlines()
    text = words[0] if words else type(error).__name__
    if "/proc/self/fd/" in text:
        text = "not a TensorFlow Lite model"
    return text[:200]


class TfliteSession:
    """An interpreter with its tensors allocated; see `Session`."""

    def __init__(self, interpreter: Any, *, steady: bool) -> None:
        self._interpreter = interpreter
        try:
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        except UnicodeDecodeError:
            raise UnsupportedModelError("the model has a tensor whose name is not UTF-8") from None
        self.inputs = _specs(inputs, "input")
        self.outputs = _specs(outputs, "output")
        self._input_indices = [int(detail["index"]) for detail in inputs]
        self.steady = steady and not any(DYNAMIC in spec.signature for spec in self.inputs)
        # Each makes a view of the interpreter's memory anew; a view must be gone before the next invoke.
        self._input_views = [interpreter.tensor(int(detail["index"])) for detail in inputs]
        self._output_views = [interpreter.tensor(int(detail["index"])) for detail in outputs]
        self._shapes = [spec.shape for spec in self.inputs]

    def run(self, values: Sequence[TensorValue]) -> list[TensorValue]:
        """See `Session.run`."""
        interpreter = self._interpreter
        shapes = [value.shape for value in values]
        if shapes != self._shapes:
            self._resize(shapes)
        try:
            for position, value in enumerate(values):
                self._fill(position, value.data)
            interpreter.invoke()
            return [_copied(view()) for view in self._output_views]
        except _ENGINE_ERRORS as error:
            # A failed invoke may leave tensors half allocated: the next call starts from a fresh allocation.
            self._shapes = []
            raise InferenceError(str(error)) from error

    def _fill(self, position: int, data: Buffer) -> None:
        """Copy an input's bytes in. Not by set_tensor: it copies twice, and tflite_runtime's lacks some dtypes."""
        view = self._input_views[position]()
        if not isinstance(view, np.ndarray):  # of a scalar the bindings give a copy
            self._interpreter.set_tensor(
                self._input_indices[position], np.frombuffer(data, self.inputs[position].dtype.numpy).reshape(())
            )
        elif len(data) > COPY_WITH_LOCK_BYTES:
            np.copyto(view, np.frombuffer(data, view.dtype).reshape(view.shape))
        elif data:
            memoryview(view).cast("B")[:] = data  # type: ignore[arg-type]

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        try:
            for index, shape in zip(self._input_indices, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
        except _ENGINE_ERRORS as error:
            self._shapes = []
            log.info("resize refused: %s", error)
            raise TensorError(
                "the model cannot take input shapes " + ", ".join(shape_text(shape) for shape in shapes)
            ) from None
        self._shapes = shapes

    def close(self) -> None:
        """See `Session.close`."""
        self._interpreter = None
        self._input_views, self._output_views = [], []


def _copied(view: "np.ndarray[Any, Any]") -> TensorValue:
    return TensorValue(view.tobytes(), view.shape)


def _specs(details: list[dict[str, Any]], kind: str) -> tuple[TensorSpec, ...]:
    specs = tuple(_spec(detail, kind) for detail in details)
    names = [spec.name for spec in specs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UnsupportedModelError(f"the model has two {kind}s named {repeated!r}; names must differ")
    return specs


def _spec(detail: dict[str, Any], kind: str) -> TensorSpec:
    name = str(detail["name"])
    dtype = dtype_of(detail["dtype"])
    if dtype is None:
        kind_name = getattr(detail["dtype"], "__name__", str(detail["dtype"]))
        raise UnsupportedModelError(f"{kind} {name!r} has element type {kind_name}, which the API cannot carry")
    shape = tuple(int(n) for n in detail["shape"])
    signature = tuple(int(n) for n in detail.get("shape_signature", ())) or shape
    if len(signature) != len(shape):
        signature = shape
    if any(not 0 <= n <= MAX_DIMENSION for n in shape):
        raise UnsupportedModelError(f"{kind} {name!r} has shape {shape_text(shape)}, outside what the API can carry")
    return TensorSpec(name, dtype, shape, tuple(DYNAMIC if n < 0 else n for n in signature))
