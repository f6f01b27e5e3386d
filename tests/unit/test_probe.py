"""The trial of a model in a child process: what it finds, and what its end means (L-6, L-7, ADR 2, ADR 17)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import MemoryLimitError, ModelRefusedError
from edge.runtime import probe
from tests.data.make_models import add_one, identity

DATA = Path(__file__).parents[1] / "data"
ANSWER = b'{"session_bytes": 5, "in_place": false}\n'
BEST = b'{"session_bytes": 5, "in_place": true, "borrows": [0, 2]}\n'
BETTER = b'{"session_bytes": 5, "in_place": true}\n'


@pytest.fixture
def model() -> Iterator[int]:
    fd = os.open(DATA / "add_one.tflite", os.O_RDONLY)
    yield fd
    os.close(fd)


def ended(code: int, said: bytes) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.CompletedProcess([], code, said, b"")


@pytest.mark.parametrize(
    ("name", "in_place"), [("add_one", True), ("two_by_two", True), ("moving", False), ("slow", False)]
)
def test_a_trial_says_whether_tensors_stay_in_place(name: str, in_place: bool) -> None:
    fd = os.open(DATA / f"{name}.tflite", os.O_RDONLY)
    try:
        assert probe.probe(fd, threads=1, delegate=None).in_place is in_place
    finally:
        os.close(fd)


@pytest.mark.parametrize(("model", "borrows"), [(add_one((1, 8192)), (0,)), (identity("float32", (1, 8192)), ())])
def test_a_trial_says_what_may_be_borrowed(tmp_path: Path, model: bytes, borrows: tuple[int, ...]) -> None:  # ADR 19
    (tmp_path / "model.tflite").write_bytes(model)
    fd = os.open(tmp_path / "model.tflite", os.O_RDONLY)
    try:
        assert probe.probe(fd, threads=1, delegate=None).borrows == borrows
    finally:
        os.close(fd)


def test_the_last_answer_counts() -> None:
    assert probe._judge(ended(0, ANSWER + BETTER)) == probe.ProbeResult(5, True)
    assert probe._judge(ended(0, ANSWER + BETTER + BEST)) == probe.ProbeResult(5, True, (0, 2))


@pytest.mark.parametrize("code", [-11, -9, -6, 1, 139])
def test_an_end_after_the_answer_costs_the_short_cut_only(code: int) -> None:
    assert probe._judge(ended(code, ANSWER)) == probe.ProbeResult(5, False)


@pytest.mark.parametrize(
    ("code", "error"), [(-9, MemoryLimitError), (-11, ModelRefusedError), (139, ModelRefusedError)]
)
def test_an_end_without_an_answer_refuses_the_model(code: int, error: type[Exception]) -> None:  # [L-6] [L-7]
    with pytest.raises(error):
        probe._judge(ended(code, b""))


@pytest.mark.parametrize("said", [b"", b"engine chatter\n", b'{"in_place": true}\n', b"[]\n"])
def test_words_that_are_no_answer_refuse_the_model(said: bytes) -> None:  # [L-7]
    with pytest.raises(ModelRefusedError):
        probe._judge(ended(0, said))


def test_a_trial_without_end_is_ended(model: int, monkeypatch: pytest.MonkeyPatch) -> None:  # [L-7]
    monkeypatch.setattr(probe, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(probe, "self_command", lambda: ["sh", "-c", "exec sleep 60"])
    with pytest.raises(ModelRefusedError, match="took longer than"):
        probe.probe(model, threads=1, delegate=None)
