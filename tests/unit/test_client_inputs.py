"""Files and JSON become exactly the tensors that the model takes, or a sentence."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.client import bmp, inputs
from edge.client.outcome import InputError
from edge.rpc._generated import agent_pb2 as pb
from edge.tensors import DType


def spec(name: str, dtype: str, shape: list[int]) -> pb.TensorMetadata:
    return pb.TensorMetadata(name=name, data_type=dtype, shape=shape)


X = spec("x", "FLOAT32", [1, 4])
IMAGE = spec("image", "UINT8", [1, 2, 4, 3])


def test_npy_goes_in_by_order_and_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((1, 4), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((1, 4), np.float32))
    pair = [X, spec("y", "FLOAT32", [1, 4])]
    first, second = inputs.read_inputs([f"y={tmp_path}/b.npy", f"{tmp_path}/a.npy"], pair)
    assert (first[0], first[1].sum()) == ("x", 4)
    assert (second[0], second[1].sum()) == ("y", 0)


def test_json_for_one_input_and_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.json").write_text("[1, 2, 3, 4]")
    assert inputs.read_inputs([str(tmp_path / "one.json")], [X])[0][1].tolist() == [[1, 2, 3, 4]]
    (tmp_path / "all.json").write_text(json.dumps({"x": [[1, 2, 3, 4]], "n": 5}))
    found = inputs.read_inputs([str(tmp_path / "all.json")], [X, spec("n", "INT32", [])])
    assert found[1][1].tolist() == 5
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[5, 6, 7, 8]")))
    assert inputs.read_inputs(["-"], [X])[0][1].tolist() == [[5, 6, 7, 8]]


def test_picture_is_resized_to_the_model(tmp_path: Path) -> None:
    (tmp_path / "p.bmp").write_bytes(bmp.encode(np.full((8, 8, 3), 9, np.uint8)))
    array = inputs.read_inputs([str(tmp_path / "p.bmp")], [IMAGE])[0][1]
    assert (array.shape, array.dtype, int(array.max())) == ((1, 2, 4, 3), np.uint8, 9)


@pytest.mark.parametrize("suffix", [".png", ".JPG"])
def test_other_pictures_by_pillow(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tmp_path / f"p{suffix}")
    Image.new("L", (8, 8), 9).save(file)
    array = inputs.read_inputs([file], [IMAGE])[0][1]
    assert (array.shape, array.dtype, int(array.max())) == ((1, 2, 4, 3), np.uint8, 9)
    Path(file).write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a picture that Pillow reads"):
        inputs.read_inputs([file], [IMAGE])
    monkeypatch.setitem(sys.modules, "PIL.Image", None)  # what an import system without Pillow says
    with pytest.raises(InputError, match=r"only BMP pictures are read where Python's Pillow is not installed"):
        inputs.read_inputs([file], [IMAGE])


def test_what_is_read_is_said_without_jargon(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("x.txt", "objects.npy"):
        with pytest.raises(InputError, match=r"supported are \.npy \(of numbers\), \.json, \.bmp; \.png") as refused:
            inputs.read_inputs([str(tmp_path / name)], [IMAGE])
        assert "pickle" not in str(refused.value)


def test_picture_with_channels_first_and_of_free_size() -> None:
    colour = np.zeros((5, 6, 3), np.uint8)
    assert inputs.from_picture(colour, spec("p", "FLOAT32", [1, 3, 7, 9])).shape == (1, 3, 7, 9)
    assert inputs.from_picture(colour, spec("p", "FLOAT32", [1, 1, 1, 3])).shape == (1, 5, 6, 3)
    assert inputs.from_picture(colour, spec("p", "FLOAT32", [1, 8, 8, 1]), (8, 8, 1)).shape == (1, 8, 8, 1)


@pytest.mark.parametrize("dtype", [d.name for d in DType])
def test_every_dtype_there_and_back(dtype: str) -> None:
    metadata = spec("x", dtype, [2])
    array = inputs.from_json([0, 1], metadata)
    message = inputs.tensor("x", array)
    assert message.tensor_metadata == metadata
    assert inputs.array_of(message).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [([300], "UINT8"), ([-1], "UINT64"), ([1.5], "INT32"), ([1e300], "FLOAT32"), ([2], "BOOL"), ([70000], "FLOAT16")],
)
def test_values_that_would_change_are_refused(value: list[float], dtype: str) -> None:
    with pytest.raises(InputError, match="cannot hold"):
        inputs.from_json(value, spec("x", dtype, [1]))


def test_floats_may_be_rounded() -> None:
    assert inputs.from_json([0.1], spec("x", "FLOAT32", [1]))[0] == np.float32(0.1)


@pytest.mark.parametrize("text", ["[[1], [2, 3]]", '["a"]', "null", "{", "[" * 100000])
def test_json_that_is_no_tensor_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError):
        inputs.read_inputs([f"x={tmp_path}/x.json"], [X])


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asarray([object()]), allow_pickle=True)
    with pytest.raises(InputError):
        inputs.read_inputs([str(tmp_path / "x.npy")], [X])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no file for input 'x'; the model takes x"),
        (["z={}/a.npy"], "has no input 'z'"),
        (["{}/a.npy", "{}/a.npy"], "more files than inputs"),
        (["x={}/a.npy", "x={}/a.npy"], "given twice"),
        (["{}/none.npy"], "No such file"),
        (["{}/none.bmp"], "No such file"),
        (["{}/none.json"], "No such file"),
        (["{}/text.npy"], "unsupported or damaged file"),
        (["{}/many.npz"], "archive"),
    ],
)
def test_wrong_usage_is_explained(tmp_path: Path, words: list[str], reason: str) -> None:
    np.save(tmp_path / "a.npy", np.ones((1, 4), np.float32))
    np.savez(tmp_path / "many.npz", a=np.ones(1))
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(InputError, match=reason):
        inputs.read_inputs([word.format(tmp_path) for word in words], [X])


def test_ones_in_the_shape_are_free_and_the_rest_is_left_to_the_agent() -> None:
    assert inputs.from_array(np.zeros((4, 1), np.float32), X).shape == (1, 4)
    assert inputs.from_array(np.zeros((2, 2), np.float32), X).shape == (2, 2)
    assert inputs.from_array(np.zeros((3, 4), np.float32), X).shape == (3, 4)


def test_segment_takes_the_place_of_bytes() -> None:
    message = inputs.tensor("x", np.zeros((1, 4), np.float32), segment_id=7)
    assert message.WhichOneof("data") == "shared_memory_handle"
    assert (message.shared_memory_handle.segment_id, message.shared_memory_handle.size) == (7, 16)


def test_malformed_answer_is_an_input_error() -> None:
    with pytest.raises(InputError, match="malformed"):
        inputs.array_of(pb.Tensor(tensor_metadata=X, byte_data=b"123"))


def test_a_layout_that_was_said_goes_before_the_shape() -> None:
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    metadata = pb.TensorMetadata(name="x", data_type="UINT8", shape=[1, 2, 3, 3])
    planes = inputs.from_picture(picture, metadata, (3, 2, 3), "NCHW")
    assert np.array_equal(planes, picture.transpose(2, 0, 1)[None])
    assert np.array_equal(inputs.from_picture(picture, metadata, (3, 2, 3), "NHWC"), picture[None])
