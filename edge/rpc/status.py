"""Which gRPC status each error has. The only module that names `grpc.StatusCode`."""

import errno

import grpc

from edge import errors
from edge.durable import why
from edge.text import printable

Code = grpc.StatusCode
OK = Code.OK
INTERNAL = Code.INTERNAL
INVALID_ARGUMENT = Code.INVALID_ARGUMENT
RESOURCE_EXHAUSTED = Code.RESOURCE_EXHAUSTED
DEADLINE_EXCEEDED = Code.DEADLINE_EXCEEDED
UNAVAILABLE = Code.UNAVAILABLE
UNIMPLEMENTED = Code.UNIMPLEMENTED
INTERNAL_TEXT = "internal error; the agent's log says more"
# gRPC sends the text as a header, percent-encoded; past 8 KiB of headers a client sees another error altogether.
MAX_TEXT_CHARACTERS = 800  # of an error's text: past 8 KiB of headers a client sees another error

_NOTHING_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # the system's want, and no fault of the agent

CODES: dict[type[errors.EdgeError], grpc.StatusCode] = {
    errors.RequestsFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotOfferedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNameError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.TensorsChangedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PackageNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.PackageError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TargetError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnsupportedModelError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.MemoryLimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ModelRefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeclarationError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StoreError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StoreFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.VersionRefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NoPreviousError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.FleetError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LoadQueueFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TensorError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SharedMemoryError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.DeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.RegionExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.RegionNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.RegionsFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QueueFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.CallEndedError: grpc.StatusCode.CANCELLED,
    errors.StuckError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.InferenceEndedError: grpc.StatusCode.CANCELLED,
    errors.AcceleratorError: grpc.StatusCode.UNAVAILABLE,
    errors.InferenceError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CaptureIdError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CaptureExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.CaptureTimeError: grpc.StatusCode.OUT_OF_RANGE,
    errors.CaptureContentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.BufferFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SpoolFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.BudgetSpentError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.CaptureNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.StateError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StoppingError: grpc.StatusCode.UNAVAILABLE,
}


def number(code: grpc.StatusCode) -> int:
    """The code on the wire; that of an Enum's value is looked up by Python code, which a good answer need not pay for."""
    return 0 if code is OK else int(code.value[0])


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """The status and the text that a caller gets for an error; generic where the fault is the agent's own."""
    if isinstance(error, OSError) and error.errno in _NOTHING_LEFT:
        return RESOURCE_EXHAUSTED, f"the agent is out of descriptors or memory: {why(error)}"
    code = next((CODES[cls] for cls in type(error).__mro__ if cls in CODES), INTERNAL)
    if code is INTERNAL:
        return code, INTERNAL_TEXT
    return code, printable(str(error), MAX_TEXT_CHARACTERS)


def name_of(error: BaseException) -> str:
    """The name of the status that a caller gets for an error."""
    name: str = status_of(error)[0].name
    return name
