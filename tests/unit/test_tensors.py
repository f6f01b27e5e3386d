"""Dtypes, byte counts and shapes [T] [P-2] [P-8]."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.arrays import dtype_of, numpy_dtype
from edge.rpc._generated import agent_pb2
from edge.tensors import (
    DYNAMIC,
    DType,
    TensorSpec,
    byte_count,
    byte_count_fault,
    fit_shape,
    fitting_order,
    own_shape,
    shape_text,
)


def spec(shape: tuple[int, ...], signature: tuple[int, ...] | None = None) -> TensorSpec:
    return TensorSpec("x", DType.FLOAT32, shape, shape if signature is None else signature)


def test_dtypes_are_those_of_the_wire() -> None:
    assert {member.name: int(member) for member in DType} == dict(agent_pb2.DataType.items())


@pytest.mark.parametrize("dtype", DType)
def test_every_dtype_has_a_little_endian_numpy_dtype_and_back(dtype: DType) -> None:  # [P-9]
    assert numpy_dtype(dtype).newbyteorder("<") == numpy_dtype(dtype)
    assert dtype_of(numpy_dtype(dtype)) is dtype
    assert byte_count(dtype, (2, 3)) == 6 * numpy_dtype(dtype).itemsize


@pytest.mark.parametrize("kind", [np.bytes_, np.str_, np.object_, np.complex64, np.complex128, "nonsense"])
def test_other_kinds_have_none(kind: object) -> None:
    assert dtype_of(kind) is None


@pytest.mark.parametrize(
    ("shape", "sent", "expected"),
    [
        ((1, 8, 8, 1), (1, 8, 8, 1), (1, 8, 8, 1)),
        ((1, 8, 8, 1), (8, 8, 1), (1, 8, 8, 1)),
        ((8, 8), (1, 1, 8, 8), (8, 8)),
        ((), (1,), ()),
        ((1, 1), (), (1, 1)),
        ((1, 8, 8, 1), (1, 64), None),
        ((1, 8, 8, 1), (8, 8), None),  # a trailing 1 is not a leading one
        ((2, 3), (3, 2), None),
        ((2,), (-2,), None),
    ],
)
def test_leading_ones_come_and_go(shape: tuple[int, ...], sent: tuple[int, ...], expected: object) -> None:  # [P-8]
    assert fit_shape(spec(shape), sent) == expected


def test_a_dynamic_dimension_takes_what_is_sent() -> None:  # [P-8]
    batch = spec((1, 4), (DYNAMIC, 4))
    assert fit_shape(batch, (7, 4)) == (7, 4)
    assert fit_shape(batch, (7, 5)) is None
    assert fit_shape(batch, (0, 4)) == (0, 4)
    assert fit_shape(batch, (4,)) == (1, 4)


def test_shapes_in_words() -> None:
    assert shape_text((DYNAMIC, 224, 3)) == "[?, 224, 3]"
    assert shape_text(()) == "[]"


@given(st.lists(st.integers(-3, 4), max_size=5), st.lists(st.integers(1, 4), max_size=5))
def test_whatever_fits_has_the_models_rank_or_its_shape(sent: list[int], own: list[int]) -> None:
    fitted = fit_shape(spec(tuple(own)), tuple(sent))
    assert fitted in (None, tuple(own))


PIXELS = TensorSpec("x", DType.UINT8, (1, 4, 4, 3), (1, 4, 4, 3))
BATCH = TensorSpec("x", DType.UINT8, (1, 3), (DYNAMIC, 3))


@pytest.mark.parametrize(
    ("model", "dtype", "shape", "size", "own"),
    [
        (PIXELS, DType.FLOAT32, (1, 4, 4, 3), 48, (1, 4, 4, 3)),
        (PIXELS, DType.FLOAT32, (1, 3, 4, 4), 48, (1, 4, 4, 3)),
        (PIXELS, DType.UINT8, (), 48, (1, 4, 4, 3)),  # a name alone
        (PIXELS, DType.INT8, (1, 4, 4, 3), 48, None),  # agrees with its bytes
        (PIXELS, DType.UINT8, (48,), 48, None),
        (PIXELS, DType.FLOAT32, (12,), 48, None),
        (PIXELS, DType.FLOAT32, (1, 4, 4, 3), 47, None),
        (PIXELS, DType.FLOAT32, (1, 4, 4, 3), 192, None),
        (PIXELS, 99, (1, 4, 4, 3), 48, None),  # no dtype, no shape
        (PIXELS, DType.FLOAT32, (-1, 4, 4, 3), 48, None),
        (BATCH, DType.FLOAT32, (5, 3), 15, (5, 3)),
        (BATCH, DType.FLOAT32, (5, 3), 3, None),  # the caller chose five rows
        (BATCH, DType.UINT8, (5, 3), 3, None),
    ],
)
def test_bytes_that_are_not_what_they_are_declared(
    model: TensorSpec, dtype: int, shape: tuple[int, ...], size: int, own: tuple[int, ...] | None
) -> None:  # [P-12]
    assert own_shape(model, dtype, shape, size) == own


@pytest.mark.parametrize(
    ("dtype", "size", "words"),
    [
        (
            DType.FLOAT32,
            48,
            "as many bytes as UINT8 [1, 4, 4, 3] takes, or a number of elements in place of one of bytes",
        ),
        (DType.FLOAT32, 384, "as many bytes as FLOAT64 [1, 4, 4, 3] takes"),
        (DType.INT8, 192, "as many bytes as FLOAT32 [1, 4, 4, 3] takes"),
        (DType.INT64, 192, "as many bytes as INT32 [1, 4, 4, 3] takes"),
        (
            DType.INT64,
            48,
            "as many bytes as UINT8 [1, 4, 4, 3] takes, or a number of elements in place of one of bytes",
        ),
    ],
)
def test_what_bytes_may_have_been_meant_for(dtype: DType, size: int, words: str) -> None:  # [P-2]
    fault = byte_count_fault(dtype, (1, 4, 4, 3), size)
    assert fault and fault.startswith(f"got {size} bytes, expected {48 * dtype.itemsize} for {dtype.name} [1, 4, 4, 3]")
    assert fault.endswith(words)


def test_bytes_that_mean_nothing_else() -> None:
    assert byte_count_fault(DType.FLOAT32, (2,), 8) is None
    assert byte_count_fault(DType.FLOAT32, (2,), 7) == "got 7 bytes, expected 8 for FLOAT32 [2]"
    assert byte_count_fault(DType.FLOAT32, (0, 2), 1) == "got 1 bytes, expected 0 for FLOAT32 [0, 2]"


@pytest.mark.parametrize(
    ("model", "sent", "order"),
    [
        (spec((1, 8, 8, 3)), (1, 3, 8, 8), (0, 2, 3, 1)),
        (spec((1, 3, 8, 8)), (1, 8, 8, 3), (0, 3, 1, 2)),
        (spec((1, 8, 8, 1)), (1, 1, 8, 8), (0, 2, 3, 1)),
        (spec((1, 8, 8, 3)), (3, 8, 8), (1, 2, 0)),
        (spec((8, 8, 3)), (1, 3, 8, 8), (0, 2, 3, 1)),
        (spec((1, 8, 6, 3), (DYNAMIC, 8, 6, 3)), (7, 3, 8, 6), (0, 2, 3, 1)),
        (spec((1, 1, 1, 3), (1, DYNAMIC, DYNAMIC, 3)), (1, 3, 8, 6), (0, 2, 3, 1)),
        (spec((1, 8, 8, 3)), (1, 4, 8, 8), None),
        (spec((1, 8, 8, 3)), (64, 3), None),
        (spec((1, 2), (DYNAMIC, 2)), (2, 0), (1, 0)),
        (spec((1, 2), (DYNAMIC, 2)), (2, -1), None),
    ],
)
def test_the_order_that_would_fit(
    model: TensorSpec, sent: tuple[int, ...], order: tuple[int, ...] | None
) -> None:  # [P-2]
    assert fitting_order(model, sent) == order
    if order:
        assert fit_shape(model, tuple(sent[at] for at in order)) is not None
