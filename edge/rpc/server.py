"""The gRPC server on its Unix socket: handlers, health, reflection, and errors turned into statuses."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from edge import traceparent
from edge.clock import Clock, SystemClock
from edge.errors import EdgeError, InferenceError, RequestError, SocketInUseError
from edge.rpc import status
from edge.rpc._generated import agent_pb2, open_inference_pb2, operations_pb2
from edge.rpc.admins import ADMIN_CALLS, Admins
from edge.rpc.calls import Answer, CallServer, Stream, StreamHandler, Unary
from edge.rpc.codec import parse
from edge.rpc.health import SERVICE as HEALTH_SERVICE
from edge.rpc.health import Health
from edge.rpc.oip.servicer import InferenceServicer, NoStream
from edge.rpc.receiving import LARGE_REQUEST_BYTES, LargeRequests, Receiving
from edge.rpc.servicer import Servicer
from edge.rpc.socket_file import SocketFile
from edge.serving.caller import Caller
from edge.tally import Tally
from edge.text import printable

log = logging.getLogger(__name__)

AGENT_SERVICE = agent_pb2.DESCRIPTOR.services_by_name["Agent"].full_name
OPERATIONS_SERVICE = operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name
INFERENCE_SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
KEEPALIVE_MS = 60_000  # without a word from a client on TCP; it is asked then
ADMIN_SOCKET_UMASK = 0o111  # its folder says who may connect
LOOKAHEAD_BYTES = 192 * 1024  # that a call may send before they are asked for: of 512 calls and 128 streams 120 MiB
MAX_CALLS_PER_CONNECTION = 128  # calls at a time on a connection; further ones wait in the client

Handler = Callable[[bytes, Caller], bytes]


def _guarded(call: Handler, held: LargeRequests, calls: Tally, *, quick: bool) -> Unary:
    """`call` as the server runs it: its errors become statuses, and its answers are counted by status.

    A call that is not `quick` steps aside first, and all its log lines name its trace; of a quick call only those of a failure do. Large
    requests are counted while they are answered (`LargeRequests`). Only faults of the agent, or perhaps of the model, are logged as errors.
    """
    count, count_ok = calls.count, calls.counter("OK")

    def large(raw: bytes, caller: Caller) -> bytes:
        held.take(len(raw))
        try:
            return call(raw, caller)
        finally:
            held.give_back(len(raw))

    def guarded(raw: bytes, caller: Caller) -> Answer:
        try:
            answer = call(raw, caller) if len(raw) < LARGE_REQUEST_BYTES else large(raw, caller)
            count_ok()
            return answer, status.OK, ""
        except EdgeError as error:
            code, text = status.status_of(error)
            with traceparent.of_call(caller.metadata):
                if isinstance(error, InferenceError):  # the caller's values, but it may be the model's fault
                    text = f"the runtime fails on these inputs: {printable(str(error))}"
                    log.error("%s: %s", call.__name__, text)
                else:
                    log.debug("%s: %s", call.__name__, text)
        except Exception as error:
            # A bug: its details are for the log and not for the caller, and other calls go on.
            with traceparent.of_call(caller.metadata):
                log.error("%s failed", call.__name__, exc_info=error)
            code, text = status.status_of(error)
        count(code.name)
        return None, code, text

    def guarded_aside(raw: bytes, caller: Caller) -> Answer:
        caller.step_aside()
        with traceparent.of_call(caller.metadata):
            return guarded(raw, caller)

    return guarded if quick else guarded_aside


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


def _call_server(kind: str, options: Mapping[str, int | str], clock: Clock, receiving: Receiving) -> CallServer:
    """The server that `edge_rpc_server` names; `grpc.server` too where this version of gRPC lacks what "core" needs."""
    if kind == "core":
        try:
            from edge.rpc.core import CoreServer
        except ImportError as error:
            log.warning(
                "this gRPC is not as edge.rpc.core expects (%s): calls are served by grpc.server, slower", error
            )
        else:
            return CoreServer(options, clock, receiving)
    from edge.rpc.fallback import FallbackServer  # only where it serves

    return FallbackServer(options, clock)


class _Door(NamedTuple):
    """A socket, and what serves the calls that come by it."""

    file: SocketFile
    calls: CallServer


class Server:
    """The server; it takes calls from `start` to `stop`. `kind` is `edge_rpc_server`, `listen` is `edge_listen`.

    `tls` is for `listen`. With `admins` their calls are served on their socket alone, which is made in the folder that is there for it.
    """

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
        admins: Admins | None = None,
        tls: grpc.ServerCredentials | None = None,
    ) -> None:
        """The bounds on all calls together (B-4, B-5) have room for one message, of `max_message_bytes`, at least."""
        clock = clock or SystemClock()
        self._listen, self._tls = listen, tls
        self._admins = admins
        self._health = Health()
        self.calls: dict[tuple[str, str], Tally] = {}  # by service and method, by status
        self._held = LargeRequests(max_requests_bytes or max_message_bytes)
        options = {
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
        }
        if tls is not None:  # of a machine that is far away, and was switched off, nobody says so
            options["grpc.keepalive_time_ms"] = KEEPALIVE_MS
            options["grpc.keepalive_permit_without_calls"] = 1

        self._receiving = Receiving(
            clock, self._held, max_message_bytes=max_message_bytes, max_bytes=max_receive_bytes or max_message_bytes
        )
        files = [SocketFile(path)]
        if admins is not None:
            files.append(SocketFile(admins.socket, ADMIN_SOCKET_UMASK))
        self._doors = [_Door(file, _call_server(kind, options, clock, self._receiving)) for file in files]

    @property
    def large_requests(self) -> int:
        """How many requests there were that left much memory behind: large ones, and those that were not received."""
        return self._held.taken + self._receiving.dropped

    @property
    def crowded(self) -> bool:
        """Whether several large messages come at a time: what they took is given back at once."""
        return self._receiving.crowded

    def refused(self) -> dict[str, int]:
        """Calls that no method saw, by status; the server of gRPC's own does not tell of them."""
        return dict(self._receiving.refused.counts())

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
                "CheckFleet": servicer.check_fleet,
            },
        )
        self._add(INFERENCE_SERVICE, inference.quick_calls(), quick=True)
        self._add(INFERENCE_SERVICE, inference.other_calls())
        self._add_stream(INFERENCE_SERVICE, "ModelStreamInfer", lambda stream: NoStream("ModelStreamInfer", stream))
        self._add(HEALTH_SERVICE, {"Check": self._health.check, "List": self._health.list}, quick=True)
        self._add_stream(HEALTH_SERVICE, "Watch", self._health.start_watch)
        names = (AGENT_SERVICE, OPERATIONS_SERVICE, INFERENCE_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
        reflector = reflection.ReflectionServicer(names)
        self._add_stream(reflection.SERVICE_NAME, "ServerReflectionInfo", lambda stream: _Reflection(reflector, stream))
        self.set_serving("", False)

    def _add(self, service: str, calls: Mapping[str, Handler], *, quick: bool = False) -> None:
        for name, call in calls.items():
            self.calls[service, name] = calls_of_it = Tally("OK")
            guarded = _guarded(call, self._held, calls_of_it, quick=quick)
            everybody, *administrators = (door.calls for door in self._doors)
            for server in administrators:
                server.add_unary(f"/{service}/{name}", guarded)
            if self._admins is not None and name in ADMIN_CALLS:
                guarded = _guarded(self._admins.denial(name), self._held, calls_of_it, quick=True)
            everybody.add_unary(f"/{service}/{name}", guarded)

    def _add_stream(self, service: str, name: str, make: Callable[[Stream], StreamHandler]) -> None:
        for door in self._doors:
            door.calls.add_stream(f"/{service}/{name}", make)

    def set_serving(self, name: str, serving: bool) -> None:
        """The health of a model, or of the whole agent with the empty name."""
        self._health.set(name, serving)

    def start(self, *, serving: bool = True) -> None:
        """Listen; without `serving`, the agent's health is not yet SERVING.

        While a socket is made the process has its umask: no other thread may make files or folders yet.

        Raises:
            SocketInUseError: a socket cannot be made.
        """
        try:
            if self._listen:
                self._doors[0].calls.listen_tcp(self._listen, self._tls)
        except RuntimeError:
            raise SocketInUseError(
                f"edge_listen {self._listen}: it is in use, or not an address of this machine"
            ) from None
        for door in self._doors:
            door.file.make(door.calls.listen)
        for door in self._doors:
            door.calls.start()
        if serving:
            self.set_serving("", True)

    def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those in flight finish for `grace_seconds`, and remove the socket (X-4)."""
        self._health.stop()
        # All at once: the grace is for all of them, and none takes new calls while another has some to finish.
        others = []
        for door in self._doors[1:]:
            other = threading.Thread(target=door.calls.stop, args=(grace_seconds,))
            try:
                other.start()
            except RuntimeError:  # the system gives no thread, and there is no time for one after the other
                door.calls.stop(0)
            else:
                others.append(other)
        self._doors[0].calls.stop(grace_seconds)
        for other in others:
            other.join()
        for door in self._doors:
            door.file.remove()
        if self._admins is not None:
            self._admins.remove_folder()

    def socket_is_there(self) -> bool:
        """Whether the sockets can still be found under their names."""
        return all(door.file.is_there() for door in self._doors)
