"""A process that may open few files more."""

import contextlib
import gc
import resource
from collections.abc import Iterator
from pathlib import Path


def numbers() -> set[int]:
    """The descriptors that are open."""
    listed = list(Path("/proc/self/fd").iterdir())  # with the directory itself, which is closed again
    return {int(number.name) for number in listed if number.exists()}


@contextlib.contextmanager
def left(free: int) -> Iterator[None]:
    """Within the block, this process gets `free` descriptors more; none of them may stay open."""
    gc.collect()  # what a test before left would make room
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = numbers()
    first_refused = [number for number in range(len(taken) + free + 1) if number not in taken][free]
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_refused, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert numbers() == taken
