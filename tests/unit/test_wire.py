"""What a request costs is told from its bytes [B-1]."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import RequestError
from edge.rpc import wire
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc.codec import parse, parse_in_place
from tests.fakes.fields import sized

FILL = b"\x12\xff\x3f" + bytes(0x1FFF)  # an unknown part: longer than what is parsed without a look


def tensor(shape: list[int], name: str = "x") -> Any:
    metadata = pb.TensorMetadata(name=name, data_type=pb.INT64, shape=shape)
    return pb.Tensor(tensor_metadata=metadata, byte_data=bytes(5000))


def check(message: Any, more: bytes = b"") -> None:
    wire.check_cost(type(message).DESCRIPTOR, message.SerializeToString() + more)


def test_what_applications_send() -> None:
    inputs = [tensor([1, 224, 224, 3], f"input {number}") for number in range(500)]
    check(pb.PredictRequest(name="m", tensors=inputs))
    check(pb.CaptureDataRequest(model_name="m", capture_id="1", input_tensors=inputs, output_tensors=inputs))


def test_a_small_request_is_not_looked_at() -> None:
    wire.check_cost(pb.PredictRequest.DESCRIPTOR, b"\xff" * wire.HARMLESS_BYTES)


@pytest.mark.parametrize(
    ("message", "more"),
    [
        (pb.PredictRequest(), b"\x12\0" * (wire.MAX_VALUES + 1)),
        (pb.PredictRequest(), b"\x78\0" * (wire.MAX_VALUES + 1)),  # unknown fields
        (pb.PredictRequest(tensors=[tensor([1] * wire.MAX_VALUES)]), b""),
        (pb.CaptureDataRequest(inputs=[pb.AuxiliaryData()] * (wire.MAX_VALUES + 1)), b""),
        # The parser puts the parts of a message that comes in parts together.
        (pb.PredictRequest(), sized(2, sized(1, sized(3, bytes(300))) * (wire.MAX_VALUES // 300 + 1))),
    ],
)  # fmt: skip
def test_too_many_values(message: Any, more: bytes) -> None:
    with pytest.raises(RequestError, match="16384 fields and dimensions") as refused:
        check(message, more)
    assert len(str(refused.value)) < 200


def test_a_long_text() -> None:
    with pytest.raises(RequestError, match=r"TensorMetadata\.name has 4097 bytes; at most 4096"):
        check(pb.PredictRequest(tensors=[tensor([1], "\x1b" * 4097)]))
    check(pb.PredictRequest(tensors=[tensor([1], "x" * 4096)]))


@pytest.mark.parametrize(
    "raw",
    [
        FILL[:-1],  # reaches past the end
        FILL + b"\x0b\x0c",  # a group
        FILL + b"\x0d\0\0\0",  # a fixed number that is cut off
        FILL + b"\xff" * 10 + b"\0",  # a tag that does not end
    ],
)
def test_what_is_no_message(raw: bytes) -> None:
    with pytest.raises(RequestError, match="not a valid PredictRequest"):
        parse(pb.PredictRequest, raw)


@given(raw=st.binary(max_size=60))
def test_what_the_parser_takes_has_fields(raw: bytes) -> None:
    try:
        pb.PredictRequest.FromString(raw)
    except DecodeError:
        return
    try:
        found = list(wire.fields(raw, 0, len(raw)))
    except ValueError:
        assert any(byte & 7 == 3 for byte in raw)  # a group
        return
    assert [begin for *_, begin, _ in found] == sorted(begin for *_, begin, _ in found)
    assert not found or found[-1][3] == len(raw)


PIECE = st.one_of(
    st.builds(sized, st.integers(1, 9), st.binary(max_size=12)),
    st.builds(lambda number, value: bytes([number << 3, value]), st.integers(1, 9), st.integers(0, 127)),
)
TENSOR = st.lists(
    st.one_of(PIECE, st.binary(min_size=5, max_size=40).map(lambda data: sized(4, data))), max_size=4
).map(b"".join)


@given(pieces=st.lists(st.one_of(PIECE, TENSOR.map(lambda data: sized(2, data))), max_size=5))
def test_what_is_not_copied_is_what_the_parser_finds(pieces: list[bytes]) -> None:
    """Fields that come twice, parts that are apart and unknown fields included."""
    raw = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "LARGE_BYTES", 0)
        patch.setattr(wire, "HELD_BYTES", 4)
        try:
            expected = parse(pb.PredictRequest, raw)
        except RequestError:
            with pytest.raises(RequestError):
                parse_in_place(pb.PredictRequest, raw)
            return
        found, contents = parse_in_place(pb.PredictRequest, raw)
    assert (found.name, found.handle) == (expected.name, expected.handle)
    for one, other in zip(found.tensors, expected.tensors, strict=True):
        assert one.WhichOneof("data") == other.WhichOneof("data")
        assert one.tensor_metadata.shape == other.tensor_metadata.shape
        data = contents.take(one.byte_data)
        assert bytes(data) == other.byte_data
        place = contents.place(data)
        assert (place is not None) == isinstance(data, memoryview)
        assert place is None or raw[place] == other.byte_data


def test_the_large_contents_of_a_request_are_not_copied() -> None:
    large = bytes(range(256)) * 1000
    request = pb.PredictRequest(name="m", tensors=[pb.Tensor(byte_data=large), pb.Tensor(byte_data=b"small")])
    raw = request.SerializeToString() + sized(15, large)  # an unknown field
    found, contents = parse_in_place(pb.PredictRequest, raw)
    assert found.ByteSize() < 100
    first, second = (contents.take(tensor.byte_data) for tensor in found.tensors)
    assert isinstance(first, memoryview) and first.obj is raw and first == large
    assert second == b"small" and contents.place(second) is None
