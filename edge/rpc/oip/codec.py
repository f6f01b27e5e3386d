"""ModelInfer on the wire: what a request asks for, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from edge.capture.record import CapturedTensor
from edge.engine.engine import Output
from edge.errors import ModelNotFoundError, SharedMemoryError, TensorError
from edge.rpc import wire
from edge.rpc._generated import open_inference_pb2 as pb
from edge.rpc.codec import parse_in_place
from edge.rpc.oip import regions as shared
from edge.rpc.oip.datatypes import DTYPES, NAMES, contents_bytes, dtype_of
from edge.rpc.plans import Dialect, ParsedRequest
from edge.rpc.wire import Contents, varint
from edge.serving.binding import RegionRange, TensorArgument
from edge.serving.caller import Caller
from edge.serving.loading import LoadedModel
from edge.shm.posix import Regions
from edge.tensors import TensorSpec, byte_count, byte_count_fault, positions, rank_fault, shape_text
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


def dialect(regions: Regions) -> Dialect:
    """How ModelInfer requests are read; the parts of shared memory that they name are of `regions`."""
    return Dialect(partial(read, regions), raw_ranges, answered_tensors)


def read(regions: Regions, raw: bytes, caller: Caller) -> ParsedRequest:
    """What a ModelInfer request asks for.

    Raises:
        RequestError: as `edge.rpc.codec.parse`.
    """
    request, contents = parse_in_place(pb.ModelInferRequest, raw)
    if not request.raw_input_contents and len(raw) > wire.HARMLESS_BYTES:
        caller.step_aside()  # numbers of typed contents are taken one by one
    answering = _Answering(request.model_version, request.id, request.outputs, regions)
    # An id is made for each request: to keep its template would only push out those of others.
    arguments = partial(_arguments, request, contents)
    return ParsedRequest(request.model_name, arguments, contents, answering.encoder, recurs=not request.id)


def _arguments(request: Any, held: Contents) -> list[TensorArgument]:
    contents = [held.take(one) for one in request.raw_input_contents]
    parts = [shared.part(f"input {shown(tensor.name)}", tensor.parameters) for tensor in request.inputs]
    inline = parts.count(None)
    if contents and len(contents) != inline:
        raise TensorError(
            f"got {len(contents)} raw_input_contents for {_inputs(inline, len(parts))}; expected one each"
        )
    sent = iter(contents)
    return [_argument(tensor, part or next(sent, None)) for tensor, part in zip(request.inputs, parts, strict=True)]


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


def answered_tensors(answer: bytes) -> tuple[CapturedTensor, ...]:
    """The outputs in a ModelInferResponse that this agent made."""
    response = pb.ModelInferResponse.FromString(answer)
    return tuple(
        CapturedTensor(output.name, dtype_of(output.name, output.datatype), tuple(output.shape), data)
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
    )


def _inputs(inline: int, all_of_them: int) -> str:
    return f"{inline} inputs" if inline == all_of_them else f"{inline} inputs that are not in shared memory"


def _argument(tensor: Any, given: bytes | memoryview | RegionRange | None) -> TensorArgument:
    name, shape = tensor.name, tuple(tensor.shape)
    dtype = dtype_of(name, tensor.datatype)
    if fault := rank_fault(shape):
        raise TensorError(f"tensor {shown(name)}: {fault}")
    if any(size < 0 for size in shape):
        raise TensorError(f"tensor {shown(name)}: got shape {shape_text(shape)}, expected no negative dimension")
    if given is None:
        data: bytes | memoryview | RegionRange = contents_bytes(name, dtype, tensor.contents)
    elif tensor.contents.ListFields():
        other = "shared memory" if isinstance(given, RegionRange) else "raw_input_contents"
        raise TensorError(f"tensor {shown(name)}: got typed contents and {other}; expected one of them")
    else:
        data = given
    size = data.size if isinstance(data, RegionRange) else len(data)
    # What is declared is held to: none of the old applications that P-12 is for speaks this protocol.
    if fault := byte_count_fault(dtype, shape, size):
        raise TensorError(f"tensor {shown(name)}: {fault}")
    return TensorArgument(name, int(dtype), shape, data)


@dataclass(frozen=True, slots=True)
class _Answering:
    """How one request wants to be answered."""

    version: str
    id: str
    outputs: Sequence[Any]
    regions: Regions

    def encoder(self, model: LoadedModel) -> "InferEncoder":
        check_version(model, self.version)
        wanted = self._wanted(model.outputs)
        if any(one.part for one in wanted):
            return PlacingEncoder(model, self.id, wanted, self.regions)
        return InferEncoder(model, self.id, wanted)

    def _wanted(self, specs: Sequence[TensorSpec]) -> list["Wanted"]:
        """The outputs that are asked for, or all."""
        if not self.outputs:
            return [Wanted(spec.name, position) for position, spec in enumerate(specs)]
        by_name, wanted = positions(specs), dict[int, Wanted]()
        for output in self.outputs:
            position = by_name.get(output.name)
            if position is None:
                names = ", ".join(shown(spec.name) for spec in specs)
                raise TensorError(f"the model has no output named {shown(output.name)}; its outputs are {names}")
            if position in wanted:
                raise TensorError(f"output {shown(output.name)} is asked for twice")
            _check_parameters(output.name, output.parameters)
            part = shared.part(f"output {shown(output.name)}", output.parameters)
            wanted[position] = Wanted(output.name, position, part)
        return list(wanted.values())


def _check_parameters(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse what would change an output; the rest is for other servers."""
    if "classification" in parameters:
        raise TensorError(f"output {shown(name)}: classification is not done here; take the best of the scores")


