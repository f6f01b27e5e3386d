"""What is remarked of the requests for one model: said once in the log, for its clients repeat themselves, and counted."""

import logging
import threading

from edge.errors import EdgeError
from edge.serving.failed import FailedCalls
from edge.tally import Tally
from edge.text import shown

log = logging.getLogger(__name__)


class Remarks:
    """Safe from any thread. `mislabelled`: calls with a tensor that was declared as something that it is not (P-12);

    `failed`: inferences that did not end with OK, by the name of their status. `failed_calls`: who looks into calls that the
    runtime failed on (W-6), if anybody does.
    """

    def __init__(self, model: str) -> None:
        self.mislabelled = 0
        self.failed = Tally()
        self.failed_calls: FailedCalls | None = None
        self._model = model
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def count_mislabelled(self) -> None:
        """One more call was taken."""
        with self._lock:
            self.mislabelled += 1

    def count_failed(self, status: str = "INTERNAL") -> None:
        """One more inference was asked for and ended with a status other than OK."""
        self.failed.count(status)

    def say_mislabelled(self, tensor: str, declared: str, own: str) -> None:
        """Such a tensor is taken."""
        text = "tensor %s is declared as %s, which does not match its bytes; read as the model's own %s (edge_strict_tensors refuses it)"
        self._say("mislabelled", text, shown(tensor), declared, own)

    def say_refused(self, error: EdgeError) -> None:
        """A request is refused for what it brings; each kind of error is said."""
        self._say(type(error).__name__, "a request is refused: %s", str(error))

    def _say(self, kind: str, text: str, *words: str) -> None:
        with self._lock:
            if kind in self._said:
                return
            self._said.add(kind)
        log.warning(f"model %s: {text}; logged once while it is loaded", self._model, *words)
