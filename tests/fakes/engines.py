"""Which engines are there to be tested."""

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
