"""The watchdog's evidence that the agent works: each check says what is missing, or None."""

from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edge import address
from edge.clock import Clock

# Said by the server itself, in time: it has all the calls it takes, or sheds some, which is load and no hang.
_BUSY = ("RESOURCE_EXHAUSTED", "CANCELLED")


class ServerAnswers:
    """The server answers a real call on its own socket."""

    name = "server"

    def __init__(self, socket_path: str, timeout_s: float) -> None:
        """Call the health service at the Unix socket, and wait `timeout_s` seconds for the answer."""
        self._timeout_s = timeout_s
        # Without a pool of its own gRPC would share the connection, and its state, with any other client in this process.
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 1000))
        self._channel = grpc.insecure_channel(address.target(socket_path), options=options)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def missing(self) -> str | None:
        try:
            self._health.Check(health_pb2.HealthCheckRequest(), timeout=self._timeout_s)
        except grpc.RpcError as error:
            code = error.code().name if isinstance(error, grpc.Call) else "no status"
            if code not in _BUSY:
                return (
                    f"the server did not answer a health call on its own socket within {self._timeout_s:g} s ({code})"
                )
        return None

    def close(self) -> None:
        self._channel.close()


class SocketIsThere:
    """New clients can find the server: its socket is at its path. Clients that are connected do not notice where it is not."""

    name = "socket"

    def __init__(self, socket_path: str, is_there: Callable[[], bool]) -> None:
        self._socket_path = socket_path
        self._is_there = is_there

    def missing(self) -> str | None:
        if self._is_there():
            return None
        return (
            f"the socket {address.display(self._socket_path)} was removed or replaced: new clients cannot connect until the "
            "agent is restarted"
        )

    def close(self) -> None:
        pass


class WorkerTurns:
    """A worker's loop turns over."""

    def __init__(self, name: str, heartbeat: Callable[[], float], clock: Clock, limit_s: float) -> None:
        """`heartbeat` gives the monotonic time of the last turn; one older than `limit_s` seconds is missing evidence."""
        self.name = name
        self._heartbeat = heartbeat
        self._clock = clock
        self._limit_s = limit_s

    def missing(self) -> str | None:
        age = self._clock.monotonic() - self._heartbeat()
        return f"the {self.name} has made no progress for {age:.0f} s" if age > self._limit_s else None

    def close(self) -> None:
        pass


class InferencesEnd:
    """No inference runs longer than the configured limit and does not end when it is told to."""

    name = "inference"

    def __init__(self, end_stuck: Callable[[float], float], limit_s: float) -> None:
        """`end_stuck` tells those to end that run longer than so many seconds, and gives the seconds of the oldest that does not."""
        self._end_stuck = end_stuck
        self._limit_s = limit_s

    def missing(self) -> str | None:
        age = self._end_stuck(self._limit_s)
        if not age:
            return None
        return f"an inference has been running for {age:.0f} s, longer than edge_inference_stuck_seconds ({self._limit_s:g})"

    def close(self) -> None:
        pass
