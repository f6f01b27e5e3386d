"""Searches for bytes that a target's check does not bear, for a given time; the same seed takes the same way."""

import hashlib
import logging
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.mutate import mutate, smaller
from tests.fuzz.targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
LONGEST_SECONDS = 20  # for one input: what takes longer has failed


@dataclass(frozen=True)
class Result:
    """How many inputs were tried, and the one that failed, made small, with its traceback."""

    tried: int
    failing: bytes | None = None
    trace: str = ""


def explore(target: Target, number: int, seconds: float, most: int | None = None) -> Result:
    """Try inputs for so long, or `most` of them, from the seed `number` on."""
    chance = Random(number)
    until = time.monotonic() + seconds
    tried = 0
    while time.monotonic() < until and tried != most:
        data = mutate(chance, target.seeds, target.tokens, is_json=target.is_json)
        tried += 1
        if fault(target, data):
            data = smaller(data, lambda shorter: bool(fault(target, shorter)))
            return Result(tried, data, fault(target, data))
    return Result(tried)


def explore_by_name(name: str, number: int, seconds: float) -> Result:
    """As `explore`, for another process."""
    logging.getLogger("edge").addHandler(logging.NullHandler())
    logging.getLogger("edge").propagate = False
    return explore(TARGETS[name], number, seconds)


def fault(target: Target, data: bytes) -> str:
    """The traceback of what the check raises; empty where it bears the data."""
    try:
        with _at_most(LONGEST_SECONDS):
            target.check(data)
    except Exception:
        return traceback.format_exc()
    return ""


def save(name: str, data: bytes, corpus: Path = CORPUS) -> Path:
    """Keep an input of a target in the corpus, where the unit tests try it again."""
    path = corpus / name / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
