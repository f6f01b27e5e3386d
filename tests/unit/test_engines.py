"""Which engine serves a model: the first of those that are tried in the trial that it runs in (L-7, L-10)."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.engine import child, litert
from edge.engine.engine import LITERT, TFLITE, DelegateRef, SessionOptions
from edge.engine.engines import Engines
from edge.engine.probe import TrialResult, probe
from edge.engine.samples import Sample
from edge.errors import ModelRefusedError, TargetError
from tests.data import hard_models
from tests.data.make_models import add_one, identity
from tests.fakes.engines import litert_is_there

needs_litert = pytest.mark.skipif(not litert_is_there(), reason="no LiteRT library is installed for this platform")
BOTH = (LITERT, TFLITE)
Tried = Callable[[bytes], TrialResult]


@pytest.fixture
def tried(tmp_path: Path) -> Tried:
    """Tries a model with LiteRT, and then with the interpreter."""

    def try_model(model: bytes) -> TrialResult:
        (tmp_path / "model.tflite").write_bytes(model)
        fd = os.open(tmp_path / "model.tflite", os.O_RDONLY)
        try:
            return probe(fd, SessionOptions(), Sample(), run_seconds=30, engines=BOTH)
        finally:
            os.close(fd)

    return try_model


@needs_litert
def test_litert_serves_what_runs_in_it(tried: Tried) -> None:
    found = tried(add_one((1, 8192)))
    assert (found.engine, found.kind, found.borrows) == (LITERT, "zeros", (0,))
    assert not found.passed_over
    assert tried(identity("float32", (1, 8192))).borrows == ()


def test_the_interpreter_is_lent_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(add_one((1, 8192)))
    with (tmp_path / "model.tflite").open("rb") as file:
        found = probe(file.fileno(), SessionOptions(), Sample(), run_seconds=30)
    assert (found.engine, found.kind, found.borrows) == (TFLITE, "zeros", ())


@needs_litert
@pytest.mark.parametrize(
    ("model", "why"),
    [
        (hard_models.counter(), "unsupported"),
        (hard_models.fill(), "an inference on zeros, ones, small numbers fails"),
        (hard_models.where_zero(), "fails"),
        (add_one((1,) * 9), "no tensor of shape"),
    ],
    ids=["variable", "fill", "where", "rank 9"],
)
def test_the_interpreter_serves_what_does_not(tried: Tried, model: bytes, why: str) -> None:
    found = tried(model)
    assert (found.engine, found.kind != "") == (TFLITE, True)
    assert why in found.passed_over


@needs_litert
def test_what_neither_takes_is_refused(tried: Tried) -> None:  # [L-7]
    with pytest.raises(ModelRefusedError, match="the runtime refuses the model file"):
        tried(hard_models.custom("Nobody"))


@pytest.mark.parametrize("lenient", ["true", "false"])
def test_a_model_that_crashes_one_engine_is_tried_in_the_other(
    tried: Tried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenient: str
) -> None:
    program = tmp_path / "child"
    said = [
        '{"step": "", "lenient": false, "engine": "LiteRT 2.3.0", "others": true}',
        f'{{"step": "zeros", "lenient": {lenient}}}',
    ]
    answer = '{"session_bytes": 5, "kind": "zeros", "borrows": [], "engine": "tflite"}'
    lines = "".join(f"echo '{line}'; " for line in said)
    program.write_text(f"#!/bin/sh\ncase \"$2\" in *litert*) {lines} kill -SEGV $$;; *) echo '{answer}';; esac\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setattr(child, "self_command", lambda: [str(program)])
    crash = "the runtime (LiteRT 2.3.0) crashes, SIGSEGV, on zeros"
    assert tried(add_one()) == TrialResult(5, "zeros", engine=TFLITE, passed_over=crash)


def test_a_delegate_is_the_interpreter_s() -> None:
    plain, delegated = SessionOptions(), SessionOptions(delegate=DelegateRef("/x.so"))
    assert [Engines("litert").for_model(options) for options in (plain, delegated)] == [BOTH, (TFLITE,)]
    assert Engines("tflite").for_model(plain) == (TFLITE,)


@needs_litert
def test_litert_is_first_unless_another_is_asked_for() -> None:
    engines = Engines()
    assert engines.for_model(SessionOptions()) == BOTH
    assert engines.describe() == Engines("litert").describe() == engines.describe(LITERT)


def test_where_litert_is_missing_the_interpreter_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # [L-7]
    monkeypatch.setattr(litert, "LIBRARY", "nowhere.so")
    (tmp_path / "model.tflite").write_bytes(add_one((1, 4)))
    assert Engines().for_model(SessionOptions()) == (TFLITE,)  # and no word of it with each model
    assert Engines().describe() == Engines("tflite").describe()
    engines = Engines("litert")
    engines.prepare()
    with pytest.raises(TargetError):
        engines.prepare(LITERT)
    session = engines.open(str(tmp_path / "model.tflite"), SessionOptions(engine=TFLITE))
    session.close()
