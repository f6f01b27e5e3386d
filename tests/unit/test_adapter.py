"""Adapters: what a manifest may say, and what fits a model (S-9)."""

import json
from typing import Any

import pytest

from edge.engine.sample_inputs import SampleInputs
from edge.engine.samples import Sample
from edge.errors import ManifestError, UnsupportedModelError
from edge.package.adapter import TensorAdapter, view
from edge.package.manifest import Manifest, format_manifest, parse_manifest
from edge.tensors import DYNAMIC, DType, TensorSpec

PLAIN = Manifest("m", "1", "m.tflite")
PICTURE = TensorSpec("picture", DType.FLOAT32, (1, 6, 4, 3), (1, 6, 4, 3))
QUANTISED = TensorSpec("scores", DType.INT8, (1, 10), (1, 10), "note", 0.5, -3)
WIDE = TensorSpec("class", DType.INT64, (1,), (1,))


def manifest(**sides: Any) -> bytes:
    return json.dumps(json.loads(format_manifest(PLAIN)) | sides).encode()


def test_all_that_an_adapter_may_say() -> None:  # [S-9]
    inputs = (
        TensorAdapter("a", accept_shape=(1, 3, 6, 4)),
        TensorAdapter("b", DType.UINT8, 1 / 255, 0, layout="NCHW", accept_shape=(3, 6, 4)),
    )
    outputs = (TensorAdapter("y", DType.INT32), TensorAdapter("z", DType.INT8, 0.25, -128))
    made = Manifest("m", "1", "m.tflite", inputs=inputs, outputs=outputs)
    assert parse_manifest(format_manifest(made)) == made
    assert parse_manifest(manifest(inputs=[], outputs=[])) == PLAIN


@pytest.mark.parametrize(
    ("side", "entries", "words"),
    [
        ("inputs", {}, "inputs must be a list, not an object"),
        ("inputs", [1], "inputs[0] must be an object, not a number"),
        ("inputs", [{"layout": "NCHW"}], "lacks inputs[0].name"),
        ("inputs", [{"name": ""}], "inputs[0].name must have 1 to 1024 characters"),
        ("inputs", [{"name": "a"}], "inputs[0] changes nothing; expected as, scale, zero_point, accept_shape, layout"),
        ("inputs", [{"name": "a", "as": "INT32"}] * 2, "inputs has 'a' twice"),
        ("inputs", [{"name": "a", "with": 1}], "unknown key 'inputs[0].with'"),
        ("outputs", [{"name": "a", "layout": "NCHW"}], "unknown key 'outputs[0].layout'"),
        ("outputs", [{"name": "a", "accept_shape": [1]}], "unknown key 'outputs[0].accept_shape'"),
        ("outputs", [{"name": "a", "as": "int32"}], "outputs[0].as 'int32' is not known; expected UINT8, INT16, INT32"),
        ("outputs", [{"name": "a", "as": "BOOL"}], "'BOOL' is not known"),
        ("inputs", [{"name": "a", "layout": "CHWN"}], "'CHWN' is not known; expected NCHW, NHWC"),
        ("inputs", [{"name": "a", "accept_shape": [1, -1]}], "accept_shape must be whole numbers"),
        ("inputs", [{"name": "a", "accept_shape": [1.0]}], "accept_shape must be whole numbers"),
        ("inputs", [{"name": "a", "accept_shape": [1] * 33}], "accept_shape has 33 items; at most 32"),
        ("outputs", [{"name": "a", "zero_point": 1}], "zero_point has no effect without outputs[0].scale"),
        ("outputs", [{"name": "a", "scale": 1}], "scale has no effect unless outputs[0].as is one of UINT8, INT8"),
        ("outputs", [{"name": "a", "as": "INT32", "scale": 1}], "scale has no effect unless"),
        ("outputs", [{"name": "a", "as": "INT8", "scale": 0}], "scale must be 1e-30 to 1e+30, got '0'"),
        ("outputs", [{"name": "a", "as": "INT8", "scale": True}], "scale must be a number"),
        ("outputs", [{"name": "a", "as": "INT8", "scale": 1, "zero_point": 128}], "must be -128 to 127 for INT8"),
        ("outputs", [{"name": "a", "as": "UINT8", "scale": 1, "zero_point": 0.5}], "must be 0 to 255 for UINT8"),
    ],
)
def test_each_fault_is_named(side: str, entries: Any, words: str) -> None:  # [S-9]
    with pytest.raises(ManifestError) as refused:
        parse_manifest(manifest(**{side: entries}))
    assert words in str(refused.value)


