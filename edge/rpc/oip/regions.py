"""Triton's extension for system shared memory: its calls, and the parameters by which a tensor is in a region."""

from collections.abc import Mapping
from typing import Any

from edge.errors import TensorError
from edge.rpc._generated import open_inference_pb2 as pb
from edge.rpc.codec import parse
from edge.serving.binding import RegionRange
from edge.serving.caller import Caller
from edge.shm.posix import Regions

REGION, OFFSET, SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"


def part(what: str, parameters: Mapping[str, Any]) -> RegionRange | None:
    """The part of a region that the parameters of a tensor name; None where they name none.

    Raises:
        TensorError: they do not say which, in the protocol's kinds.
    """
    if not parameters:
        return None
    if REGION not in parameters:
        if OFFSET in parameters or SIZE in parameters:
            raise TensorError(f"{what}: expected the parameter {REGION} beside {OFFSET} and {SIZE}")
        return None
    region, size = parameters[REGION].string_param, _number(what, parameters, SIZE)
    if not region or not size:
        raise TensorError(f"{what}: expected {REGION} as string_param, and {SIZE} as int64_param, more than 0")
    return RegionRange(region, _number(what, parameters, OFFSET), size)


def _number(what: str, parameters: Mapping[str, Any], name: str) -> int:
    if name not in parameters:
        return 0
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    number: int = getattr(parameter, kind) if kind in ("int64_param", "uint64_param") else -1
    if number < 0:
        raise TensorError(f"{what}: expected {name} as int64_param, not negative")
    return number


def describe(parameters: Mapping[str, Any], where: RegionRange, size: int) -> None:
    """Say in an answer's output where it was put."""
    parameters[REGION].string_param = where.region
    parameters[SIZE].int64_param = size
    if where.offset:
        parameters[OFFSET].int64_param = where.offset


class RegionCalls:
    """SystemSharedMemoryStatus, -Register, -Unregister."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    def status(self, raw: bytes, caller: Caller) -> bytes:
        """A region, or all."""
        answer = pb.SystemSharedMemoryStatusResponse()
        for region in self._regions.registered(parse(pb.SystemSharedMemoryStatusRequest, raw).name):
            one = answer.regions[region.name]
            one.name, one.key, one.offset, one.byte_size = region.name, region.key, region.offset, region.size
        message: bytes = answer.SerializeToString()
        return message

    def register(self, raw: bytes, caller: Caller) -> bytes:
        """Take a part of a file under a name."""
        request = parse(pb.SystemSharedMemoryRegisterRequest, raw)
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return b""  # a SystemSharedMemoryRegisterResponse has no fields

    def unregister(self, raw: bytes, caller: Caller) -> bytes:
        """Forget a region, or all."""
        self._regions.unregister(parse(pb.SystemSharedMemoryUnregisterRequest, raw).name)
        return b""  # a SystemSharedMemoryUnregisterResponse has no fields
