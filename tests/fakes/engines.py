"""Which engines are there to be tested."""

import importlib.util
import json
import os

from edge.engine import litert
from edge.errors import TargetError


def litert_is_there() -> bool:
    """Whether LiteRT's library is installed, in the release that the agent knows."""
    try:
        litert.library()
    except TargetError:
        return False
    return True


def gpu_is_there() -> bool:
    """Whether LiteRT's library for the GPU is."""
    try:
        litert.gpu_folder()
    except TargetError:
        return False
    return True


def litert_serves() -> bool:
    """Whether the agent under test has LiteRT: a binary does, unless an emulator runs it in which that crashes."""
    return "AGENT_OLD_EMULATOR" not in os.environ if "AGENT_COMMAND" in os.environ else litert_is_there()


def interpreter() -> str:
    """Whose interpreter the agent under test has: a binary tflite_runtime's, a source tree the newer one if it is installed."""
    newer = "AGENT_COMMAND" not in os.environ and importlib.util.find_spec("ai_edge_litert")
    return "ai_edge_litert" if newer else "tflite_runtime"


def plain_engine() -> str:
    """What serves a plain model in the agent under test, by its configuration's name."""
    settings = json.loads(os.environ.get("AGENT_SETTINGS", "{}"))
    return "litert" if litert_serves() and settings.get("edge_engine") != "tflite" else "tflite"
