"""XNNPACK's quantised operators, where the interpreter package at hand leaves them out (P-8, U-3, L-7).

What a quantised net answers with them is compared in tests/system/test_numerics.py.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.engine.engine import SessionOptions
from edge.engine.tflite import TfliteEngine
from edge.engine.xnnpack import QUANTISED, Xnnpack
from tests.data.tflite_writer import Model, Op, Quantization, u8

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
STEP = Quantization(0.5)


def doubled(rows: int, *, counting: bool = False, wide: int = 4) -> bytes:
    """`y` is twice `x`, int8 [rows, wide]; `counting`: beside it, `count` ones are made, how many is not known before."""
    model = Model()
    graph = model.graph()
    x = graph.tensor("x", np.int8, [rows, wide], quantization=STEP)
    y = graph.tensor("y", np.int8, [rows, wide], quantization=STEP)
    weights = graph.constant("weights", 4 * np.eye(wide, dtype=np.int8), STEP)
    graph.op(Op.FULLY_CONNECTED, [x, weights, -1], [y], {0: u8(0)}, 4)
    if counting:
        count, ones = graph.tensor("count", np.int32, [1]), graph.tensor("ones", np.float32, [1])
        twos = graph.tensor("twos", np.float32, [1])
        graph.op(Op.FILL, [count, graph.constant("each", np.float32(1))], [ones])
        graph.op(Op.ADD, [ones, ones], [twos])
        graph.ends([x, count], [y])
    else:
        graph.ends([x], [y])
    return model.to_bytes()


def answers(path: Path, *inputs: Sequence["np.ndarray[Any, Any]"], threads: int = 1) -> list[list[int]]:
    """What a session says to some inputs, one after the other."""
    session = TfliteEngine().open(str(path), SessionOptions(threads=threads))
    found = []
    for arrays in inputs:
        outputs = session.run([array.tobytes() for array in arrays], tuple(array.shape for array in arrays))
        found.append(np.frombuffer(bytes(memoryview(outputs[0])), np.int8).tolist())
        del outputs
    session.close()
    return found


def test_a_quantised_net_of_any_batch(tmp_path: Path) -> None:  # [P-8]
    (tmp_path / "net.tflite").write_bytes(doubled(-1))
    batches = [np.arange(4 * rows, dtype=np.int8).reshape(rows, 4) for rows in (1, 3, 2)]
    assert answers(tmp_path / "net.tflite", *([batch] for batch in batches)) == [
        (2 * batch).ravel().tolist() for batch in batches
    ]


def test_a_graph_that_takes_no_delegate_is_run_without(tmp_path: Path) -> None:  # [L-7]
    (tmp_path / "net.tflite").write_bytes(doubled(1, counting=True))
    x = np.array([[1, -2, 3, 4]], np.int8)
    counts = [np.array([count], np.int32) for count in (1, 1000, 2)]
    assert answers(tmp_path / "net.tflite", *([x, count] for count in counts)) == [[2, -4, 6, 8]] * 3


def test_memory_and_threads_go_with_the_session(tmp_path: Path) -> None:  # [U-3]
    (tmp_path / "net.tflite").write_bytes(doubled(1, wide=4096))  # 16 MiB of weights, packed at each opening
    x = np.zeros((1, 4096), np.int8)

    def held() -> tuple[int, int]:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096, len(list(Path("/proc/self/task").iterdir()))

    answers(tmp_path / "net.tflite", [x], threads=2)
    memory, threads = held()
    for _ in range(20):
        answers(tmp_path / "net.tflite", [x], threads=2)
    now = held()
    assert now[0] - memory < 128 * MIB  # glibc keeps two or three sets of weights for the next one
    assert now[1] <= threads


def test_nothing_is_taken_from_an_interpreter_that_is_open_at_the_exit(tmp_path: Path) -> None:  # as the trial's may be
    (tmp_path / "program.py").write_text(
        """
from types import SimpleNamespace
from edge.engine.xnnpack import Xnnpack, _Options
library = SimpleNamespace(
    TfLiteXNNPackDelegateOptionsDefault=lambda: _Options(),
    TfLiteXNNPackDelegateCreate=lambda options: 1,
    TfLiteXNNPackDelegateDelete=lambda pointer: print("deleted", pointer),
)
first, second = Xnnpack(library).delegate(1), Xnnpack(library).delegate(1)
del first
print("exit")
"""
    )
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["deleted 1", "exit", ""]


@pytest.mark.parametrize("flags", [0, 1, QUANTISED, QUANTISED | 64])
def test_help_is_given_where_it_is_needed(flags: int) -> None:
    functions = {name: lambda *_: SimpleNamespace(flags=flags) for name in ("OptionsDefault", "Create", "Delete")}
    library: Any = SimpleNamespace(**{f"TfLiteXNNPackDelegate{name}": function for name, function in functions.items()})
    assert Xnnpack(library).lacks_quantised() == (flags & QUANTISED != QUANTISED)


def test_a_package_that_keeps_its_functions_to_itself_is_left_alone() -> None:
    assert Xnnpack.of("no_interpreter_package") is None
