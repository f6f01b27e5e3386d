"""TensorFlow Lite: the only module that imports an interpreter package, and that with the first model.

`ai_edge_litert` serves, or where that cannot be had `tflite_runtime`.
"""

import importlib
import importlib.util
import logging
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge.engine.engine import DelegateRef, SessionOptions
from edge.engine.interpreter import ENGINE_ERRORS, operators_of
from edge.engine.model_facts import ModelFacts
from edge.engine.model_reading import facts_of
from edge.engine.native_words import as_log_lines
from edge.engine.specs import check_state, chosen_signature
from edge.engine.xnnpack import Delegate, Xnnpack
from edge.errors import EdgeError, ModelRefusedError, TargetError
from edge.host import memory
from edge.text import printable

if TYPE_CHECKING:
    from edge.engine.borrowing import Opened, TensorTable
    from edge.engine.session import TfliteSession

log = logging.getLogger(__name__)

PACKAGES = ("ai_edge_litert", "tflite_runtime")
EDGE_TPU_OPERATOR = "edgetpu-custom-op"


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
            # numpy's: of no use here, and where the system gives it no threads it ends the process.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
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

    def open(self, model_path: str, options: SessionOptions) -> "TfliteSession":
        """See `Engine.open`."""
        from edge.engine.session import TfliteSession
        from edge.engine.signature import GraphInterpreter

        module = self.prepare()
        facts = facts_of(model_path)
        signature = chosen_signature(options, facts)
        graph = signature.graph if signature else 0
        self._check(facts, graph, options)
        delegate = options.delegate
        file = Path(model_path).open("rb")  # noqa: SIM115 - the session's: it outlives what the caller has open
        model_path = f"/proc/self/fd/{file.fileno()}"

        def opened() -> "Opened":
            with as_log_lines():
                return made()

        def made() -> "Opened":
            library = _load_delegate(module, delegate) if delegate else None
            if signature is not None and graph:
                interpreter = GraphInterpreter(self._made(model_path, options.threads, library), signature)
                if options.allocate:
                    interpreter.allocate_tensors()
                return interpreter, None
            return self._opened(model_path, options, library, facts)

        try:
            steady = delegate is None and graph == 0 and graph not in facts.branching
            return TfliteSession(opened, file, options, facts, steady=steady, reopens=graph in facts.assigning)
        except EdgeError:
            file.close()
            raise
        except ENGINE_ERRORS as error:
            file.close()
            if delegate:
                raise TargetError(f"delegate {delegate.path} refuses the model: {_reason(error)}") from None
            raise ModelRefusedError(_refusal(error, facts)) from None

    def _check(self, facts: ModelFacts, graph: int, options: SessionOptions) -> None:
        """What is known before the engine is asked."""
        if facts.has_blockwise_weights and self._name == "tflite_runtime":
            raise TargetError(
                f"the model has weights quantised in blocks, which {self.describe()} gets wrong; ai_edge_litert 1.4.0 runs it"
            )
        check_state(facts, graph, options)

    def _opened(self, model_path: str, options: SessionOptions, delegate: Any, facts: ModelFacts) -> "Opened":
        """An interpreter, and where its tensors are if that is to be looked up."""
        look_up = bool(options.borrows)
        if not options.allocate:
            return self._made(model_path, options.threads, delegate), None
        if delegate is None and self._xnnpack is not None and facts.has_8_bit_tensors:
            try:
                interpreter = self._plain(model_path, options.threads)
                return interpreter, _allocate(interpreter, self._xnnpack.delegate(options.threads), look_up=look_up)
            except ENGINE_ERRORS as error:
                # A graph with tensors of unknown size, say, is run without a delegate that the interpreter chose by itself,
                # and takes none that it is given.
                log.info("the model is run without XNNPACK's quantised operators: %s", _reason(error))
        interpreter = self._made(model_path, options.threads, delegate)
        return interpreter, _allocate(interpreter, None, look_up=look_up)

    def _made(self, model_path: str, threads: int, delegate: Any) -> Any:
        delegates = [delegate] if delegate else None
        return self.prepare().Interpreter(model_path=model_path, num_threads=threads, experimental_delegates=delegates)

    def stays_in_place(self, model_path: str) -> bool:
        """Whether no inference ever moves the model's tensors; false where that cannot be told.

        TensorFlow Lite lays tensors out when they are allocated, and again during an inference only behind an operator
        whose output has a size that is not known before ("dynamic"). Until the first inference such a tensor, and all that
        come after it, have no memory. So if every operator's output has memory before it, nothing will move. This is
        looked at without delegates, which hide the tensors between the operators they take.
        """
        try:
            interpreter = self._open_plain(model_path)
            outputs = [index for _, _, outputs in operators_of(interpreter) for index in outputs]
            return bool(outputs) and all(interpreter.tensor(index)().size for index in outputs)
        except (AttributeError, KeyError, *ENGINE_ERRORS):
            return False

    def _open_plain(self, model_path: str) -> Any:
        interpreter = self._plain(model_path, 1)
        interpreter.allocate_tensors()
        return interpreter

    def _plain(self, model_path: str, threads: int) -> Any:
        """An interpreter that makes no delegate by itself."""
        module = self.prepare()
        plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return module.Interpreter(model_path=model_path, num_threads=threads, experimental_op_resolver_type=plain)


def _allocate(interpreter: Any, delegate: Delegate | None, *, look_up: bool) -> "TensorTable | None":
    """Allocate an interpreter's tensors, with a delegate given or not."""
    from edge.engine.borrowing import TensorTable

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


def _refusal(error: BaseException, facts: ModelFacts) -> str:
    """Why the engine refuses a model file, and what can be done."""
    flex = [name for name in facts.custom_operators if name.startswith("Flex")]
    if flex:
        return (
            f"the model needs operators of TensorFlow itself ({_some(flex)}), which no TensorFlow Lite runtime has; convert it "
            "again with TFLITE_BUILTINS alone, without SELECT_TF_OPS"
        )
    if EDGE_TPU_OPERATOR in facts.custom_operators:
        return (
            "the model is compiled for an Edge TPU; package it with --delegate and the path of libedgetpu.so.1, and allow "
            "that in edge_delegate_paths"
        )
    return f"the runtime refuses the model file: {_reason(error)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _reason(error: BaseException) -> str:
    """The engine's own words, without the source paths and the private model path it puts into them."""
    words = str(error).strip().splitlines()
    text = words[0] if words else type(error).__name__
    if "/proc/self/fd/" in text:
        text = "not a TensorFlow Lite model"
    return printable(text)
