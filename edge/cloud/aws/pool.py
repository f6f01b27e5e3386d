"""Connections to one peer that several threads take turns with."""

import contextlib
import threading
from collections.abc import Iterator

from edge.clock import Clock
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.transport import Transport


class Pool:
    """As many connections as there were users at a time. For any thread."""

    def __init__(self, clock: Clock, patience: Patience) -> None:
        self._clock = clock
        self._patience = patience
        self._lock = threading.Lock()
        self._resting: list[Transport] = []
        self._busy: set[Transport] = set()

    @contextlib.contextmanager
    def use(self, peer: Peer) -> Iterator[Transport]:
        """A connection to `peer` for this thread alone: the one that rested shortest, or a new one."""
        with self._lock:
            others = [one for one in self._resting if one.peer != peer]
            self._resting = [one for one in self._resting if one.peer == peer]
            transport = self._resting.pop() if self._resting else Transport(peer, self._clock, self._patience)
            self._busy.add(transport)
        for other in others:
            other.close()
        try:
            yield transport
        finally:
            with self._lock:
                self._busy.discard(transport)
                self._resting.append(transport)

    def abort(self) -> None:
        """End what is under way; it fails soon."""
        with self._lock:
            busy = list(self._busy)
        for transport in busy:
            transport.abort()

    def close(self) -> None:
        """Close the connections that rest."""
        with self._lock:
            resting, self._resting = self._resting, []
        for transport in resting:
            transport.close()
