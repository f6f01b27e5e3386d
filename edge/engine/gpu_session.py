"""A session on the GPU that outlives its device: it is set up anew once, then the CPU takes over (docs/adr/0038-gpu.md)."""

import logging
import os
from collections.abc import Sequence

from edge.engine.engine import Output, Session, SessionOptions, Shapes
from edge.engine.engines import Engines
from edge.engine.litert_session import LitertSession
from edge.errors import AcceleratorError, EdgeError, InferenceError
from edge.tensors import Data

log = logging.getLogger(__name__)


class GpuSession:
    """See `Session`."""

    def __init__(self, engines: Engines, model_fd: int, options: SessionOptions, name: str) -> None:
        """`name`: what the model is called in the log.

        Raises:
            ModelRefusedError, TargetError: as `Engine.open`.
        """
        self._engines, self._options, self._name = engines, options, name
        self._fd = os.dup(model_fd)
        self._cpu: Session | None = None
        self._ending = False
        self._anew = False  # the GPU has been set up anew and answered nothing since
        self.fell_back = ""  # why the CPU serves, once it does
        try:
            opened = engines.gpu.open(self._path, options)
        except BaseException:
            os.close(self._fd)
            raise
        self._gpu: LitertSession | None = opened
        self.inputs, self.outputs = opened.inputs, opened.outputs
        self.steady, self.borrows = opened.steady, opened.borrows

    @property
    def _path(self) -> str:
        return f"/proc/self/fd/{self._fd}"

    def run(self, data: Sequence[Data], shapes: Shapes) -> Sequence[Output]:
        """See `Session.run`."""
        if self._gpu is None:
            if self._options.fallback:
                return self._on_cpu().run(data, shapes)
            self._gpu = self._set_up_anew()
            if self._ending:
                self._gpu.end()
        try:
            outputs = self._gpu.run(data, shapes)
            self._anew = False
            return outputs
        except InferenceError as error:
            # Where the CPU fails too, the values are at fault, and the GPU stays as it is.
            answer = self._on_cpu().run(data, shapes) if self._options.fallback else None
            self._lost(str(error))
            if answer is None:
                raise AcceleratorError(f"the model's GPU fails: {error}") from None
            return answer

    def _lost(self, reason: str) -> None:
        """Set the GPU up anew; where that was done already, or fails, the CPU serves from now on."""
        lost, self._gpu = self._gpu, None
        if lost is not None:
            self._engines.gpu.renew(lost)
            lost.close()
        if not self._options.fallback:
            log.warning("model %s fails on the GPU, which is set up anew: %s", self._name, reason)
            return
        if not self._anew:
            log.warning("model %s fails on the GPU, which is set up anew: %s", self._name, reason)
            try:
                self._gpu, self._anew = self._set_up_anew(), True
                return
            except AcceleratorError as error:
                reason = str(error)
        self.fell_back = f"the GPU failed: {reason}"
        log.error("model %s is served on the CPU until it is loaded again: %s", self._name, self.fell_back)

    def _set_up_anew(self) -> LitertSession:
        """
        Raises:
            AcceleratorError: the GPU does not take the model any more.
        """
        try:
            return self._engines.gpu.open(self._path, self._options)
        except EdgeError as error:
            raise AcceleratorError(f"the model's GPU cannot be used: {error}") from None

    def _on_cpu(self) -> Session:
        if self._cpu is None:
            try:
                self._cpu = self._engines.open_on_cpu(self._path, self._options)
            except EdgeError as error:
                raise AcceleratorError(f"the GPU fails, and the CPU does not take the model: {error}") from None
            if self._ending:
                self._cpu.end()
        return self._cpu

    def end(self) -> bool:
        """See `Session.end`."""
        self._ending = True  # a session that is opened only now looks at this
        ended = [session.end() for session in (self._gpu, self._cpu) if session is not None]
        return any(ended)

    def may_run(self) -> None:
        """See `Session.may_run`."""
        self._ending = False
        for session in (self._gpu, self._cpu):
            if session is not None:
                session.may_run()

    def reset(self) -> None:
        """See `Session.reset`."""
        for session in (self._gpu, self._cpu):
            if session is not None:
                session.reset()

    def close(self) -> None:
        """See `Session.close`."""
        for session in (self._gpu, self._cpu):
            if session is not None:
                session.close()
        self._gpu = self._cpu = None
        fd, self._fd = self._fd, -1  # forgotten first: a close that fails closes all the same
        if fd >= 0:
            os.close(fd)
