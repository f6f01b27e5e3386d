"""A GPU's answers beside the CPU's, with two models of the CPU's in their places [ACC-2]."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.engine.agreement import check_agreement
from edge.engine.engine import FLOAT16, FLOAT32, Session, SessionOptions
from edge.engine.engines import Engines
from edge.engine.sample_inputs import SampleInputs
from edge.engine.samples import MADE_UP, Sample
from edge.errors import ModelRefusedError
from tests.data import make_models
from tests.data.tflite_writer import Model, Op


class Pair(Engines):
    """Engines whose GPU serves another model."""

    def __init__(self, on_gpu: Path) -> None:
        super().__init__()
        self._on_gpu = str(on_gpu)

    def open(self, model_path: str, options: SessionOptions) -> Session:
        return self.open_on_cpu(self._on_gpu, options)


def agree(folder: Path, on_cpu: bytes, on_gpu: bytes, precision: str = FLOAT32) -> None:
    for name, model in (("cpu", on_cpu), ("gpu", on_gpu)):
        (folder / name).write_bytes(model)
    engines = Pair(folder / "gpu")
    session = engines.open_on_cpu(str(folder / "cpu"), SessionOptions())
    inputs = SampleInputs(session.inputs, Sample())
    session.close()
    check_agreement(engines, str(folder / "cpu"), SessionOptions(precision=precision), inputs, MADE_UP)


def add(dtype: Any, amount: float) -> bytes:
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", dtype, (4,)), graph.tensor("y", dtype, (4,))
    graph.op(Op.ADD, [x, graph.constant("amount", np.asarray(amount, dtype))], [y])
    graph.ends([x], [y])
    return model.to_bytes()


@pytest.mark.parametrize(("amount", "precision", "fine"), [
    (1.0005, FLOAT32, True),
    (1.005, FLOAT32, False),
    (1.005, FLOAT16, True),
    (1.1, FLOAT16, False),
    (float("nan"), FLOAT16, False),
])  # fmt: skip
def test_floats(tmp_path: Path, amount: float, precision: str, fine: bool) -> None:  # [ACC-2]
    pair = make_models.add_one(), make_models.add_one(amount=amount)
    if fine:
        agree(tmp_path, *pair, precision)
        return
    with pytest.raises(ModelRefusedError, match="output 'y'"):
        agree(tmp_path, *pair, precision)


def test_integers_are_equal(tmp_path: Path) -> None:  # [ACC-2]
    agree(tmp_path, add(np.int32, 1), add(np.int32, 1))
    with pytest.raises(ModelRefusedError, match="off by 1 in output 'y'; 0 are allowed"):
        agree(tmp_path, add(np.int32, 1), add(np.int32, 2))
