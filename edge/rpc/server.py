"""The gRPC server on its Unix socket: handlers, health, reflection, and errors turned into statuses."""

import logging
import os
import socket
import stat
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from edge.errors import EdgeError, SocketInUseError
from edge.rpc._generated import agent_pb2, operations_pb2
from edge.rpc.servicer import Servicer
from edge.rpc.status import INTERNAL, status_of

log = logging.getLogger(__name__)

AGENT_SERVICE = agent_pb2.DESCRIPTOR.services_by_name["Agent"].full_name
OPERATIONS_SERVICE = operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name
MAX_SOCKET_PATH_BYTES = 107  # sun_path in sys/un.h, less its terminator
THREADS = 128
MAX_CONCURRENT_CALLS = 512  # beyond it gRPC itself refuses with RESOURCE_EXHAUSTED
SOCKET_UMASK = 0o117  # the owner and the group may connect
CONNECT_TIMEOUT_SECONDS = 2.0

Call = Callable[[bytes, Any], bytes]


def claim_socket(path: str, *, replace: bool) -> None:
    """Make sure that `path` is free for a socket (X-1).

    Raises:
        SocketInUseError: it exists and `replace` is false, it is not a socket, or an agent answers on it.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise SocketInUseError(
            f"socket path {path}: longer than {MAX_SOCKET_PATH_BYTES} bytes, the most a Unix socket takes"
        )
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        if not Path(path).absolute().parent.is_dir():
            raise SocketInUseError(f"socket path {path}: its directory does not exist") from None
        return
    except OSError as error:
        raise SocketInUseError(f"socket path {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise SocketInUseError(f"socket path {path}: something that is not a socket is there; remove it first")
    if _answers(path):
        raise SocketInUseError(f"socket path {path}: another agent answers on it; stop it first")
    if not replace:
        raise SocketInUseError(
            f"socket path {path}: it exists, left by an agent that is gone; start with -f to remove it"
        )
    Path(path).unlink(missing_ok=True)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT_SECONDS)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            # Full backlog or no permission: somebody is there.
            log.debug("connecting to %s: %s", path, error)
        return True


def _guarded(call: Call) -> Call:
    """`call` with its errors turned into statuses; only faults of the agent itself are logged as such."""

    def guarded(raw: bytes, context: Any) -> bytes:
        try:
            return call(raw, context)
        except EdgeError as error:
            code, text = status_of(error)
            if code is INTERNAL:
                log.error("%s: %s: %s", call.__name__, type(error).__name__, error)
            else:
                log.debug("%s: %s", call.__name__, text)
        except Exception as error:
            # A bug in one call: it must not say its inside to the caller, nor end the agent.
            log.error("%s failed", call.__name__, exc_info=error)
            code, text = status_of(error)
        context.abort(code, text)
        raise AssertionError("abort raises")

    return guarded


class Server:
    """The server; it takes calls from `start` to `stop`."""

    def __init__(self, path: str, *, max_message_bytes: int) -> None:
        self._path = path
        self._inode: tuple[int, int] | None = None
        self.health = health.HealthServicer(experimental_non_blocking=True)
        self._pool = futures.ThreadPoolExecutor(THREADS, "rpc")
        self._server = grpc.server(
            self._pool,
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
            options=[
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.so_reuseport", 0),
            ],
        )

    def register(self, servicer: Servicer) -> None:
        """Offer the services of section 2 of the API, health and reflection."""
        self._add(
            AGENT_SERVICE,
            {
                "Predict": servicer.predict,
                "LoadModel": servicer.load_model,
                "UnLoadModel": servicer.unload_model,
                "ListModels": servicer.list_models,
                "DescribeModel": servicer.describe_model,
                "CaptureData": servicer.capture_data,
                "GetCaptureDataStatus": servicer.capture_status,
            },
        )
        self._add(OPERATIONS_SERVICE, {"GetStatus": servicer.get_status})
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        names = (AGENT_SERVICE, OPERATIONS_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.set_serving("", False)

    def _add(self, service: str, calls: dict[str, Call]) -> None:
        handlers = {name: grpc.unary_unary_rpc_method_handler(_guarded(call)) for name, call in calls.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def set_serving(self, name: str, serving: bool) -> None:
        """The health of a model, or of the whole agent with the empty name."""
        state = health_pb2.HealthCheckResponse
        self.health.set(name, state.SERVING if serving else state.NOT_SERVING)

    def start(self) -> None:
        """Listen.

        Raises:
            SocketInUseError: the socket cannot be made.
        """
        before = os.umask(SOCKET_UMASK)
        try:
            self._server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError:
            raise SocketInUseError(f"socket path {self._path}: the socket cannot be created there") from None
        finally:
            os.umask(before)
        self._server.start()
        made = os.lstat(self._path)
        self._inode = (made.st_dev, made.st_ino)
        self.set_serving("", True)

    def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those in flight finish for `grace_seconds`, and remove the socket (X-4)."""
        self.health.enter_graceful_shutdown()
        stopped: threading.Event = self._server.stop(grace_seconds)
        stopped.wait(grace_seconds + 1.0)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._remove_socket()

    def _remove_socket(self) -> None:
        """Remove the socket if it is still ours."""
        try:
            there = os.lstat(self._path)
            if (there.st_dev, there.st_ino) == self._inode:
                Path(self._path).unlink()
        except FileNotFoundError:
            return
