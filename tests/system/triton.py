"""What an application asks by tritonclient, NVIDIA's own client, unmodified.

Each function runs in a process of its own (`triton` in conftest.py): the client's stubs and the agent's both define the package
`inference`, and one process takes only one of them.
"""

from typing import Any

import numpy as np


class Refused(Exception):
    """The status and the text of a refusal."""


def _client(url: str, tls: list[str] | None = None) -> Any:
    """`tls`: the files of the CA, of the client's key and of its certificate."""
    from tritonclient.grpc import InferenceServerClient

    if tls is None:
        return InferenceServerClient(url)
    ca, key, certificate = tls
    return InferenceServerClient(url, ssl=True, root_certificates=ca, private_key=key, certificate_chain=certificate)


def call(url: str, method: str, *arguments: Any, **named: Any) -> Any:
    """Any method of the client, with its answer as plain data.

    Raises:
        Refused: the call is.
    """
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import Message
    from tritonclient.utils import InferenceServerException

    with _client(url) as client:
        try:
            answer = getattr(client, method)(*arguments, **named)
        except InferenceServerException as error:
            raise Refused(error.status().removeprefix("StatusCode."), error.message()) from None
    return MessageToDict(answer, preserving_proto_field_name=True) if isinstance(answer, Message) else answer


def infer(
    url: str,
    model: str,
    inputs: dict[str, np.ndarray[Any, Any]],
    outputs: tuple[str, ...] = (),
    tls: list[str] | None = None,
    **named: Any,
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Infer on inputs by name; the outputs by name, and the answer without them.

    Raises:
        Refused: the call is.
    """
    from tritonclient.grpc import InferInput, InferRequestedOutput
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype

    given = []
    for name, array in inputs.items():
        given.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        given[-1].set_data_from_numpy(array)
    with _client(url, tls) as client:
        try:
            wanted = [InferRequestedOutput(name) for name in outputs] or None
            result = client.infer(model, given, outputs=wanted, **named)
        except InferenceServerException as error:
            raise Refused(error.status().removeprefix("StatusCode."), error.message()) from None
    answer = result.get_response(as_json=True)
    found = {output["name"]: result.as_numpy(output["name"]) for output in answer["outputs"]}
    return found, answer


def infer_tls(url: str, tls: list[str], model: str, inputs: dict[str, np.ndarray[Any, Any]]) -> Any:
    """`infer` over TLS."""
    return infer(url, model, inputs, tls=tls)


def infer_shared(
    url: str, model: str, name: str, array: np.ndarray[Any, Any], output: str, shape: tuple[int, ...], times: int = 2
) -> tuple[np.ndarray[Any, Any], dict[str, Any], dict[str, Any]]:
    """Infer with the input and the output in regions that the client's own tools make; the output, answer, and status then.

    The output is put 64 bytes behind the beginning of its region.
    """
    from google.protobuf.json_format import MessageToDict
    from tritonclient.grpc import InferInput, InferRequestedOutput
    from tritonclient.utils import np_to_triton_dtype, shared_memory

    answer_bytes = int(np.prod(shape)) * array.itemsize
    given = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    given.set_shared_memory("input-region", array.nbytes)
    wanted = InferRequestedOutput(output)
    wanted.set_shared_memory("output-region", answer_bytes, 64)
    regions = []
    with _client(url) as client:
        try:
            for region, size in (("input-region", array.nbytes), ("output-region", 64 + answer_bytes)):
                regions.append(shared_memory.create_shared_memory_region(region, f"/edge-{region}-{id(client)}", size))
                client.register_system_shared_memory(region, f"/edge-{region}-{id(client)}", size)
            shared_memory.set_shared_memory_region(regions[0], [array])
            for _ in range(times):
                result = client.infer(model, [given], outputs=[wanted])
            found = shared_memory.get_contents_as_numpy(regions[1], array.dtype, shape, 64).copy()
            status = MessageToDict(client.get_system_shared_memory_status(), preserving_proto_field_name=True)
            return found, result.get_response(as_json=True), status
        finally:
            client.unregister_system_shared_memory()
            for one in regions:
                shared_memory.destroy_shared_memory_region(one)


def unlike(definition: bytes) -> list[str]:
    """Where the messages of a serialised FileDescriptorProto are not those of the client's stubs: fields, numbers, kinds."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from tritonclient.grpc import model_config_pb2, service_pb2

    ours = DescriptorPool()
    ours.Add(FileDescriptorProto.FromString(definition))
    file = ours.FindFileByName(FileDescriptorProto.FromString(definition).name)
    theirs = service_pb2.DESCRIPTOR.pool
    assert model_config_pb2.DESCRIPTOR.pool is theirs
    found = []
    for service in file.services_by_name.values():
        other = theirs.FindServiceByName(service.full_name)
        for method in service.methods:
            same = other.methods_by_name[method.name]
            if (method.input_type.full_name, method.output_type.full_name) != (
                same.input_type.full_name,
                same.output_type.full_name,
            ):
                found.append(method.full_name)
    messages = list(file.message_types_by_name.values())
    while messages:
        message = messages.pop()
        messages += message.nested_types
        other = theirs.FindMessageTypeByName(message.full_name)
        for field in message.fields:
            same = other.fields_by_name.get(field.name)
            if same is None or (field.number, field.type, field.is_repeated) != (
                same.number,
                same.type,
                same.is_repeated,
            ):
                found.append(field.full_name)
    for enum in file.enum_types_by_name.values():
        other = theirs.FindEnumTypeByName(enum.full_name)
        found += [value.name for value in enum.values if other.values_by_name[value.name].number != value.number]
    return found
