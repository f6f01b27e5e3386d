"""LiteRT by its C interface: the library libLiteRt.so of ai-edge-litert, without its Python bindings (docs/adr/0028-litert.md)."""

import importlib.util
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edge.engine import weights
from edge.engine.engine import FLOAT16, SessionOptions
from edge.engine.litert_api import MAX_RANK, Api, LitertError, new_flag
from edge.engine.litert_memory import address_of
from edge.engine.model_facts import ModelFacts, Signature
from edge.engine.model_graph import Graph, read_graph
from edge.engine.model_reading import facts_of
from edge.engine.native_words import as_log_lines
from edge.engine.specs import check_state, chosen_signature
from edge.errors import ModelRefusedError, TargetError
from edge.selfexec import program_folder
from edge.tensors import shape_text

if TYPE_CHECKING:
    from edge.engine.litert_session import LitertSession

PACKAGE, LIBRARY = "ai_edge_litert", "libLiteRt.so"
GPU_LIBRARY = "libLiteRtWebGpuAccelerator.so"
GPU_FOLDER = "/usr/lib/sagemaker-edge-agent"  # where sagemaker-edge-agent-gpu puts it
_GPU_FLOAT16, _GPU_FLOAT32 = 1, 2  # precisions, as gpu_options has them
RELEASE = "2.3"  # whose calls `edge.engine.litert_api` knows: other releases have others


def _folders() -> Iterator[Path]:
    """Where the library may be: beside a compiled program, whose packages are no folders, or in the installed package."""
    if (program := program_folder()) is not None:
        yield program / PACKAGE
    spec = importlib.util.find_spec(PACKAGE)
    yield from map(Path, (spec.submodule_search_locations if spec else None) or ())


def library() -> tuple[str, str]:
    """Where the library is, and its release.

    A binary has it beside an interpreter of another release, with its own release behind its name.

    Raises:
        TargetError: there is none, or it is of another release.
    """
    found = next((path for folder in _folders() for path in folder.glob(f"{LIBRARY}*")), None)
    if found is None:
        raise TargetError(f"LiteRT's library ({LIBRARY}) is not installed; ai-edge-litert {RELEASE} has it")
    release = found.name.removeprefix(LIBRARY).removeprefix(".") or _installed()
    if release != RELEASE and not release.startswith(f"{RELEASE}."):
        raise TargetError(f"{found} is of ai-edge-litert {release or 'unknown'}; this agent needs {RELEASE}")
    return str(found), release


def gpu_folder() -> str:
    """Where the library is that knows the GPU.

    Raises:
        TargetError: it is not installed.
    """
    for folder in (Path(GPU_FOLDER), Path(library()[0]).parent):
        if (folder / GPU_LIBRARY).exists():
            return str(folder)
    raise TargetError(f"the GPU's library ({GPU_LIBRARY}) is not installed; sagemaker-edge-agent-gpu has it")


@cache
def _installed() -> str:
    """The installed package's release, by the folder beside it: importlib.metadata takes longer to import than a small model."""
    beside = (path for folder in _folders() for path in folder.parent.glob(f"{PACKAGE}-*.dist-info"))
    return next((path.stem.removeprefix(f"{PACKAGE}-") for path in beside), "")


class LitertEngine:
    """Sessions of LiteRT, on the CPU, or with `gpu` on the GPU and what that does not take on the CPU.

    Safe to use from any thread.
    """

    def __init__(self, *, gpu: bool = False) -> None:
        self._gpu = gpu
        self._lock = threading.Lock()
        self._environment: _Environment | None = None

    def describe(self) -> str:
        """The engine and its release, as `LiteRT 2.3.0`."""
        try:
            release = library()[1]
        except TargetError:
            release = RELEASE
        return f"LiteRT {release}" + (" on the GPU" if self._gpu else "")

    def prepare(self) -> object:
        """See `Engine.prepare`."""
        with self._lock:
            if self._environment is None:
                path, _ = library()
                folder = gpu_folder() if self._gpu else ""
                try:
                    with as_log_lines():
                        api = Api(path)
                        self._environment = _Environment(api, api.environment(folder))
                except (OSError, AttributeError, LitertError) as error:
                    raise TargetError(f"LiteRT's library cannot be loaded: {error}") from None
            return self._environment

    def _enter(self) -> "_Environment":
        """The environment, in which there is one session more."""
        while True:
            self.prepare()
            with self._lock:
                if self._environment is not None:
                    self._environment.sessions += 1
                    return self._environment

    def renew(self, session: "LitertSession") -> None:
        """Leave the environment that a session has behind: a device that was lost stays lost to all that is in it."""
        with self._lock:
            if isinstance(session.compiled, _Compiled) and session.compiled.environment is self._environment:
                self._environment = None

    def _left(self, environment: "_Environment") -> None:
        """A session of it is gone; with the last goes one that was left behind."""
        with self._lock:
            environment.sessions -= 1
            if not environment.sessions and environment is not self._environment:
                environment.api.destroy("Environment", environment.handle)

    def open(self, model_path: str, options: SessionOptions) -> "LitertSession":
        """See `Engine.open`."""
        from edge.engine.litert_session import LitertSession

        self.prepare()
        facts = facts_of(model_path)
        signature = chosen_signature(options, facts)
        number = signature.graph if signature else 0
        check_state(facts, number, options)
        with Path(model_path).open("rb") as file:
            with _mapped(file) as read, memoryview(read) as data:
                graph = _graph(data, number, signature)
            if self._gpu and any(size < 0 for end in graph.inputs for size in end.signature):  # its answers are wrong
                raise ModelRefusedError("a GPU takes no model whose inputs have a choice of shapes")
            mapped = _mapped(file)
        environment = self._enter()
        compiled = _Compiled(environment, partial(self._left, environment), mapped, options, gpu=self._gpu)
        try:
            with as_log_lines():
                compiled.open(_key(signature, facts), graph)
            return LitertSession(
                compiled, graph, facts, options, steady=number not in facts.branching, reopens=number in facts.assigning
            )
        except LitertError as error:
            compiled.close()
            raise ModelRefusedError(f"LiteRT refuses the model file: {error}") from None
        except BaseException:
            compiled.close()
            raise


