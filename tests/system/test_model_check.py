"""`package --check` and `make test-models`: the agent beside the bare engine on models of one's own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data import hard_models, make_models
from tests.system.conftest import run_tool
from tests.system.harness import ROOT, from_source


def packaged(signer: Any, model: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    out = model.with_suffix(".tar.gz")
    key = ("--key", str(signer.key), "--cert", str(signer.certificate), "--out", str(out))
    return run_tool(
        "package", "--check", "--model", str(model), "--name", "m", "--version", "1", *key, *words, check=False
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (make_models.add_one(), ()),
        (hard_models.counter(), ("--state", "keep")),
        (hard_models.convolution(1), ("--sample", "x=1,4,4,3")),
        (hard_models.where_zero(), ("--threads", "1")),
        (hard_models.sparse_convolution(), ()),
    ],
)
def test_a_model_that_is_answered_as_by_the_engine_is_packaged(
    signer: Any, tmp_path: Path, model: bytes, words: tuple[str, ...]
) -> None:
    (tmp_path / "m.tflite").write_bytes(model)
    said = packaged(signer, tmp_path / "m.tflite", *words)
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "m.tar.gz").exists()


@pytest.mark.parametrize(
    ("model", "word"), [(hard_models.convolution(1), "--sample"), (hard_models.custom("FlexErf"), "FlexErf")]
)
def test_another_is_not(signer: Any, tmp_path: Path, model: bytes, word: str) -> None:
    (tmp_path / "m.tflite").write_bytes(model)
    said = packaged(signer, tmp_path / "m.tflite")
    assert said.returncode == 2 and "does not pass the check (refused)" in said.stderr and word in said.stderr
    assert not (tmp_path / "m.tar.gz").exists()


@pytest.mark.skipif(not from_source(), reason="make is for the sources")
def test_a_folder_of_models_makes_a_table(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "good.tflite").write_bytes(make_models.add_one())
    (tmp_path / "below" / "flex.tflite").write_bytes(hard_models.custom("FlexErf"))
    words = [sys.executable, "-m", "edge.client.checking", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[1].rpartition("/")[2]: line.split()[0] for line in done.stdout.splitlines()[1:-1]}
    assert rows == {"good.tflite": "same", "flex.tflite": "refused"}
    assert done.stdout.splitlines()[-1] == "2 models: 1 same, 0 differs, 1 refused, 0 died"