class Wanted(NamedTuple):
    """An output of an answer: the name to answer by, its position among the model's, and where it goes if not into the answer."""

    name: str
    position: int
    part: RegionRange | None = None


class InferEncoder:
    """ModelInferResponse messages; everything but the tensors' bytes is kept from answer to answer."""

    written_bytes = 0

    def __init__(self, model: LoadedModel, request_id: str, wanted: Sequence[Wanted]) -> None:
        self._model, self._version, self._id = model.name, model.manifest.model_version, request_id
        self._names = [one.name for one in wanted]
        self._positions = [one.position for one in wanted]
        specs = [model.outputs[position] for position in self._positions]
        self._datatypes = [NAMES[spec.dtype] for spec in specs]
        self._shapes = [spec.shape for spec in specs]
        self._head = self._head_of(self._shapes)
        self._tags = [_RAW_TAG + varint(spec.byte_count) for spec in specs]

    def _tensors(self, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
        return [
            pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
            for name, datatype, shape in zip(self._names, self._datatypes, shapes, strict=True)
        ]

    def _head_of(self, shapes: Sequence[tuple[int, ...]]) -> bytes:
        tensors = self._tensors(shapes)
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


class PlacingEncoder(InferEncoder):
    """Answers of which outputs go into shared memory; those have empty contents in the answer, as Triton's have."""

    def __init__(self, model: LoadedModel, request_id: str, wanted: Sequence[Wanted], regions: Regions) -> None:
        self._parts, self._regions = [one.part for one in wanted], regions
        super().__init__(model, request_id, wanted)
        self.written_bytes = sum(one.part.size for one in wanted if one.part)

    def _tensors(self, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
        tensors = super()._tensors(shapes)
        for tensor, part, spec_type in zip(tensors, self._parts, self._datatypes, strict=True):
            if part is not None:
                shared.describe(tensor.parameters, part, byte_count(DTYPES[spec_type], tensor.shape))
        return tensors

    def encode(self, outputs: Sequence[Output]) -> bytes:
        """See `InferEncoder.encode`; it writes what is to be placed.

        Raises:
            SharedMemoryError, RegionNotFoundError: an output does not fit its part, or that cannot be written.
        """
        chosen = [outputs[position] for position in self._positions]
        parts: list[ReadableBuffer] = [self._head_of([output.shape for output in chosen])]
        for output, part, name in zip(chosen, self._parts, self._names, strict=True):
            if part is None:
                parts += [_RAW_TAG + varint(output.nbytes), output]
                continue
            if output.nbytes > part.size:
                raise SharedMemoryError(
                    f"output {shown(name)}: it has {output.nbytes} bytes, more than its shared_memory_byte_size, {part.size}"
                )
            if output.nbytes:
                self._regions.write(part.region, part.offset, memoryview(output).cast("B"))
            parts.append(_RAW_TAG + varint(0))
        return b"".join(parts)
