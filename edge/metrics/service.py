"""The metrics put together: collectors, and where what they find is told."""

import os

from edge.clock import Clock
from edge.errors import SocketInUseError
from edge.host.watchdog import Watchdog
from edge.metrics import sources
from edge.metrics.exporter import Exporter, TextFile
from edge.metrics.listener import Listener


class Metrics:
    """`listen` and `textfile` are the settings of those names; empty: not there."""

    def __init__(self, listen: str, textfile: str, clock: Clock) -> None:
        """Listen; nothing is answered or written before `start`.

        Raises:
            SocketInUseError: `listen` is in use, or cannot be listened on.
        """
        self._clock = clock
        self._exporter = Exporter()
        self.register = self._exporter.register
        self._exits: list[Listener | TextFile] = []
        if listen:
            try:
                self._exits.append(
                    Listener(listen, lambda open_metrics: self._exporter.text(open_metrics=open_metrics), clock)
                )
            except OSError as error:
                raise SocketInUseError(
                    f"edge_metrics_listen {listen}: it cannot be listened on: {error.strerror or os.strerror(error.errno or 0)}"
                ) from None
        if textfile:
            self._exits.append(TextFile(self._exporter, textfile, clock))

    def start(self, watchdog: Watchdog) -> None:
        """Tell the metrics, the watchdog's too."""
        self.register(sources.watchdog(watchdog))
        for one in self._exits:
            one.start()

    def end(self) -> None:
        """Tell nothing more; it does not wait."""
        for one in self._exits:
            one.end()

    def stop(self, until: float) -> None:
        """End, and leave nothing behind; `until` when it may wait for that, on the monotonic clock."""
        self.end()
        for one in self._exits:
            one.stop(max(0.0, until - self._clock.monotonic()))
