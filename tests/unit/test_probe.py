"""The trial of a model in a child process: what it finds, and what its end means (L-6, L-7, L-10, ADR 2)."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.engine import child, probe
from edge.engine.engine import SessionOptions
from edge.engine.probe import TrialResult
from edge.engine.samples import Sample
from edge.errors import MemoryLimitError, ModelRefusedError
from tests.fakes import descriptors

DATA = Path(__file__).parents[1] / "data"
ANSWER = '{"session_bytes": 5, "kind": "zeros", "borrows": []}'
STEP = '{"step": "", "lenient": false, "engine": "an engine 1.0", "others": false}'
LENDING = '{"step": "lending", "lenient": false}'
CLOSING = '{"step": "closing", "lenient": false}'
BETTER = '{"session_bytes": 5, "kind": "zeros", "borrows": [0, 2]}'

Probed = Callable[[Path | bytes], TrialResult]


@pytest.fixture
def probed(tmp_path: Path) -> Probed:
    """Tries a model out."""

    def probe_file(model: Path | bytes) -> TrialResult:
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


@pytest.mark.parametrize("end", ["kill -SEGV $$", "kill -KILL $$", "exit 1", "exit 139"])
def test_an_end_after_the_answer_is_no_news(probed: Probed, child_that: Callable[[str], None], end: str) -> None:
    child_that(f"echo '{BETTER}'; {end}")
    assert probed(DATA / "add_one.tflite") == TrialResult(5, "zeros", borrows=(0, 2))


@pytest.mark.parametrize(
    "end", ["kill -SEGV $$", "kill -KILL $$", "kill -ABRT $$", "exit 1", "exit 139", "exec sleep 60"]
)
def test_an_end_while_inputs_are_lent_costs_the_lending_alone(
    probed: Probed, child_that: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:  # ADR 19
    monkeypatch.setattr(probe, "AFTERWARDS_SECONDS", 0.2 if "sleep" in end else 60)
    child_that(
        f"""case $2 in
        *'"lends": true'*) echo '{LENDING}'; {end};;
        *) echo '{ANSWER}';;
        esac"""
    )
    assert probed(DATA / "add_one.tflite") == TrialResult(5, "zeros")


def test_a_crash_of_the_engine_when_a_session_that_lent_is_closed_refuses_the_model(
    probed: Probed, child_that: Callable[[str], None]
) -> None:  # [L-7]
    child_that(f"echo '{LENDING}'; echo '{CLOSING}'; kill -ABRT $$")
    with pytest.raises(ModelRefusedError, match="SIGABRT, on the model file"):
        probed(DATA / "add_one.tflite")


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
