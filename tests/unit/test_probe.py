"""The trial of a model in a child process: what it finds, and what its end means (L-6, L-7, L-10, ADR 2, ADR 17)."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.engine import child, probe
from edge.engine.engine import SessionOptions
from edge.engine.probe import ProbeResult
from edge.engine.samples import Sample
from edge.errors import MemoryLimitError, ModelRefusedError
from tests.data.make_models import add_one, identity
from tests.fakes import descriptors

DATA = Path(__file__).parents[1] / "data"
ANSWER = '{"session_bytes": 5, "kind": "zeros", "borrows": []}'
STEP = '{"step": "", "lenient": false, "engine": "an engine 1.0", "others": false}'
BETTER = '{"session_bytes": 5, "kind": "zeros", "in_place": true, "borrows": []}'
BEST = '{"session_bytes": 5, "kind": "zeros", "in_place": true, "borrows": [0, 2]}'

Probed = Callable[[Path | bytes], ProbeResult]


@pytest.fixture
def probed(tmp_path: Path) -> Probed:
    """Tries a model out."""

    def probe_file(model: Path | bytes) -> ProbeResult:
        if isinstance(model, bytes):
            (tmp_path / "model.tflite").write_bytes(model)
            model = tmp_path / "model.tflite"
        fd = os.open(model, os.O_RDONLY)
        try:
            return probe.probe(fd, SessionOptions(), Sample(), run_seconds=30)
        finally:
            os.close(fd)

    return probe_file


@pytest.fixture
def child_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a shell script in the place of the program."""

    def use(script: str) -> None:
        program = tmp_path / "child"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(stat.S_IRWXU)
        monkeypatch.setattr(child, "self_command", lambda: [str(program)])

    yield use


@pytest.mark.parametrize("free", range(10))
def test_a_child_without_descriptors_leaves_nothing_behind(free: int) -> None:  # [L-6] [L-9]
    wanted = pytest.raises(MemoryLimitError, match=r"no process can be started.*Too many open files.*LimitNOFILE")
    with descriptors.left(free), wanted:
        child.Child({}, [])


@pytest.mark.parametrize(
    ("name", "in_place"), [("add_one", True), ("two_by_two", True), ("moving", False), ("slow", False)]
)
def test_a_trial_says_whether_tensors_stay_in_place(probed: Probed, name: str, in_place: bool) -> None:
    assert probed(DATA / f"{name}.tflite").in_place is in_place


@pytest.mark.parametrize(("model", "borrows"), [(add_one((1, 8192)), (0,)), (identity("float32", (1, 8192)), ())])
def test_a_trial_says_what_may_be_borrowed(probed: Probed, model: bytes, borrows: tuple[int, ...]) -> None:  # ADR 19
    assert probed(model).borrows == borrows


def test_the_last_answer_counts(probed: Probed, child_that: Callable[[str], None]) -> None:
    child_that(f"echo '{ANSWER}'; echo '{BETTER}'")
    assert probed(DATA / "add_one.tflite") == ProbeResult(5, "zeros", in_place=True)
    child_that(f"echo '{ANSWER}'; echo '{BETTER}'; echo '{BEST}'")
    assert probed(DATA / "add_one.tflite") == ProbeResult(5, "zeros", in_place=True, borrows=(0, 2))


@pytest.mark.parametrize("end", ["kill -SEGV $$", "kill -KILL $$", "kill -ABRT $$", "exit 1", "exit 139"])
def test_an_end_after_the_answer_costs_the_short_cut_only(
    probed: Probed, child_that: Callable[[str], None], end: str
) -> None:
    child_that(f"echo '{ANSWER}'; {end}")
    assert probed(DATA / "add_one.tflite") == ProbeResult(5, "zeros")


@pytest.mark.parametrize(
    ("end", "error", "words"),
    [
        ("kill -KILL $$", MemoryLimitError, "lack of memory"),
        (f"echo '{STEP}'; kill -SEGV $$", ModelRefusedError, r"an engine 1\.0\) crashes, SIGSEGV, on the model file"),
        ("exit 139", ModelRefusedError, "SIGSEGV"),  # as an emulator says it
        ('echo \'{"step": "ones", "lenient": false}\'; kill -FPE $$', ModelRefusedError, "SIGFPE, on ones"),
        ("exit 0", ModelRefusedError, "fails on the model file"),
        ("exit 1", ModelRefusedError, "fails on the model file"),
    ],
)
def test_an_end_without_an_answer_refuses_the_model(
    probed: Probed, child_that: Callable[[str], None], end: str, error: type[Exception], words: str
) -> None:  # [L-6] [L-7]
    child_that(end)
    with pytest.raises(error, match=words):
        probed(DATA / "add_one.tflite")


def test_a_trial_without_end_is_ended(
    probed: Probed, child_that: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:  # [L-7]
    monkeypatch.setattr(probe, "OPENING_SECONDS", 0.2)
    child_that("exec sleep 60")
    with pytest.raises(ModelRefusedError, match="took longer than"):
        probed(DATA / "add_one.tflite")
