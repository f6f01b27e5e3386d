"""Dtypes, byte counts and shapes (section 3, P-2, P-8)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.arrays import dtype_of, numpy_dtype
from edge.rpc._generated import agent_pb2
from edge.tensors import DYNAMIC, DType, TensorSpec, byte_count, fit_shape, shape_text


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
    assert fit_shape(batch, (0, 4)) is None
    assert fit_shape(batch, (4,)) == (1, 4)


def test_shapes_in_words() -> None:
    assert shape_text((DYNAMIC, 224, 3)) == "[?, 224, 3]"
    assert shape_text(()) == "[]"


@given(st.lists(st.integers(-3, 4), max_size=5), st.lists(st.integers(1, 4), max_size=5))
def test_whatever_fits_has_the_models_rank_or_its_shape(sent: list[int], own: list[int]) -> None:
    fitted = fit_shape(spec(tuple(own)), tuple(sent))
    assert fitted in (None, tuple(own))
