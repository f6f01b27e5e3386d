"""Between the wire and the agent's own types.

Requests arrive as raw bytes and are parsed here, so that a malformed one is answered as the caller's fault. What an
answer has in common with the answers before it is built once, when the model is loaded.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, Message

from edge.capture.record import CapturedTensor
from edge.engine.engine import Output
from edge.errors import RequestError
from edge.rpc import wire
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc.wire import Contents, varint
from edge.serving.binding import SegmentRange, TensorArgument
from edge.serving.loading import LoadedModel
from edge.tensors import DType, TensorSpec
from edge.text import shown

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_TENSORS_TAG = b"\x0a"  # PredictResponse.tensors = 1, length-delimited
_METADATA_TAG = b"\x0a"  # Tensor.tensor_metadata = 1
_BYTE_DATA_TAG = b"\x22"  # Tensor.byte_data = 4


def parse(message: type[Message], raw: bytes) -> Any:
    """The request's message.

    Raises:
        RequestError: the bytes are not such a message, a text in it is not UTF-8, or it is dearer to parse than is allowed.
    """
    try:
        wire.check_cost(message.DESCRIPTOR, raw)
        return message.FromString(raw)
    except (DecodeError, ValueError):
        raise _malformed(message) from None


def parse_in_place(message: type[Message], raw: bytes) -> tuple[Any, Contents]:
    """The request's message, whose large bytes are to be taken out of the contents, where they are not copied.

    Raises:
        RequestError: as `parse`.
    """
    try:
        wire.check_cost(message.DESCRIPTOR, raw)
        contents = Contents(raw)
        return message.FromString(contents.rest(message.DESCRIPTOR)), contents
    except (DecodeError, ValueError):
        raise _malformed(message) from None


def _malformed(message: type[Message]) -> RequestError:
    return RequestError(
        f"the request is not a valid {message.DESCRIPTOR.name}: malformed bytes, or text that is not UTF-8"
    )


def model_name(name: str, handle: str) -> str:
    """Which model a request is for: its handle is its name.

    Raises:
        RequestError: it gives both, and they differ.
    """
    if name and handle and name != handle:
        raise RequestError(f"the request names two models: name {shown(name)}, handle {shown(handle)}; expected one")
    return handle or name


def segment(handle: Any) -> SegmentRange:
    """A shared-memory handle of a request."""
    return SegmentRange(handle.segment_id, handle.offset, handle.size)


def tensor_argument(tensor: Any, contents: Contents) -> TensorArgument:
    """A tensor of a request."""
    kind = tensor.WhichOneof("data")
    data: bytes | memoryview | SegmentRange | None = None
    if kind == "byte_data":
        data = contents.take(tensor.byte_data)
    elif kind is not None:
        data = segment(tensor.shared_memory_handle)
    if not tensor.HasField("tensor_metadata"):
        return TensorArgument(None, None, None, data)
    metadata = tensor.tensor_metadata
    return TensorArgument(metadata.name, metadata.data_type, tuple(metadata.shape), data)


def parse_predict(raw: bytes) -> tuple[str, list[TensorArgument], Contents]:
    """The model name, the tensors and the contents of a Predict request.

    Raises:
        RequestError: as `parse`.
    """
    request, contents = parse_in_place(pb.PredictRequest, raw)
    arguments = [tensor_argument(tensor, contents) for tensor in request.tensors]
    return model_name(request.name, request.handle), arguments, contents


def byte_data_ranges(raw: bytes) -> list[tuple[int, int]] | None:
    """Where the tensors' `byte_data` lie in a Predict request, in order; None where they are no message."""
    try:
        return [
            (begin, end)
            for number, sized, start, stop in wire.fields(raw, 0, len(raw))
            if number == 2 and sized  # PredictRequest.tensors
            for inner, inner_sized, begin, end in wire.fields(raw, start, stop)
            if inner == 4 and inner_sized  # Tensor.byte_data
        ]
    except ValueError:
        return None


def answered_tensors(answer: bytes) -> tuple[CapturedTensor, ...]:
    """The outputs in a PredictResponse that this agent made."""
    return tuple(
        CapturedTensor(
            tensor.tensor_metadata.name,
            DType(tensor.tensor_metadata.data_type),
            tuple(tensor.tensor_metadata.shape),
            tensor.byte_data,
        )
        for tensor in pb.PredictResponse.FromString(answer).tensors
    )


def _metadata(spec: TensorSpec, shape: Iterable[int]) -> Any:
    return pb.TensorMetadata(name=spec.name, data_type=int(spec.dtype), shape=shape)  # type: ignore[arg-type]


def model_message(model: LoadedModel) -> Any:
    """The Model message of a loaded model; a dynamic dimension stands as the model has it before any resize."""
    return pb.Model(
        url=model.url,
        name=model.name,
        handle=model.name,
        input_tensor_metadatas=[_metadata(spec, spec.shape) for spec in model.inputs],
        output_tensor_metadatas=[_metadata(spec, spec.shape) for spec in model.outputs],
    )


class ResponseEncoder:
    """PredictResponse messages of one model; everything but the tensors' bytes is kept from answer to answer."""

    written_bytes = 0

    def __init__(self, outputs: Sequence[TensorSpec]) -> None:
        self._known = tuple((spec, spec.shape, self._prefix(spec, spec.shape, spec.byte_count)) for spec in outputs)

    @staticmethod
    def _prefix(spec: TensorSpec, shape: tuple[int, ...], size: int) -> bytes:
        metadata: bytes = _metadata(spec, shape).SerializeToString()
        head = _METADATA_TAG + varint(len(metadata)) + metadata + _BYTE_DATA_TAG + varint(size)
        return _TENSORS_TAG + varint(len(head) + size) + head

    def encode(self, outputs: Sequence[Output]) -> bytes:
        """The serialised answer, the only copy of the outputs; they are in the model's order."""
        if len(outputs) == 1 == len(self._known):
            (output,), ((spec, shape, prefix),) = outputs, self._known
            return b"".join(
                (prefix if output.shape == shape else self._prefix(spec, output.shape, output.nbytes), output)
            )
        parts: list[ReadableBuffer] = []
        for (spec, shape, prefix), output in zip(self._known, outputs, strict=True):
            parts += prefix if output.shape == shape else self._prefix(spec, output.shape, output.nbytes), output
        return b"".join(parts)
