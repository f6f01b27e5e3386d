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
from edge.engine.interpreter import ENGINE_ERRORS, GraphInterpreter
from edge.engine.model_facts import ModelFacts
from edge.engine.model_reading import facts_of, graph_of
from edge.engine.native_words import as_log_lines
from edge.engine.specs import check_state, chosen_signature
from edge.errors import EdgeError, ModelRefusedError, TargetError
from edge.text import printable

if TYPE_CHECKING:
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

        module = self.prepare()
        facts = facts_of(model_path)
        signature = chosen_signature(options, facts)
        number = signature.graph if signature else 0
        self._check(facts, number, options)
        graph = graph_of(model_path, signature)
        file = Path(model_path).open("rb")  # noqa: SIM115 - the session's: it outlives what the caller has open

        def opened() -> Any:
            with as_log_lines():
                delegates = [_load_delegate(module, options.delegate)] if options.delegate else None
                interpreter = module.Interpreter(
                    model_path=f"/proc/self/fd/{file.fileno()}",
                    experimental_delegates=delegates,
                    num_threads=options.threads,
                )
                if number:
                    interpreter = GraphInterpreter(interpreter, number, graph)
                if options.allocate:
                    interpreter.allocate_tensors()
                return interpreter

        try:
            steady = options.delegate is None and number == 0 and number not in facts.branching
            reopens = number in facts.assigning
            return TfliteSession(opened, file, graph, options, facts, steady=steady, reopens=reopens)
        except EdgeError:
            file.close()
            raise
        except ENGINE_ERRORS as error:
            file.close()
            if options.delegate:
                raise TargetError(f"delegate {options.delegate.path} refuses the model: {_reason(error)}") from None
            raise ModelRefusedError(_refusal(error, facts)) from None

    def _check(self, facts: ModelFacts, graph: int, options: SessionOptions) -> None:
        """What is known before the engine is asked."""
        if facts.has_blockwise_weights and self._name == "tflite_runtime":
            raise TargetError(
                f"the model has weights quantised in blocks, which {self.describe()} gets wrong; LiteRT and ai_edge_litert run it"
            )
        check_state(facts, graph, options)


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
