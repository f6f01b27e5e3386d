"""TensorFlow Lite: the only module that imports an interpreter package, and that with the first model.

`ai_edge_litert` serves, or where that cannot be had `tflite_runtime`.
"""

import importlib
import importlib.util
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge.device import memory
from edge.errors import ModelRefusedError, TargetError
from edge.runtime.engine import DelegateRef
from edge.runtime.xnnpack import Delegate, Xnnpack
from edge.text import printable

if TYPE_CHECKING:
    from edge.runtime.borrowing import TensorTable
    from edge.runtime.session import TfliteSession

log = logging.getLogger(__name__)

PACKAGES = ("ai_edge_litert", "tflite_runtime")
CONTROL_FLOW = {"WHILE", "IF", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE", "CUSTOM"}
# What the interpreter's bindings raise for a bad file, a failed allocation or a failed invoke.
ENGINE_ERRORS = (ValueError, RuntimeError, TypeError, OSError, MemoryError)


def _installed() -> list[str]:
    names = [name for name in PACKAGES if importlib.util.find_spec(name)]
    if not names:
        raise TargetError("no TensorFlow Lite runtime is installed; this agent looks for " + " or ".join(PACKAGES))
    return names


class TfliteEngine:
    """Sessions of the installed interpreter package."""

    def __init__(self) -> None:
        self._name = ""
        self._module: ModuleType | None = None
        self._xnnpack: Xnnpack | None = None

    def prepare(self) -> ModuleType:
        """Load the interpreter package, and numpy with it, if that was not done yet.

        Raises:
            TargetError: none is installed that can be loaded.
        """
        if self._module is None:
            for name in _installed():
                try:
                    self._module, self._name = importlib.import_module(f"{name}.interpreter"), name
                    break
                except ImportError as error:
                    log.warning("the runtime %s is installed and cannot be loaded: %s", name, error)
            else:
                raise TargetError("no TensorFlow Lite runtime that is installed here can be loaded")
            self._xnnpack = Xnnpack.of(self._name)
            memory.settle()
        return self._module

    def describe(self) -> str:
        """The interpreter package and its version, as `tflite_runtime 2.14.0`."""
        import importlib.metadata

        name = self._name or _installed()[0]
        try:
            return f"{name} {importlib.metadata.version(name.replace('_', '-'))}"
        except importlib.metadata.PackageNotFoundError:
            return name

    def open(
        self,
        model_path: str,
        *,
        threads: int,
        delegate: DelegateRef | None = None,
        in_place: bool = False,
        borrows: Sequence[int] = (),
    ) -> "TfliteSession":
        """See `Engine.open`."""
        from edge.runtime.session import TfliteSession

        module = self.prepare()
        library = _load_delegate(module, delegate) if delegate else None
        try:
            interpreter, table = self._allocated(model_path, threads, library, look_up=bool(borrows))
            steady = delegate is None and _straight(interpreter)
            return TfliteSession(interpreter, steady=steady, in_place=in_place, borrows=borrows, table=table)
        except ENGINE_ERRORS as error:
            if delegate:
                raise TargetError(f"delegate {delegate.path} refuses the model: {_reason(error)}") from None
            raise ModelRefusedError(f"the runtime refuses the model file: {_reason(error)}") from None

    def _allocated(
        self, model_path: str, threads: int, delegate: Any, *, look_up: bool
    ) -> "tuple[Any, TensorTable | None]":
        """An interpreter with its tensors allocated, and where they are if that is to be looked up."""
        module = self.prepare()
        if delegate is None and self._xnnpack is not None:
            try:
                interpreter = self._plain(model_path, threads)
                if _has_8_bit_tensors(interpreter):
                    return interpreter, _allocate(interpreter, self._xnnpack.delegate(threads), look_up=look_up)
            except ENGINE_ERRORS as error:
                # A graph with tensors of unknown size, say, is run without a delegate that the interpreter chose by itself,
                # and takes none that it is given.
                log.info("the model is run without XNNPACK's quantised operators: %s", _reason(error))
        delegates = [delegate] if delegate else None
        interpreter = module.Interpreter(model_path=model_path, num_threads=threads, experimental_delegates=delegates)
        return interpreter, _allocate(interpreter, None, look_up=look_up)

    def stays_in_place(self, model_path: str) -> bool:
        """Whether no inference ever moves the model's tensors; false where that cannot be told.

        TensorFlow Lite lays tensors out when they are allocated, and again during an inference only behind an operator
        whose output has a size that is not known before ("dynamic"). Until the first inference such a tensor, and all that
        come after it, have no memory. So if every operator's output has memory before it, nothing will move. This is
        looked at without delegates, which hide the tensors between the operators they take.
        """
        try:
            interpreter = self._open_plain(model_path)
            outputs = [int(index) for operator in interpreter._get_ops_details() for index in operator["outputs"]]
            return bool(outputs) and all(interpreter.tensor(index)().size for index in outputs)
        except (AttributeError, KeyError, *ENGINE_ERRORS):
            return False

    def borrowable(self, model_path: str) -> tuple[int, ...]:
        """The inputs, by position, whose values are only calculated with; none where that cannot be told."""
        from edge.runtime.borrowing import borrowable

        try:
            return borrowable(self._open_plain(model_path))
        except (AttributeError, KeyError, *ENGINE_ERRORS):
            return ()

    def _open_plain(self, model_path: str) -> Any:
        interpreter = self._plain(model_path, 1)
        interpreter.allocate_tensors()
        return interpreter

    def _plain(self, model_path: str, threads: int) -> Any:
        """An interpreter that makes no delegate by itself."""
        module = self.prepare()
        plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return module.Interpreter(model_path=model_path, num_threads=threads, experimental_op_resolver_type=plain)


def _has_8_bit_tensors(interpreter: Any) -> bool:
    names = {getattr(detail["dtype"], "__name__", "") for detail in interpreter.get_tensor_details()}
    return not names.isdisjoint({"int8", "uint8"})


def _allocate(interpreter: Any, delegate: Delegate | None, *, look_up: bool) -> "TensorTable | None":
    """Allocate an interpreter's tensors, with a delegate given or not."""
    from edge.runtime.borrowing import TensorTable

    table = TensorTable(interpreter) if look_up else None  # before a delegate, which makes the graph immutable
    if delegate is not None:
        interpreter.given = delegate  # its own __del__ sees to it that an interpreter goes before what it has
        interpreter._interpreter.ModifyGraphWithDelegate(delegate.pointer)
    interpreter.allocate_tensors()
    return table


def _load_delegate(module: ModuleType, delegate: DelegateRef) -> Any:
    try:
        return module.load_delegate(delegate.path, dict(delegate.options))
    except (*ENGINE_ERRORS, AttributeError) as error:  # the last for a library without a delegate's functions
        raise TargetError(f"delegate {delegate.path} cannot be loaded: {_reason(error)}") from None


def _straight(interpreter: Any) -> bool:
    """Whether the graph has neither loops nor branches; false where the bindings cannot tell."""
    try:
        names = {str(operator["op_name"]) for operator in interpreter._get_ops_details()}
    except (AttributeError, KeyError, *ENGINE_ERRORS):
        return False
    return not names & CONTROL_FLOW


def _reason(error: BaseException) -> str:
    """The engine's own words, without the source paths and the private model path it puts into them."""
    words = str(error).strip().splitlines()
    text = words[0] if words else type(error).__name__
    if "/proc/self/fd/" in text:
        text = "not a TensorFlow Lite model"
    return printable(text)
