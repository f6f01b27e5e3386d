"""Reading a CaptureData request: its tensors and auxiliary entries, checked and copied out of shared memory (C-5, C-7)."""

from collections.abc import Iterable, Sequence
from typing import Any

from edge.capture import record
from edge.capture.record import AuxiliaryEntry, CapturedTensor, Labels
from edge.errors import CaptureContentError
from edge.rpc import codec
from edge.rpc.wire import Contents
from edge.serving.binding import SegmentRange, declaration
from edge.serving.loading import LoadedModel
from edge.shm.sysv import SegmentReader
from edge.tensors import DType, TensorSpec, byte_count, byte_count_fault, dtype_name, own_shape, positions, rank_fault
from edge.text import shown


def check_labels(request: Any) -> None:
    """[C-5] The checks that need no tensor's bytes, made before anything is copied.

    Raises:
        CaptureContentError: a name or an encoding is not what it must be, or there are too many.
    """
    tensors = ((record.INPUT_TENSOR, request.input_tensors), (record.OUTPUT_TENSOR, request.output_tensors))
    entries = ((record.AUXILIARY_INPUT, request.inputs), (record.AUXILIARY_OUTPUT, request.outputs))
    record.check_labels(
        [Labels(what, [_name(one) for one in some]) for what, some in tensors]
        + [Labels(what, [one.name for one in some], [one.encoding for one in some]) for what, some in entries]
    )


def _name(tensor: Any) -> str:
    if not tensor.HasField("tensor_metadata"):
        raise CaptureContentError("a captured tensor has no metadata; expected name, data type and shape")
    name: str = tensor.tensor_metadata.name
    return name


class CaptureReader:
    """Reads one request that passed `check_labels`, for a model.

    `limit`: bytes of all its shared memory together, as many as a message may have. `mislabelled`: a tensor's declaration
    contradicted its bytes, and it was read as the model's own (P-12).
    """

    def __init__(self, model: LoadedModel, segments: SegmentReader, limit: int, contents: Contents) -> None:
        self.mislabelled = False
        self._model = model
        self._segments = segments
        self._limit = self._left = limit
        self._contents = contents

    def tensors(self, sent: Iterable[Any], specs: Sequence[TensorSpec]) -> tuple[CapturedTensor, ...]:
        """The tensors of a request; `specs` are the model's own on that side.

        Raises:
            CaptureContentError, SharedMemoryError: one is not what it must be.
        """
        return tuple(self._tensor(tensor, specs) for tensor in sent)

    def _tensor(self, tensor: Any, specs: Sequence[TensorSpec]) -> CapturedTensor:
        argument = codec.tensor_argument(tensor, self._contents)
        name, number, shape = argument.name or "", argument.dtype or 0, argument.shape or ()
        data = argument.data or b""
        try:
            dtype = DType(number)
        except ValueError:
            raise CaptureContentError(f"tensor {shown(name)}: {dtype_name(number)}") from None
        if fault := rank_fault(shape):
            raise CaptureContentError(f"tensor {shown(name)}: {fault}")
        if any(n < 0 for n in shape):
            raise CaptureContentError(f"tensor {shown(name)}: its shape has a negative dimension")
        size = len(data) if isinstance(data, bytes | memoryview) else data.size or byte_count(dtype, shape)
        if fault := byte_count_fault(dtype, shape, size):
            at = positions(specs).get(name)
            spec = None if at is None or self._model.binder.strict else specs[at]
            own = own_shape(spec, dtype, shape, size) if spec is not None else None
            if spec is None or own is None:
                raise CaptureContentError(f"tensor {shown(name)}: {fault}")
            self._model.remarks.say_mislabelled(name, declaration(dtype, shape), declaration(spec.dtype, own))
            self.mislabelled, dtype, shape = True, spec.dtype, own
        copied = self._copy(data, size) if isinstance(data, SegmentRange) else _bytes_of(data)  # type: ignore[arg-type]  # no RegionRange in this API
        return CapturedTensor(name, dtype, shape, copied)

    def auxiliary(self, sent: Iterable[Any]) -> tuple[AuxiliaryEntry, ...]:
        """The auxiliary entries of a request.

        Raises:
            CaptureContentError, SharedMemoryError: one is not what it must be.
        """
        return tuple(AuxiliaryEntry(entry.name, entry.encoding, self._bytes(entry)) for entry in sent)

    def _bytes(self, entry: Any) -> bytes:
        if entry.WhichOneof("data") != "shared_memory_handle":
            return _bytes_of(self._contents.take(entry.byte_data))
        handle = codec.segment(entry.shared_memory_handle)
        if not handle.size:
            raise CaptureContentError(
                f"auxiliary entry {shown(entry.name)}: the size of its shared memory is 0; expected its bytes"
            )
        return self._copy(handle, handle.size)

    def _copy(self, handle: SegmentRange, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise CaptureContentError(
                f"the capture's shared memory is more than {self._limit} bytes, the message limit"
            )
        with self._segments.view(handle.segment_id, handle.offset, size) as view:
            return _bytes_of(view)


def _bytes_of(data: bytes | memoryview) -> bytes:
    return data if isinstance(data, bytes) else b"".join((data,))  # as bytes(data), but others may run meanwhile
