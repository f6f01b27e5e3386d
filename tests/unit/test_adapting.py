"""Sessions behind an adapter: numbers keep what they stand for, at the edges too (S-9)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.arrays import numpy_dtype
from edge.engine.adapting import ELEMENTS_AT_ONCE, AdaptedSession, conversion
from edge.engine.engine import LITERT, TFLITE, SessionOptions
from edge.engine.engines import Engines
from edge.engine.lending import MIN_BYTES
from edge.engine.litert import LitertEngine
from edge.engine.tflite import TfliteEngine
from edge.package.adapter import TensorAdapter, view
from edge.tensors import DType, Lent, TensorSpec
from tests.data.make_models import add_one, identity
from tests.fakes.engines import litert_is_there

INF, NAN = float("inf"), float("nan")
DIGITS_INT8 = Path(__file__).parents[2] / "demo" / "data" / "digits_int8.tflite"


def spec(dtype: DType, scale: float = 0.0, zero_point: int = 0) -> TensorSpec:
    return TensorSpec("x", dtype, (1, 4), (1, 4), scale=scale, zero_point=zero_point)


def converted(source: TensorSpec, target: TensorSpec, values: Any) -> list[Any]:
    convert = conversion(source, target)
    assert convert is not None
    made = convert(np.asarray(values, numpy_dtype(source.dtype)))
    assert made.dtype == numpy_dtype(target.dtype)
    return made.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("source", "target", "values", "expected"),
    [
        (spec(DType.FLOAT32), spec(DType.INT32), [0.5, 1.5, 2.5, -0.5, -1.5], [0, 2, 2, 0, -2]),
        (spec(DType.FLOAT32), spec(DType.INT32), [NAN, INF, -INF], [0, 2**31 - 1, -(2**31)]),
        (spec(DType.FLOAT32), spec(DType.INT32), [3e9, -3e9, 2.0**31], [2**31 - 1, -(2**31), 2**31 - 1]),
        (spec(DType.FLOAT64), spec(DType.UINT32), [-0.6, 2.0**32, 4294967294.5], [0, 2**32 - 1, 2**32 - 2]),
        (spec(DType.INT32), spec(DType.FLOAT32), [2**24 + 1, -(2**31), 7], [2.0**24, -(2.0**31), 7.0]),
        (spec(DType.INT32), spec(DType.FLOAT16), [65519, 65520, -(2**31)], [65504.0, INF, -INF]),
        (spec(DType.FLOAT64), spec(DType.FLOAT32), [1e300, -1e300, 0.1], [INF, -INF, float(np.float32(0.1))]),
        (spec(DType.INT64), spec(DType.INT32), [2**63 - 1, -(2**63), -7], [2**31 - 1, -(2**31), -7]),
        (spec(DType.INT32), spec(DType.UINT64), [-1, 2**31 - 1], [0, 2**31 - 1]),
        (spec(DType.UINT64), spec(DType.INT64), [2**64 - 1, 5], [2**63 - 1, 5]),
        (spec(DType.UINT8, 0.5, 128), spec(DType.FLOAT32), [0, 128, 255], [-64.0, 0.0, 63.5]),
        (spec(DType.INT8, 0.5, 0), spec(DType.INT32), [-1, 1, 3, 127], [0, 0, 2, 64]),
        (spec(DType.FLOAT32), spec(DType.UINT8, 0.5, 128), [0, 0.25, 0.75, 63.5, 64], [128, 128, 130, 255, 255]),
        (spec(DType.FLOAT32), spec(DType.UINT8, 0.5, 128), [NAN, INF, -INF, 3e38], [128, 255, 0, 255]),
        (spec(DType.FLOAT32), spec(DType.INT8, 1e-30, 5), [1e30, -1e30, NAN], [127, -128, 5]),
        (spec(DType.INT8, 0.5, -128), spec(DType.UINT8, 0.5, 0), [-128, 0, 127], [0, 128, 255]),
    ],
)
def test_numbers_keep_what_they_stand_for(
    source: TensorSpec, target: TensorSpec, values: list[float], expected: list[float]
) -> None:  # [S-9]
    assert converted(source, target, values) == expected


def test_nan_stays_nan_where_there_is_one() -> None:  # [S-9]
    assert np.isnan(converted(spec(DType.FLOAT32), spec(DType.FLOAT16), [NAN])).all()


def test_what_is_the_same_is_not_touched() -> None:  # [S-9]
    assert conversion(spec(DType.INT8, 0.5, 3), spec(DType.INT8, 0.5, 3)) is None


@given(st.lists(st.integers(-(2**24), 2**24), min_size=1))
def test_whole_numbers_survive_the_way_there_and_back(values: list[int]) -> None:
    there = converted(spec(DType.INT32), spec(DType.FLOAT32), values)
    assert converted(spec(DType.FLOAT32), spec(DType.INT32), there) == values


def test_large_tensors_are_converted_whole() -> None:  # [S-9]
    values = np.arange(3 * ELEMENTS_AT_ONCE // 2, dtype="<i4").reshape(3, -1)
    convert = conversion(spec(DType.INT32), spec(DType.FLOAT64))
    assert convert is not None and (convert(values) == values).all() and convert(values).shape == values.shape
    assert convert(np.asarray(7, "<i4")).shape == () and convert(values[:0]).shape == values[:0].shape


def adapted(model: Path, *adapters: TensorAdapter, outputs: tuple[TensorAdapter, ...] = ()) -> AdaptedSession:
    session = TfliteEngine().open(str(model), SessionOptions())
    return AdaptedSession(session, view(session.inputs, adapters, "inputs"), view(session.outputs, outputs, "outputs"))


@pytest.mark.parametrize("engine", [LITERT, TFLITE])
def test_outputs_are_converted_whatever_the_engine_calls_their_elements(tmp_path: Path, engine: str) -> None:  # [S-9]
    if engine == LITERT and not litert_is_there():
        pytest.skip("no LiteRT library is installed for this platform")
    (tmp_path / "m").write_bytes(identity("float32", (1, 4)))
    session = Engines().open(str(tmp_path / "m"), SessionOptions(engine=engine))
    as_integers = view(session.outputs, (TensorAdapter("y", DType.INT32),), "outputs")
    shown = AdaptedSession(session, session.inputs, as_integers)
    assert [one.tolist() for one in ran(shown, np.asarray([[0.4, 2, -7, 5.5]], "<f4").tobytes())] == [[[0, 2, -7, 6]]]


def ran(session: AdaptedSession, data: Any) -> list[Any]:
    answer = [np.asarray(one).copy() for one in session.run([data], tuple(spec.shape for spec in session.outputs))]
    session.close()
    return answer


def test_a_layout_is_transposed(tmp_path: Path) -> None:  # [S-9]
    (tmp_path / "m").write_bytes(identity("float32", (1, 2, 3, 2)))
    picture = np.arange(12, dtype="<f4").reshape(1, 2, 2, 3)
    data = picture.tobytes()
    for sent in (data, memoryview(data), Lent(memoryview(data), 0)):
        [answer] = ran(adapted(tmp_path / "m", TensorAdapter("x", layout="NCHW")), sent)
        assert (answer == picture.transpose(0, 2, 3, 1)).all() and answer.shape == (1, 2, 3, 2)


def test_a_quantised_model_looks_like_the_float_model_it_was() -> None:  # [S-9]
    plain = TfliteEngine().open(str(DIGITS_INT8), SessionOptions())
    [image], [scores] = plain.inputs, plain.outputs
    pixels = np.linspace(0, 1, 64, dtype=np.float32)
    quantised = np.clip(np.rint(pixels / np.float64(image.scale)) + image.zero_point, -128, 127).astype(np.int8)
    [raw] = [np.asarray(one).copy() for one in plain.run([quantised.tobytes()], (image.shape,))]
    plain.close()
    session = adapted(
        DIGITS_INT8, TensorAdapter("image", DType.FLOAT32), outputs=(TensorAdapter("probabilities", DType.FLOAT32),)
    )
    [seen] = session.outputs
    assert seen.dtype is DType.FLOAT32 and seen.byte_count == 40 and not session.borrows
    [answer] = [np.asarray(one).copy() for one in session.run([pixels.tobytes()], (image.shape,))]
    session.reset()
    session.close()
    assert answer.dtype == np.float32
    assert (answer == ((raw.astype(np.float64) - scores.zero_point) * scores.scale).astype(np.float32)).all()


@pytest.mark.skipif(not litert_is_there(), reason="no LiteRT library is installed for this platform")
def test_an_input_that_is_not_converted_is_borrowed_as_before(tmp_path: Path) -> None:  # [S-9]
    (tmp_path / "m").write_bytes(add_one((1, MIN_BYTES // 4)))
    session = LitertEngine().open(str(tmp_path / "m"), SessionOptions(borrows=(0,)))
    assert session.borrows == {0}
    as_int = TensorAdapter("y", DType.INT32), TensorAdapter("x", DType.INT32)
    outputs = view(session.outputs, as_int[:1], "outputs")
    assert AdaptedSession(session, session.inputs, outputs).borrows == {0}
    assert AdaptedSession(session, view(session.inputs, as_int[1:], "inputs"), outputs).borrows == frozenset()
    session.close()