def test_what_applications_see() -> None:  # [S-9]
    [seen] = view([PICTURE], [TensorAdapter("picture", layout="NCHW")], "inputs")
    assert (seen.shape, seen.order) == ((1, 3, 6, 4), (0, 2, 3, 1))
    [seen] = view([PICTURE], [TensorAdapter("picture", DType.INT32, accept_shape=(72,))], "inputs")
    assert (seen.dtype, seen.shape, seen.accept_shape) == (DType.INT32, (1, 6, 4, 3), (72,))
    [seen] = view([QUANTISED], [TensorAdapter("note", DType.FLOAT32)], "outputs")  # by its other name
    assert (seen.name, seen.dtype, seen.scale) == ("scores", DType.FLOAT32, 0.0)
    assert view([PICTURE, WIDE], [], "inputs") == (PICTURE, WIDE)


def test_a_layout_keeps_what_the_caller_chooses() -> None:  # [S-9]
    batches = TensorSpec("x", DType.FLOAT32, (1, 6, 4, 3), (DYNAMIC, 6, 4, 3))
    [seen] = view([batches], [TensorAdapter("x", layout="NCHW")], "inputs")
    assert seen.signature == (DYNAMIC, 3, 6, 4)


@pytest.mark.parametrize(
    ("spec", "adapter", "side", "words"),
    [
        (PICTURE, TensorAdapter("other", DType.INT32), "inputs", "'other' of inputs, which is none of the model's"),
        (WIDE, TensorAdapter("class", layout="NCHW"), "inputs", "'class' has shape [1]; a layout needs four dimensions"),
        (
            PICTURE, TensorAdapter("picture", accept_shape=(1, 3)), "inputs",
            "accept_shape [1, 3] has 3 elements, and the model takes [1, 6, 4, 3]",
        ),
        (PICTURE, TensorAdapter("picture", DType.UINT8), "inputs", "'picture' as UINT8 needs scale"),
        (QUANTISED, TensorAdapter("scores", DType.UINT8), "outputs", "'scores' as UINT8 needs scale"),
        (WIDE, TensorAdapter("class", DType.FLOAT32), "inputs", "FLOAT32 cannot be made INT64"),
        (PICTURE, TensorAdapter("picture", DType.UINT64), "outputs", "FLOAT32 cannot be made UINT64"),
        (QUANTISED, TensorAdapter("scores", DType.INT64), "outputs", "INT8 cannot be made INT64"),
        (TensorSpec("b", DType.BOOL, (1,), (1,)), TensorAdapter("b", DType.INT32), "outputs", "'b' is BOOL"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model(spec: TensorSpec, adapter: TensorAdapter, side: str, words: str) -> None:  # [S-9]
    with pytest.raises(ManifestError) as refused:
        view([spec], [adapter], side)
    assert words in str(refused.value)


def test_one_tensor_is_adapted_by_one_name() -> None:  # [S-9]
    both = [TensorAdapter("scores", DType.FLOAT32), TensorAdapter("note", DType.INT32)]
    for adapters, first, second in ((both, "scores", "note"), (both[::-1], "note", "scores")):
        with pytest.raises(
            ManifestError, match=f"adapts one tensor of outputs twice: '{first}' and '{second}' are both"
        ):
            view([QUANTISED], adapters, "outputs")


def test_a_tensors_own_name_goes_before_anothers_other_name() -> None:  # [S-9]
    crossed = [TensorSpec(name, DType.FLOAT32, (2,), (2,), other) for name, other in (("a", "b"), ("b", "a"))]
    for name, dtypes in (("a", [DType.INT32, DType.FLOAT32]), ("b", [DType.FLOAT32, DType.INT32])):
        assert [seen.dtype for seen in view(crossed, [TensorAdapter(name, DType.INT32)], "inputs")] == dtypes


def test_a_sample_goes_to_the_tensor_of_that_name() -> None:
    """As an adapter does: by a tensor's own name before another's other name, and never twice to one."""
    crossed = tuple(
        TensorSpec(name, DType.FLOAT32, (1,), (DYNAMIC,), other) for name, other in (("a", "b"), ("b", "a"), ("c", "d"))
    )
    assert SampleInputs(crossed, Sample(shapes=(("b", (5,)), ("d", (7,))))).shapes == ((1,), (5,), (7,))
    with pytest.raises(UnsupportedModelError, match="gives input 'c' twice"):
        SampleInputs(crossed, Sample(shapes=(("c", (5,)), ("d", (7,)))))
