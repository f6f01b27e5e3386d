"""What is remarked of the requests for one model: said once in the log, for its clients repeat themselves, and counted."""

import logging
import threading

from edge.text import shown

log = logging.getLogger(__name__)


class Remarks:
    """Safe from any thread. `mislabelled`: calls with a tensor that was declared as something that it is not (P-2)."""

    def __init__(self, model: str) -> None:
        self.mislabelled = 0
        self._model = model
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def count_mislabelled(self) -> None:
        """One more call was taken."""
        with self._lock:
            self.mislabelled += 1

    def say_mislabelled(self, tensor: str, declared: str, own: str) -> None:
        """Such a tensor is taken."""
        text = "tensor %s is declared %s, which its bytes are not; taken as the model's own %s (edge_strict_tensors refuses it)"
        self._say("mislabelled", text, shown(tensor), declared, own)

    def say_refused(self, fault: str) -> None:
        """A request's tensors do not fit."""
        self._say("refused", "a request is refused: %s", fault)

    def _say(self, kind: str, text: str, *words: str) -> None:
        with self._lock:
            if kind in self._said:
                return
            self._said.add(kind)
        log.warning(f"model %s: {text}; said once while it is loaded", self._model, *words)