def _mapped(file: BinaryIO) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


def _graph(data: memoryview, number: int, signature: Signature | None) -> Graph:
    """The graph that is called.

    Raises:
        ModelRefusedError: it is one that LiteRT does not take.
    """
    graph = read_graph(data, number, signature)
    if not graph.own_ends:
        raise ModelRefusedError("LiteRT takes signatures of a graph's own inputs and outputs alone")
    for end in (*graph.inputs, *graph.outputs):
        if len(end.shape) > MAX_RANK or 0 in end.shape:
            raise ModelRefusedError(f"LiteRT takes no tensor of shape {shape_text(end.shape)}")
    return graph


def _key(signature: Signature | None, facts: ModelFacts) -> str | None:
    """The key of the signature to call; None for the one that LiteRT makes up where the model has none.

    Raises:
        ModelRefusedError: none is for the model's first graph.
    """
    if signature is not None:
        return signature.key
    if not facts.signatures:
        return None
    for one in facts.signatures:
        if one.graph == 0:
            return one.key
    raise ModelRefusedError("LiteRT calls signatures alone, and none is for the model's first graph")


class _Environment:
    """An environment of LiteRT's, and how many sessions are in it."""

    def __init__(self, api: Api, handle: int) -> None:
        self.api, self.handle = api, handle
        self.sessions = 0


class _Compiled:
    """See `edge.engine.litert_session.Compiled`."""

    def __init__(
        self,
        environment: _Environment,
        left: Callable[[], None],
        file: mmap.mmap,
        options: SessionOptions,
        *,
        gpu: bool,
    ) -> None:
        """`left` is called when it is closed."""
        self.api = environment.api
        self.environment = environment
        self._left: Callable[[], None] | None = left
        self._file = file
        self._threads = options.threads
        self._precision = (_GPU_FLOAT16 if options.precision == FLOAT16 else _GPU_FLOAT32) if gpu else None
        self._shared = "" if gpu else options.weights
        self._weights: int | None = None
        self._model = self.handle = self.signature = 0
        self.ends = new_flag()
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    def open(self, key: str | None, graph: Graph) -> None:
        """Read the file, and make the model ready for calls of a signature.

        Raises:
            LitertError: LiteRT refuses the file.
            ModelRefusedError: it has no such signature.
        """
        self._model = self.api.model(self.environment.handle, address_of(self._file), len(self._file))
        names, signatures = zip(*self.api.signatures(self._model), strict=True)
        self.signature = names.index(key) if key in names else 0
        self.inputs, self.outputs = (self.api.ends(signatures[self.signature], kind) for kind in ("Input", "Output"))
        found, wanted = (
            (set(inputs), set(outputs))
            for inputs, outputs in (
                (self.inputs, self.outputs),
                ([end.tensor for end in graph.inputs], [end.tensor for end in graph.outputs]),
            )
        )
        if found != wanted:
            raise ModelRefusedError("LiteRT does not have the model's inputs and outputs")
        if self._shared:
            self._weights = weights.opened(self._shared)
        self.renew()

    def renew(self) -> None:
        """See `Compiled.renew`."""
        self._drop()
        path = weights.path_of(self._weights) if self._weights is not None else ""
        self.handle = self.api.compiled(self.environment.handle, self._model, self._threads, self._precision, path)
        self.api.end_by(self.handle, self.ends)

    def fully_accelerated(self) -> bool:
        """Whether no operator is left to LiteRT's plain kernels."""
        return self.api.fully_accelerated(self.handle)

    def _drop(self) -> None:
        if self.handle:
            self.api.destroy("CompiledModel", self.handle)
            self.handle = 0

    def close(self) -> None:
        """See `Compiled.close`."""
        self._drop()
        if self._model:
            self.api.destroy("Model", self._model)
            self._model = 0
        self._file.close()  # it keeps a descriptor
        fd, self._weights = self._weights, None  # forgotten first: a close that fails closes all the same
        if fd is not None:
            os.close(fd)
        if self._left is not None:
            self._left()
            self._left = None
