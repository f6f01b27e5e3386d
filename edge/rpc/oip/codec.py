"""ModelInfer on the wire: what a request asks for, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.engine.engine import Output
from edge.errors import ModelNotFoundError, TensorError
from edge.rpc import wire
from edge.rpc._generated import open_inference_pb2 as pb
from edge.rpc.codec import parse, varint
from edge.rpc.oip.datatypes import NAMES, contents_bytes, dtype_of
from edge.rpc.plans import Asked
from edge.serving.binding import TensorArgument
from edge.serving.loading import LoadedModel
from edge.serving.scheduler import Caller
from edge.tensors import TensorSpec, byte_count_fault, positions, rank_fault, shape_text
from edge.text import shown

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_RAW_FIELD = 7  # ModelInferRequest.raw_input_contents
_RAW_TAG = b"\x32"  # ModelInferResponse.raw_output_contents = 6, length-delimited


def check_version(model: LoadedModel, version: str) -> None:
    """A model has one version, its package's; no version means that one.

    Raises:
        ModelNotFoundError: another is asked for.
    """
    if version not in ("", model.manifest.model_version):
        raise ModelNotFoundError(
            f"model {shown(model.name)} has version {shown(model.manifest.model_version)} here, not {shown(version)}"
        )


def read(raw: bytes, caller: Caller) -> Asked:
    """What a ModelInfer request asks for.

    Raises:
        RequestError: as `edge.rpc.codec.parse`.
        TensorError: a tensor is not what it is declared to be.
    """
    request = parse(pb.ModelInferRequest, raw)
    contents = list(request.raw_input_contents)
    if contents and len(contents) != len(request.inputs):
        raise TensorError(f"got {len(contents)} raw_input_contents for {len(request.inputs)} inputs; expected one each")
    if not contents and len(raw) > wire.HARMLESS_BYTES:
        caller.step_aside()  # numbers of typed contents are taken one by one
    sent = contents or [None] * len(request.inputs)
    arguments = [_argument(tensor, data) for tensor, data in zip(request.inputs, sent, strict=True)]
    answering = _Answering(request.model_version, request.id, request.outputs)
    # An id is made for each request: to keep its template would only push out those of others.
    return Asked(request.model_name, arguments, answering.encoder, recurs=not request.id)


def raw_ranges(raw: bytes) -> list[tuple[int, int]] | None:
    """Where raw contents lie in a ModelInfer request, in order; None where they are no message."""
    try:
        return [
            (begin, end)
            for number, sized, begin, end in wire.fields(raw, 0, len(raw))
            if number == _RAW_FIELD and sized
        ]
    except ValueError:
        return None


def _argument(tensor: Any, raw: bytes | None) -> TensorArgument:
    name, shape = tensor.name, tuple(tensor.shape)
    dtype = dtype_of(name, tensor.datatype)
    if fault := rank_fault(shape):
        raise TensorError(f"tensor {shown(name)}: {fault}")
    if any(size < 0 for size in shape):
        raise TensorError(f"tensor {shown(name)}: got shape {shape_text(shape)}, expected no negative dimension")
    if raw is None:
        data = contents_bytes(name, dtype, tensor.contents)
    elif tensor.contents.ListFields():
        raise TensorError(f"tensor {shown(name)}: got typed contents and raw_input_contents; expected one of them")
    else:
        data = raw
    # What is declared is held to: none of the old applications that P-12 is for speaks this protocol.
    if fault := byte_count_fault(dtype, shape, len(data)):
        raise TensorError(f"tensor {shown(name)}: {fault}")
    return TensorArgument(name, int(dtype), shape, data)


@dataclass(frozen=True, slots=True)
class _Answering:
    """How one request wants to be answered."""

    version: str
    id: str
    outputs: Sequence[Any]

    def encoder(self, model: LoadedModel) -> "InferEncoder":
        check_version(model, self.version)
        return InferEncoder(model, self.id, self._wanted(model.outputs))

    def _wanted(self, specs: Sequence[TensorSpec]) -> list[tuple[str, int]]:
        """The names to answer by, and the positions of the outputs: those that are asked for, or all."""
        if not self.outputs:
            return [(spec.name, position) for position, spec in enumerate(specs)]
        by_name, wanted = positions(specs), dict[int, str]()
        for output in self.outputs:
            position = by_name.get(output.name)
            if position is None:
                names = ", ".join(shown(spec.name) for spec in specs)
                raise TensorError(f"the model has no output named {shown(output.name)}; its outputs are {names}")
            if position in wanted:
                raise TensorError(f"output {shown(output.name)} is asked for twice")
            _check_parameters(output.name, output.parameters)
            wanted[position] = output.name
        return [(name, position) for position, name in wanted.items()]


def _check_parameters(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse what would change an output; the rest is for other servers."""
    if "classification" in parameters:
        raise TensorError(f"output {shown(name)}: classification is not done here; take the best of the scores")


class InferEncoder:
    """ModelInferResponse messages; everything but the tensors' bytes is kept from answer to answer."""

    def __init__(self, model: LoadedModel, request_id: str, wanted: Sequence[tuple[str, int]]) -> None:
        self._model, self._version, self._id = model.name, model.manifest.model_version, request_id
        self._names = [name for name, _ in wanted]
        self._positions = [position for _, position in wanted]
        specs = [model.outputs[position] for position in self._positions]
        self._datatypes = [NAMES[spec.dtype] for spec in specs]
        self._shapes = [spec.shape for spec in specs]
        self._head = self._head_of(self._shapes)
        self._tags = [_RAW_TAG + varint(spec.byte_count) for spec in specs]

    def _head_of(self, shapes: Sequence[tuple[int, ...]]) -> bytes:
        tensors = [
            pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
            for name, datatype, shape in zip(self._names, self._datatypes, shapes, strict=True)
        ]
        message = pb.ModelInferResponse(
            model_name=self._model, model_version=self._version, id=self._id, outputs=tensors
        )
        head: bytes = message.SerializeToString()
        return head

    def encode(self, outputs: Sequence[Output]) -> bytes:
        """The serialised answer, the only copy of the outputs; they are in the model's order."""
        chosen = [outputs[position] for position in self._positions]
        shapes = [output.shape for output in chosen]
        known = shapes == self._shapes
        parts: list[ReadableBuffer] = [self._head if known else self._head_of(shapes)]
        for output, tag in zip(chosen, self._tags, strict=True):
            parts.append(tag if known else _RAW_TAG + varint(output.nbytes))
            parts.append(output)
        return b"".join(parts)
