"""What tests of shared memory set by hand: the time, and who is connected."""

from edge.clock import SystemClock
from edge.shm.checks import Peer
from edge.shm.peers import Peers


class SetClock(SystemClock):
    """A monotonic clock that a test moves."""

    at = 0.0

    def monotonic(self) -> float:
        """See `Clock`."""
        return self.at


class Listed(Peers):
    """Clients that a test names."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Peer] = []
        self.asked = 0

    def connected(self) -> list[Peer]:
        """See `Peers`."""
        self.asked += 1
        return self.clients
