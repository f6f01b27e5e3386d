"""Calls to the agent over its socket, with failures in words."""

import contextlib
import os
import socket
import stat
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from edge import address
from edge.client.outcome import InputError, RefusedError, UnreachableError
from edge.errors import SocketAddressError
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import operations_pb2 as ops
from edge.text import printable

SERVICE = "/AWS.SageMaker.Edge.Agent/"
OPERATIONS = "/edge.v1.Operations/"
HEALTH = "/grpc.health.v1.Health/"

EXAMPLE_SOCKET = "/tmp/sagemaker_edge_agent_example.sock"  # noqa: S108 (the original client's own default)
INSTALLED_SOCKET = "/run/sagemaker-edge-agent/agent.sock"
SOCKET_VARIABLE = "SAGEMAKER_EDGE_SOCKET"
MAX_WORDS_CHARACTERS = 2000  # of what the other end says; the agent's own are shorter
_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid

Reply = TypeVar("Reply", bound=Message)


def socket_of(word: str | None, *, example: bool) -> str:
    """The socket to use, as edge.address has it: the one named, else the environment's, else the first usual one that exists.

    Raises:
        InputError: the word names no socket.
        UnreachableError: nobody named one, and that in /tmp is another user's.
    """
    if named := word or os.environ.get(SOCKET_VARIABLE):
        try:
            return address.read(named)
        except SocketAddressError as error:
            raise InputError(str(error)) from None
    usual = [EXAMPLE_SOCKET, INSTALLED_SOCKET] if example else [INSTALLED_SOCKET, EXAMPLE_SOCKET]
    found = next((path for path in usual if os.path.lexists(path)), usual[0])
    if found == EXAMPLE_SOCKET:
        _check_owner(found)
    return found


def _check_owner(path: str) -> None:
    """Anybody may make a socket in /tmp and have models, inputs and captures sent to it."""
    with contextlib.suppress(OSError):
        owner = os.lstat(path).st_uid
        if owner not in (0, os.geteuid()):
            raise UnreachableError(
                f"{path} belongs to neither you nor root, but to user {owner}, who would see all that is sent to it; "
                f"if that is the agent's user, name the socket: -a {path}"
            )


def peer_credentials(path: str) -> tuple[int, int]:
    """User and group id of the process that listens on the socket.

    Raises:
        UnreachableError: nothing does, or it may not be asked.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        raise UnreachableError(why_unreachable(path)) from None
    _, uid, gid = _UCRED.unpack(credentials)
    return uid, gid


def why_unreachable(path: str) -> str:
    """Why nobody answers on a socket, and what to do, in one sentence."""
    start = f"no agent answers on {address.display(path)}: "
    if address.is_abstract(path):
        return start + "nothing in this network namespace listens there; start the agent"
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return start + f"there is no such file; start the agent, or name its socket with -a or {SOCKET_VARIABLE}"
    except OSError as error:
        return start + f"{error.strerror}; you need a group that may enter its folder"
    if not stat.S_ISSOCK(mode):
        return start + "it is not a socket"
    if not os.access(path, os.W_OK):
        return start + "you may not write to it; its owner may, and the group it is open to (ls -l shows them)"
    return start + "the file is there but nothing listens; the agent has stopped or is still starting"


def enum_name(enum: Any, number: int) -> str:
    """The name of a protobuf enum's value, or the bare number of one that this release does not know."""
    return str(enum.Name(number)) if number in enum.values() else f"UNKNOWN_{number}"


class Agent:
    """The agent behind a socket, named as edge.address has it. Calls raise RefusedError with its words, or UnreachableError.

    `timeout` in seconds holds for each call; None waits for ever, as the original client did.
    """

    def __init__(self, path: str, timeout: float | None = None) -> None:
        self.path = path
        self.timeout = timeout
        self._channel = self._connection(path)

    @staticmethod
    def _connection(path: str) -> grpc.Channel:
        no_limit = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        return grpc.insecure_channel(address.target(path), options=no_limit)

    def call(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        """One call; `method` is the full name."""
        stub = self._channel.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        try:
            answer: Reply = stub(request, timeout=self.timeout)
        except grpc.RpcError as error:
            if self._goes_on_as_admin(error):
                return self.call(method, request, reply)
            raise self._explained(error) from None
        return answer

    def _goes_on_as_admin(self, error: Any) -> bool:
        """Whether a call was refused for being an administrator's, and this user is one: from then on it is asked there."""
        if error.code() is not grpc.StatusCode.PERMISSION_DENIED or address.is_abstract(self.path):
            return False
        admins = address.for_admins(self.path)
        if not os.access(admins, os.W_OK):
            return False
        self.close()
        self.path, self._channel = admins, self._connection(admins)
        return True

    def _explained(self, error: Any) -> Exception:
        code, text = error.code(), printable(error.details() or "", MAX_WORDS_CHARACTERS)
        if code is grpc.StatusCode.NOT_FOUND and text.endswith("is not loaded"):
            text += "; `load PATH NAME` loads it, `list` shows what is loaded"
        if code is grpc.StatusCode.ALREADY_EXISTS and text.endswith("is already loaded"):
            text += " and serves; to load another package under that name, `unload NAME` first"
        if code is grpc.StatusCode.UNAVAILABLE:
            went = f"the agent on {address.display(self.path)} went away: {text}"
            return UnreachableError(why_unreachable(self.path) if "connect" in text else went)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and text.lower() in ("", "deadline exceeded"):  # gRPC's own, here
            return RefusedError(code.name, f"no answer within {self.timeout:g} s")
        if code is grpc.StatusCode.UNIMPLEMENTED:
            text = f"{text or 'no such call'}; whatever answers on {address.display(self.path)} is not this agent, or an older one"
        return RefusedError(code.name, text)

    def list_models(self) -> list[pb.Model]:
        """All loaded models."""
        return list(self.call(SERVICE + "ListModels", pb.ListModelsRequest(), pb.ListModelsResponse).models)

    def load(self, url: str, name: str) -> pb.Model:
        """Loads a package under a name."""
        return self.call(SERVICE + "LoadModel", pb.LoadModelRequest(url=url, name=name), pb.LoadModelResponse).model

    def unload(self, name: str) -> None:
        """Unloads a model."""
        self.call(SERVICE + "UnLoadModel", pb.UnLoadModelRequest(name=name), pb.UnLoadModelResponse)

    def describe(self, name: str) -> pb.Model:
        """One loaded model."""
        return self.call(SERVICE + "DescribeModel", pb.DescribeModelRequest(name=name), pb.DescribeModelResponse).model

    def reset(self, name: str) -> None:
        """Lets a model that keeps state forget it."""
        self.call(OPERATIONS + "ResetState", ops.ResetStateRequest(name=name), ops.ResetStateResponse)

    def predict(self, name: str, tensors: list[pb.Tensor]) -> list[pb.Tensor]:
        """Output tensors of a model."""
        request = pb.PredictRequest(name=name, tensors=tensors)
        return list(self.call(SERVICE + "Predict", request, pb.PredictResponse).tensors)

    def capture(self, request: pb.CaptureDataRequest) -> None:
        """Hands over one capture."""
        self.call(SERVICE + "CaptureData", request, pb.CaptureDataResponse)

    def capture_status(self, capture_id: str) -> str:
        """FAILURE, SUCCESS or IN_PROGRESS."""
        request = pb.GetCaptureDataStatusRequest(capture_id=capture_id)
        reply = self.call(SERVICE + "GetCaptureDataStatus", request, pb.GetCaptureDataStatusResponse)
        return enum_name(pb.CaptureDataStatus, reply.status)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> "Agent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
