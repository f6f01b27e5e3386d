"""The engines that there are, and which are tried for a model, the first that serves it being the one.

LiteRT takes most models and needs no numpy; the interpreter of TensorFlow Lite takes those as well that keep state in
variable tensors, whose outputs get their size during the inference, or that name a delegate. The trial of a model finds out
which it is (docs/adr/0028-litert.md).
"""

from collections.abc import Sequence
from functools import cached_property

from edge.engine.engine import CPU, GPU, LITERT, LITERT_GPU, TFLITE, Engine, Session, SessionOptions
from edge.engine.litert import LitertEngine, library
from edge.engine.tflite import TfliteEngine
from edge.errors import ModelRefusedError, TargetError

AUTO = "auto"


class Engines:
    """See `Engine`; `open` takes the engine that the options name."""

    def __init__(self, choice: str = AUTO, accelerators: Sequence[str] = (CPU, GPU)) -> None:
        """`choice` is what edge_engine says: litert, tflite, or auto, which is litert where its library is there.

        `accelerators` are those that packages may ask for.
        """
        self.tflite = TfliteEngine()
        self.gpu = LitertEngine(gpu=True)
        self._by_name: dict[str, Engine] = {LITERT: LitertEngine(), LITERT_GPU: self.gpu, TFLITE: self.tflite}
        self._accelerators = accelerators
        self._choice = choice

    @cached_property
    def _first(self) -> str:
        if self._choice != AUTO:
            return self._choice
        try:
            library()
        except TargetError:
            return TFLITE
        return LITERT

    def for_model(self, options: SessionOptions) -> tuple[str, ...]:
        """The engines to try a model with, the first choice first.

        Raises:
            TargetError: its package wants an accelerator and nothing else, and this agent does not allow that.
        """
        names = (LITERT, TFLITE) if self._first == LITERT and options.delegate is None else (TFLITE,)
        if options.accelerator == GPU:
            if GPU in self._accelerators:
                return (LITERT_GPU, *names) if options.fallback else (LITERT_GPU,)
            if not options.fallback:
                raise TargetError(
                    f"the package needs the accelerator gpu; this agent allows {', '.join(self._accelerators)}"
                )
        return names

    def describe(self, name: str = "") -> str:
        """An engine and its release, or those of the first choice; it is not loaded for that."""
        return self._by_name[name or self._first].describe()

    def prepare(self, name: str = "") -> None:
        """Load an engine, or the first choice; where that cannot be had, the interpreter.

        Raises:
            TargetError: it cannot be loaded here.
        """
        try:
            self._by_name[name or self._first].prepare()
        except TargetError:
            if name or self._first == TFLITE:
                raise
            self.tflite.prepare()

    def open(self, model_path: str, options: SessionOptions) -> Session:
        """See `Engine.open`."""
        return self._by_name[options.engine].open(model_path, options)

    def open_on_cpu(self, model_path: str, options: SessionOptions) -> Session:
        """A session as `open` gives it, without an accelerator.

        Raises:
            EdgeError: as `open`.
        """
        try:
            return self._by_name[LITERT].open(model_path, options._replace(engine=LITERT))
        except (ModelRefusedError, TargetError):
            return self.tflite.open(model_path, options._replace(engine=TFLITE))
