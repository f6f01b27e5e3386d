"""The gRPC server on its Unix socket: handlers, health, reflection, and errors turned into statuses."""

import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from grpc_reflection.v1alpha import reflection, reflection_pb2

from edge import address
from edge.clock import Clock, SystemClock
from edge.errors import EdgeError, InferenceError, RequestError, SocketInUseError
from edge.rpc import status
from edge.rpc._generated import agent_pb2, open_inference_pb2, operations_pb2
from edge.rpc.calls import Answer, CallServer, Stream, Unary
from edge.rpc.codec import parse
from edge.rpc.health import SERVICE as HEALTH_SERVICE
from edge.rpc.health import Health
from edge.rpc.oip.servicer import InferenceServicer, NoStream
from edge.rpc.receipt import LARGE_REQUEST_BYTES, Held, Receipts
from edge.rpc.servicer import Servicer
from edge.serving.scheduler import Caller
from edge.text import printable

log = logging.getLogger(__name__)

AGENT_SERVICE = agent_pb2.DESCRIPTOR.services_by_name["Agent"].full_name
OPERATIONS_SERVICE = operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name
INFERENCE_SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
MAX_SOCKET_PATH_BYTES = 107  # sun_path in sys/un.h, less its terminator
SOCKET_UMASK = 0o117  # the owner and the group may connect
CONNECT_TIMEOUT_SECONDS = 2.0
LOOKAHEAD_BYTES = 192 * 1024  # what a call may send that nobody has asked for: of 512 calls and 128 streams 120 MiB
MAX_CALLS_PER_CONNECTION = 128  # further ones wait in the client

Handler = Callable[[bytes, Caller], bytes]


def claim_socket(path: str, *, replace: bool) -> None:
    """Make sure that `path`, as edge.address has it, is free for a socket (X-1).

    Raises:
        SocketInUseError: it exists and `replace` is false, it is not a socket, or an agent answers on it.
    """
    fault = _claimed(path, replace=replace)
    if fault:
        raise SocketInUseError(f"socket {address.display(path)}: {fault}")


def _claimed(path: str, *, replace: bool) -> str:
    """What keeps `path` from being free; nothing where it is, now."""
    if len(os.fsencode(path)) - address.is_abstract(path) > MAX_SOCKET_PATH_BYTES:
        return f"longer than {MAX_SOCKET_PATH_BYTES} bytes, the most a Unix socket takes"
    if not address.is_abstract(path):
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return "" if Path(path).parent.is_dir() else "its directory does not exist"
        except OSError as error:
            return error.strerror or "it cannot be examined"
        if not stat.S_ISSOCK(mode):
            return "something that is not a socket is there; remove it first"
    try:
        if _answers(path):
            return "another agent answers on it; stop it first"
    except OSError as error:
        return (
            f"it cannot be determined whether an agent answers on it ({error.strerror}); stop its owner, or remove it"
        )
    if address.is_abstract(path):
        return ""
    if not replace:
        return "it exists, left by an agent that is gone; start with -f to remove it"
    Path(path).unlink(missing_ok=True)
    return ""


