"""What a model file says of its graphs, held beside what the interpreter says (P-8, P-9)."""

from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

from edge.arrays import dtype_of
from edge.engine import lending
from edge.engine.engine import SessionOptions
from edge.engine.model_graph import End, read_graph
from edge.engine.model_reading import facts_of, graph_of
from edge.engine.specs import make_specs
from edge.engine.tflite import TfliteEngine
from edge.errors import ModelRefusedError, UnsupportedModelError
from tests.data import hard_models
from tests.data.tflite_writer import Op

ROOT = Path(__file__).parents[2]
CARRIED = sorted(
    path
    for folder in ("tests/data", "demo/data")
    for path in (ROOT / folder).glob("*.tflite")
    if path.stem not in ("string", "complex64", "name_not_utf8")
)
INTERPRETER = TfliteEngine().prepare().Interpreter


def ends_of(details: list[dict[str, Any]]) -> list[End]:
    """Inputs or outputs as the interpreter has them."""
    return [
        End(
            one["index"],
            one["name"],
            dtype_of(one["dtype"]),
            "",
            tuple(one["shape"].tolist()),
            tuple(one["shape_signature"].tolist()) or tuple(one["shape"].tolist()),
            *one["quantization"],
        )
        for one in details
    ]


@pytest.mark.parametrize("path", CARRIED, ids=lambda path: path.stem)
def test_the_file_s_inputs_and_outputs_are_the_interpreter_s(path: Path) -> None:
    interpreter, facts, graph = INTERPRETER(model_path=str(path)), facts_of(str(path)), graph_of(str(path))
    ends = [ends_of(details) for details in (interpreter.get_input_details(), interpreter.get_output_details())]
    options = SessionOptions()
    assert make_specs(graph.inputs, graph.outputs, options, facts) == make_specs(ends[0], ends[1], options, facts)
    assert [end.tensor for end in graph.inputs] == [end.tensor for end in ends[0]]


def test_a_graph_is_found_by_its_number() -> None:
    data = memoryview(hard_models.signatures(several=True))
    assert [end.name for end in read_graph(data, 1).outputs] == ["y:0"]
    assert read_graph(data, 1).inputs[0].signature == (-1,)
    assert read_graph(data, 0).operators == ((Op.SUB, (1, 0)),)
    with pytest.raises(ModelRefusedError, match="an index is out of range"):
        read_graph(data, 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("string", "takes text .string tensor 'x'."),
        ("complex64", "'x' has element type complex64"),
        ("name_not_utf8", "not UTF-8"),
    ],
)
def test_what_the_api_cannot_carry_is_told_from_the_file(name: str, words: str) -> None:
    path = str(ROOT / "tests" / "data" / f"{name}.tflite")
    with pytest.raises(UnsupportedModelError, match=words):
        make_specs(graph_of(path).inputs, graph_of(path).outputs, SessionOptions(), facts_of(path))


def test_a_tensor_s_scale_is_read() -> None:
    (image,) = graph_of(str(ROOT / "demo" / "data" / "digits_int8.tflite")).inputs
    detail = INTERPRETER(model_path=str(ROOT / "demo" / "data" / "digits_int8.tflite")).get_input_details()[0]
    assert (image.scale, image.zero_point) == detail["quantization"] != (0.0, 0)


def test_the_guard_of_lent_inputs_goes_by_the_schema_s_numbers() -> None:
    known = {name: number for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    for operators in (lending.CALCULATE_WITH_ALL, lending.CALCULATE_WITH_FIRST):
        assert operators == {name: known[name] for name in operators}
