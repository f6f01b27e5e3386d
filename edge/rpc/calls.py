"""What a server of calls offers to the services on it: a call, a stream, and what handlers give back.

`edge.rpc.core` serves them from gRPC's completion queue, `edge.rpc.fallback` by `grpc.server`.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import grpc

from edge.errors import MemoryLimitError
from edge.rpc import status
from edge.serving.caller import Caller

Answer = tuple[bytes | None, status.Code, str]  # the message, the status and its text
Unary = Callable[[bytes, Caller], Answer]

log = logging.getLogger(__name__)

FAILED: Answer = (None, status.INTERNAL, status.INTERNAL_TEXT)  # where a handler has failed, which is logged
FAILED_TEXT = "a call's handler failed"
FOREVER_SECONDS = 10 * 365 * 86400.0  # a deadline further away is none


def answer_of(handler: Unary, raw: bytes, call: Caller) -> Answer:
    """The handler's answer; INTERNAL where it fails, which is logged. Nothing is raised."""
    try:
        return handler(raw, call)
    except Exception as error:
        log.error(FAILED_TEXT, exc_info=error)
        return FAILED


def not_unary(raw: bytes, call: Caller) -> Answer:
    """The handler of what is no unary call."""
    raise NotImplementedError


def step_far_aside(caller: Caller) -> None:
    """Step aside for what may take many seconds.

    Raises:
        MemoryLimitError: the system gives no thread that could serve other calls meanwhile.
    """
    if not caller.step_aside():
        raise MemoryLimitError(
            "no thread is left to serve other calls meanwhile; raise the limit of processes (TasksMax, pids.max, ulimit -u)"
        )


class Stream(Protocol):
    """A call with any number of messages both ways."""

    def send(self, message: bytes) -> None:
        """Send a message; what the client does not take in time is dropped, oldest first."""
        ...

    def finish(self, code: status.Code, text: str = "") -> None:
        """End the call once everything is sent."""
        ...


class StreamHandler(Protocol):
    """What a streaming method does with one call; `goes_on` where the client sends more than one message."""

    goes_on: bool

    def message(self, raw: bytes) -> None:
        """A message of the client came."""
        ...

    def half_closed(self) -> None:
        """The client will send no more."""
        ...

    def closed(self) -> None:
        """The call is over."""
        ...


class CallServer(Protocol):
    """A gRPC server on a Unix socket. Methods are added before `start`."""

    def add_unary(self, method: str, handler: Unary) -> None:
        """Serve `/service/Method` with a function from request bytes to an answer.

        Unless it is over within a millisecond it calls `step_aside` first.
        """
        ...

    def add_stream(self, method: str, make: Callable[[Stream], StreamHandler]) -> None:
        """Serve `/service/Method` with a handler made for each call."""
        ...

    def listen(self, path: str) -> None:
        """Make the socket.

        Raises:
            RuntimeError: it cannot be made.
        """
        ...

    def listen_tcp(self, where: str, credentials: grpc.ServerCredentials | None = None) -> None:
        """Take calls at HOST:PORT too, with credentials over TLS; before `listen`.

        Raises:
            RuntimeError: that cannot be done.
        """
        ...

    def start(self) -> None:
        """Take calls."""
        ...

    def stop(self, grace_seconds: float) -> None:
        """Take no new calls; those under way have `grace_seconds` to finish. Returns when all have ended."""
        ...
