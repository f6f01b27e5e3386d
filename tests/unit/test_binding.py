"""Which tensor goes where, and what is refused (P-2, P-7, P-8)."""

import pytest

from edge.errors import TensorError
from edge.serving.binding import InputBinder, SegmentRange, TensorArgument
from edge.tensors import DYNAMIC, DType, TensorSpec

A = TensorSpec("a", DType.FLOAT32, (1, 2), (1, 2))
B = TensorSpec("b", DType.UINT8, (3,), (3,))
BINDER = InputBinder([A, B])


def tensor(name: str, dtype: int, shape: tuple[int, ...], data: bytes | SegmentRange | None) -> TensorArgument:
    return TensorArgument(name, dtype, shape, data)


def bare(data: bytes | SegmentRange | None) -> TensorArgument:
    return TensorArgument(None, None, None, data)


GOOD_A, GOOD_B = tensor("a", DType.FLOAT32, (1, 2), bytes(8)), tensor("b", DType.UINT8, (3,), b"xyz")


def test_order_is_free_with_names() -> None:  # [P-8]
    first, second = BINDER.bind([GOOD_B, GOOD_A])
    assert (first.shape, first.size) == ((1, 2), 8)
    assert second.data == b"xyz"


def test_without_metadata_the_models_order_holds() -> None:  # [P-7]
    first, second = BINDER.bind([bare(bytes(8)), bare(b"xyz")])
    assert first.shape == (1, 2)
    assert second.shape == (3,)


def test_shared_memory_of_size_zero_means_what_is_needed() -> None:  # [P-11]
    first, _ = BINDER.bind([tensor("a", DType.FLOAT32, (1, 2), SegmentRange(5, 0, 0)), GOOD_B])
    assert first.size == 8


def test_dynamic_shape_sets_the_bytes() -> None:  # [P-8]
    binder = InputBinder([TensorSpec("x", DType.INT16, (1, 2), (DYNAMIC, 2))])
    assert binder.bind([tensor("x", DType.INT16, (5, 2), bytes(20))])[0].shape == (5, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([GOOD_A], "takes 2 input tensors, got 1"),
        ([GOOD_A, tensor("c", 0, (3,), b"xyz")], "no input named 'c'; its inputs are 'a', 'b'"),
        ([GOOD_A, GOOD_A], "'a' is given twice"),
        ([bare(bytes(8)), GOOD_A], "'a' is given twice"),
        ([tensor("a", DType.INT32, (1, 2), bytes(8)), GOOD_B], "got data type INT32, expected FLOAT32"),
        ([tensor("a", 99, (1, 2), bytes(8)), GOOD_B], "got data type unknown data type 99, expected FLOAT32"),
        ([tensor("a", DType.FLOAT32, (2, 2), bytes(16)), GOOD_B], "got shape [2, 2], expected [1, 2]"),
        ([tensor("a", DType.FLOAT32, (1, -2), bytes(8)), GOOD_B], "got shape [1, -2], expected [1, 2]"),
        ([GOOD_A, tensor("b", 0, (3,), b"wxyz")], "got 4 bytes, expected 3 for UINT8 [3]"),
        ([GOOD_A, tensor("b", 0, (3,), None)], "got 0 bytes, expected 3"),
        ([GOOD_A, tensor("b", 0, (3,), SegmentRange(1, 0, 4))], "got 4 bytes, expected 3"),
        ([bare(b""), bare(b"xyz")], "'a': got 0 bytes, expected 8"),
    ],
)
def test_what_does_not_fit_is_named(arguments: list[TensorArgument], words: str) -> None:  # [P-2]
    with pytest.raises(TensorError) as refused:
        BINDER.bind(arguments)
    assert words in str(refused.value)


@pytest.mark.parametrize("data", [b"xyz", SegmentRange(5, 0, 3)])
def test_bytes_declared_as_something_else_are_the_models_own(data: bytes | SegmentRange) -> None:  # [P-12]
    wrong = tensor("b", DType.FLOAT32, (1, 3), data)
    [_, taken] = BINDER.bind([GOOD_A, wrong])
    assert (taken.data, taken.shape, taken.size, taken.declared) == (data, (3,), 3, "FLOAT32 [1, 3]")
    with pytest.raises(TensorError, match=r"got data type FLOAT32, expected UINT8; .* edge_strict_tensors is set"):
        InputBinder([A, B], strict=True).bind([GOOD_A, wrong])


def test_a_segment_without_a_size_is_what_it_is_declared() -> None:  # [P-12] [P-11]
    with pytest.raises(TensorError, match=r"got data type FLOAT32, expected UINT8$"):
        BINDER.bind([GOOD_A, tensor("b", DType.FLOAT32, (3,), SegmentRange(5, 0, 0))])


def test_the_order_that_would_fit_is_named() -> None:  # [P-2]
    binder = InputBinder([TensorSpec("x", DType.UINT8, (1, 2, 2, 3), (1, 2, 2, 3))])
    with pytest.raises(TensorError, match=r"expected \[1, 2, 2, 3\]; its dimensions fit in the order \(0, 2, 3, 1\)"):
        binder.bind([tensor("x", DType.UINT8, (1, 3, 2, 2), bytes(12))])


def test_a_long_name_is_cut() -> None:
    with pytest.raises(TensorError) as refused:
        BINDER.bind([GOOD_A, tensor("n" * 100_000, 0, (3,), b"xyz")])
    assert len(str(refused.value)) < 300
