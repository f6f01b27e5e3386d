"""The structure of a model file (L-7): whole ones pass, damaged ones are refused, whatever the damage."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.model_file import check_model_file
from edge.errors import ModelRefusedError

ROOT = Path(__file__).resolve().parents[2]
MODELS = sorted([*(ROOT / "tests" / "data").glob("*.tflite"), *(ROOT / "demo" / "data").glob("*.tflite")])
DIGITS = (ROOT / "demo" / "data" / "digits.tflite").read_bytes()


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_whole_models_pass(path: Path) -> None:
    check_model_file(memoryview(path.read_bytes()))


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x08\0\0\0TFL2" + bytes(100), b"not a model at all"])
def test_other_files(data: bytes) -> None:
    with pytest.raises(ModelRefusedError, match="not a TensorFlow Lite model"):
        check_model_file(memoryview(data))


@pytest.mark.parametrize("part", range(1, 20))
def test_cut_short(part: int) -> None:
    with pytest.raises(ModelRefusedError):
        check_model_file(memoryview(DIGITS[: len(DIGITS) * part // 20]))


def test_an_offset_that_leads_outside() -> None:
    damaged = bytearray(DIGITS)
    damaged[0:4] = struct.pack("<I", len(DIGITS) + 64)
    with pytest.raises(ModelRefusedError, match="Model lies outside"):
        check_model_file(memoryview(damaged))


def test_many_names_for_one_place_end() -> None:
    """3000 subgraphs that are one, with 3000 tensors that are one: a small file, nine million steps."""
    count = 3000

    def pointing(start: int, target: int) -> bytes:
        return struct.pack("<I", count) + b"".join(struct.pack("<I", target - start - 4 - 4 * n) for n in range(count))

    vector_bytes = 4 + 4 * count
    graphs = 40  # behind the header, the two vtables and the model's table
    graph = graphs + vector_bytes
    tensors = graph + 8
    tensor = tensors + vector_bytes
    data = struct.pack("<I4s", 24, b"TFL3")
    data += struct.pack("<HHHHH", 10, 8, 0, 0, 4) + struct.pack(
        "<HHH", 6, 8, 4
    )  # field 2 of Model; field 0 of SubGraph
    data += struct.pack("<ii", 24 - 8, graphs - 28) + bytes(graphs - 32)
    data += pointing(graphs, graph)
    data += struct.pack("<ii", graph - 18, tensors - graph - 4) + pointing(tensors, tensor)
    data += struct.pack("<i", -4) + struct.pack("<HH", 4, 4)  # a Tensor without fields, its vtable behind it
    with pytest.raises(ModelRefusedError, match="too often"):
        check_model_file(memoryview(data))


@given(st.lists(st.tuples(st.integers(0, len(DIGITS) - 1), st.integers(0, 255)), min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_arbitrary_damage(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(DIGITS)
    for at, value in changes:
        damaged[at] = value
    try:
        check_model_file(memoryview(damaged))
    except ModelRefusedError as error:
        assert "model file" in str(error)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(ModelRefusedError):
        check_model_file(memoryview(b"\x10\0\0\0TFL3" + data))