def _answers(path: str) -> bool:
    """Whether somebody listens.

    Raises:
        OSError: that cannot be told: no permission, or a socket of another kind.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT_SECONDS)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (BlockingIOError, TimeoutError):
            return True  # more wait for it than it has taken
        return True


def _guarded(call: Handler, held: Held, *, quick: bool) -> Unary:
    """`call` with its errors turned into statuses; only faults of the agent itself are logged as such.

    One that is not `quick` steps aside first. Large requests are counted while they are answered.
    """

    def held_call(raw: bytes, context: Caller) -> bytes:
        held.take(len(raw))
        try:
            return call(raw, context)
        finally:
            held.give_back(len(raw))

    def guarded(raw: bytes, context: Caller) -> Answer:
        if not quick:
            context.step_aside()
        try:
            answer = call(raw, context) if len(raw) < LARGE_REQUEST_BYTES else held_call(raw, context)
            return answer, status.OK, ""
        except EdgeError as error:
            code, text = status.status_of(error)
            if isinstance(error, InferenceError):  # the caller's values, but it may be the model's fault
                text = f"the runtime fails on these inputs: {printable(str(error))}"
                log.error("%s: %s", call.__name__, text)
            else:
                log.debug("%s: %s", call.__name__, text)
        except Exception as error:
            # A bug in one call: it must not say its inside to the caller, nor end the agent.
            log.error("%s failed", call.__name__, exc_info=error)
            code, text = status.status_of(error)
        return None, code, text

    return guarded


class _Reflection:
    """One reflection call: an answer to each question."""

    goes_on = True

    def __init__(self, servicer: reflection.ReflectionServicer, stream: Stream) -> None:
        self._servicer = servicer
        self._stream = stream

    def message(self, raw: bytes) -> None:
        try:
            question = parse(reflection_pb2.ServerReflectionRequest, raw)
        except RequestError as error:
            self._stream.finish(status.INVALID_ARGUMENT, str(error))
            return
        for answer in self._servicer.ServerReflectionInfo(iter([question]), None):
            self._stream.send(answer.SerializeToString())

    def half_closed(self) -> None:
        self._stream.finish(status.OK)

    def closed(self) -> None:
        """Nothing was kept."""


def _call_server(kind: str, options: Mapping[str, int | str], clock: Clock, receipts: Receipts) -> CallServer:
    """The server of calls that the configuration asks for; "core" where this version of gRPC has what that needs."""
    from edge.rpc.fallback import FallbackServer

    if kind == "core":
        try:
            from edge.rpc.core import CoreServer
        except ImportError as error:
            log.warning(
                "this gRPC is not as edge.rpc.core expects (%s): calls are served by grpc.server, slower", error
            )
        else:
            return CoreServer(options, clock, receipts)
    return FallbackServer(options, clock)


class Server:
    """The server; it takes calls from `start` to `stop`. `kind` is `edge_rpc_server`, `listen` is `edge_listen`."""

    def __init__(
        self,
        path: str,
        *,
        max_message_bytes: int,
        max_receive_bytes: int = 0,
        max_requests_bytes: int = 0,
        clock: Clock | None = None,
        kind: str = "core",
        listen: str = "",
    ) -> None:
        """Each of the bounds on all calls together (B-4, B-5) is one message's, `max_message_bytes`, at least."""
        clock = clock or SystemClock()
        self._path = path
        self._listen = listen
        self._inode: tuple[int, int] | None = None
        self._health = Health()
        self._held = Held(max(max_message_bytes, max_requests_bytes))
        max_receive_bytes = max(max_message_bytes, max_receive_bytes)
        self._receipts = Receipts(clock, self._held, max_message_bytes=max_message_bytes, max_bytes=max_receive_bytes)
        self._core = _call_server(
            kind,
            {
                "grpc.max_send_message_length": max_message_bytes,
                "grpc.max_receive_message_length": max_message_bytes,
                "grpc.so_reuseport": 0,
                "grpc.max_concurrent_streams": MAX_CALLS_PER_CONNECTION,
                # Of a Unix socket the kernel says when the other end is gone: no timer needs to be moved at every message.
                "grpc.keepalive_time_ms": 2**31 - 1,  # never
                # Clients that ask by themselves, as many do every 10 s, are no attack on a local socket: none is too often.
                "grpc.http2.max_ping_strikes": 0,
                # gRPC would adapt it, up to megabytes. What is asked for comes in windows of 1 MiB and this: larger ones would
                # spare a large tensor some updates of its window, 14 for 12 MiB.
                "grpc.http2.lookahead_bytes": LOOKAHEAD_BYTES,
                "grpc.http2.bdp_probe": 0,
                # The most that RFC 9113 4.2 allows: a large tensor comes in few frames. Memory is bounded by the windows.
                "grpc.http2.max_frame_size": 2**24 - 1,
            },
            clock,
            self._receipts,
        )

    @property
    def large_requests(self) -> int:
        """How many requests there were that left much memory behind: large ones, and those that were not received."""
        return self._held.taken + self._receipts.dropped

    def register(self, servicer: Servicer, inference: InferenceServicer) -> None:
        """Offer the agent's own services, the Open Inference Protocol, health and reflection ([N])."""
        quick = {
            "Predict": servicer.predict,  # it steps aside by itself where it has to
            "ListModels": servicer.list_models,
            "DescribeModel": servicer.describe_model,
        }
        others = {
            "LoadModel": servicer.load_model,
            "UnLoadModel": servicer.unload_model,
            "CaptureData": servicer.capture_data,
            "GetCaptureDataStatus": servicer.capture_status,
        }
        self._add(AGENT_SERVICE, quick, quick=True)
        self._add(AGENT_SERVICE, others)
        self._add(
            OPERATIONS_SERVICE,
            {
                "GetStatus": servicer.get_status,
                "ResetState": servicer.reset_state,
                "ApplyModels": servicer.apply_models,
                "RollbackModel": servicer.rollback_model,
            },
        )
        self._add(INFERENCE_SERVICE, inference.quick_calls(), quick=True)
        self._add(INFERENCE_SERVICE, inference.other_calls())
        self._core.add_stream(
            f"/{INFERENCE_SERVICE}/ModelStreamInfer", lambda stream: NoStream("ModelStreamInfer", stream)
        )
        self._add(HEALTH_SERVICE, {"Check": self._health.check, "List": self._health.list}, quick=True)
        self._core.add_stream(f"/{HEALTH_SERVICE}/Watch", self._health.start_watch)
        names = (AGENT_SERVICE, OPERATIONS_SERVICE, INFERENCE_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
        reflector = reflection.ReflectionServicer(names)
        self._core.add_stream(
            f"/{reflection.SERVICE_NAME}/ServerReflectionInfo", lambda stream: _Reflection(reflector, stream)
        )
        self.set_serving("", False)

    def _add(self, service: str, calls: Mapping[str, Handler], *, quick: bool = False) -> None:
        for name, call in calls.items():
            self._core.add_unary(f"/{service}/{name}", _guarded(call, self._held, quick=quick))

    def set_serving(self, name: str, serving: bool) -> None:
        """The health of a model, or of the whole agent with the empty name."""
        self._health.set(name, serving)

    def start(self, *, serving: bool = True) -> None:
        """Listen; without `serving`, the agent's health is not yet SERVING.

        While the socket is made the process has its umask: no other thread may make files or folders yet.

        Raises:
            SocketInUseError: the socket cannot be made.
        """
        try:
            if self._listen:
                self._core.listen_tcp(self._listen)
        except RuntimeError:
            raise SocketInUseError(
                f"edge_listen {self._listen}: it is in use, or not an address of this machine"
            ) from None
        before = os.umask(SOCKET_UMASK)
        try:
            self._core.listen(self._path)
        except RuntimeError:
            raise SocketInUseError(f"socket {address.display(self._path)}: it cannot be created there") from None
        finally:
            os.umask(before)
        self._core.start()
        self._inode = self._inode_there()
        if serving:
            self.set_serving("", True)

    def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those in flight finish for `grace_seconds`, and remove the socket (X-4)."""
        self._health.stop()
        self._core.stop(grace_seconds)
        self._remove_socket()

    def socket_is_there(self) -> bool:
        """Whether the socket can still be found under its name."""
        return address.is_abstract(self._path) or self._inode_there() == self._inode

    def _inode_there(self) -> tuple[int, int] | None:
        try:
            there = os.lstat(self._path)
        except (OSError, ValueError):  # the latter: a name without a file
            return None
        return there.st_dev, there.st_ino

    def _remove_socket(self) -> None:
        """Remove the socket if it is still ours."""
        if self._inode is not None and self._inode_there() == self._inode:
            Path(self._path).unlink(missing_ok=True)
