"""Arbitrary messages of the Open Inference Protocol, as its definition has them, and what may become of them."""

from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from edge.rpc._generated import open_inference_pb2 as pb
from tests.system.hostile import ALLOWED

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PATH = f"/{SERVICE.full_name}/"
REFUSALS = ALLOWED | {grpc.StatusCode.UNIMPLEMENTED}
METHODS = [method.name for method in SERVICE.methods]
WORDS = [
    "add-one",
    "dynamic-batch",
    "x",
    "input",
    "1.0",
    "",
    "FP32",
    "INT8",
    "BYTES",
    "url",
    "config",
    "file:m",
    "/tmp",
    "shared_memory_region",
    "shared_memory_byte_size",
    "shared_memory_offset",
    "region",
    "{}",
]


def messages(kind: Any) -> st.SearchStrategy[Any]:
    """Messages of a descriptor with arbitrary fields, known words preferred."""
    return st.fixed_dictionaries({}, optional={field.name: _field(field) for field in kind.fields}).map(
        lambda values: _made(GetMessageClass(kind), values)
    )


def _made(kind: type[Message], values: dict[str, Any]) -> Message:
    message = kind()
    for name, value in values.items():
        message.MergeFrom(kind(**{name: value}))
    return message


def _field(field: Any) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return st.dictionaries(st.sampled_from(WORDS), messages(kind.fields_by_name["value"].message_type), max_size=3)
    if kind is not None:
        one = messages(kind)
    elif field.type == field.TYPE_STRING:
        one = st.sampled_from(WORDS) | st.text(max_size=8)
    elif field.type == field.TYPE_BYTES:
        one = st.sampled_from([bytes(16), bytes(32), b""]) | st.binary(max_size=32)
    elif field.type == field.TYPE_BOOL:
        one = st.booleans()
    elif field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        one = st.floats(width=32)
    elif field.type in (field.TYPE_INT32, field.TYPE_UINT32):
        one = st.sampled_from([0, 1, 127, 128, 2**31 - 1])
    else:
        one = st.sampled_from([0, 1, 4, 16, 2**31, 2**63 - 1])
    return st.lists(one, max_size=4) if field.is_repeated else one
