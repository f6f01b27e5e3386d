"""The standard health service, grpc.health.v1.Health: Check, List and Watch ([N])."""

import threading

from grpc_health.v1 import health_pb2 as pb

from edge.errors import ModelNotFoundError, RequestError
from edge.rpc import status
from edge.rpc.calls import Stream
from edge.rpc.codec import parse

SERVICE = pb.DESCRIPTOR.services_by_name["Health"].full_name
_State = pb.HealthCheckResponse
MAX_GONE = 100  # names of unloaded models that health reports as NOT_SERVING; older ones are unknown again


class _Watch:
    """One Watch call: the state of one name whenever it changes."""

    goes_on = False

    def __init__(self, health: "Health", stream: Stream) -> None:
        self._health = health
        self._stream = stream
        self._name: str | None = None

    def message(self, raw: bytes) -> None:
        try:
            self._name = parse(pb.HealthCheckRequest, raw).service
        except RequestError as error:
            self._stream.finish(status.INVALID_ARGUMENT, str(error))
            return
        self._health.watch(self._name, self._stream)

    def half_closed(self) -> None:
        """The client has asked; it goes on listening."""

    def closed(self) -> None:
        if self._name is not None:
            self._health.unwatch(self._name, self._stream)


class Health:
    """The health of the agent (the empty name) and of each model. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, int] = {}
        self._watchers: dict[str, set[Stream]] = {}

    def set(self, name: str, serving: bool) -> None:
        """Say how a name is from now on; who watches it is told."""
        state = int(_State.SERVING if serving else _State.NOT_SERVING)
        with self._lock:
            if self._states.get(name) == state:
                return
            # The newest last, so that the names of models long gone can be dropped.
            self._states.pop(name, None)
            self._states[name] = state
            gone = [name for name, state in self._states.items() if name and state == _State.NOT_SERVING]
            for old in gone[:-MAX_GONE]:
                del self._states[old]
            self._tell(name)

    def stop(self) -> None:
        """Nothing is served any more."""
        for name in list(self._states):
            self.set(name, False)

    def _tell(self, name: str) -> None:
        message = _message(self._states.get(name, int(_State.SERVICE_UNKNOWN)))
        for stream in self._watchers.get(name, ()):
            stream.send(message)

    def watch(self, name: str, stream: Stream) -> None:
        """Tell `stream` the state of `name` now and at each change."""
        with self._lock:
            self._watchers.setdefault(name, set()).add(stream)
            stream.send(_message(self._states.get(name, int(_State.SERVICE_UNKNOWN))))

    def unwatch(self, name: str, stream: Stream) -> None:
        """Tell it no more."""
        with self._lock:
            watchers = self._watchers.get(name, set())
            watchers.discard(stream)
            if not watchers:
                self._watchers.pop(name, None)

    def start_watch(self, stream: Stream) -> _Watch:
        """The handler of a Watch call."""
        return _Watch(self, stream)

    def check(self, raw: bytes, context: object) -> bytes:
        """Check."""
        state = self._states.get(parse(pb.HealthCheckRequest, raw).service)
        if state is None:
            raise ModelNotFoundError("no model of that name is loaded")
        return _message(state)

    def list(self, raw: bytes, context: object) -> bytes:
        """List."""
        with self._lock:
            states = dict(self._states)
        statuses = {name: _State(status=state) for name, state in states.items()}
        message: bytes = pb.HealthListResponse(statuses=statuses).SerializeToString()
        return message


def _message(state: int) -> bytes:
    message: bytes = _State(status=state).SerializeToString()
    return message
