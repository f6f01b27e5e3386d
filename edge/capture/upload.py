"""The seam between captures and whoever uploads them."""

from typing import Protocol

from edge.capture.spool import Spool


class Uploader(Protocol):
    """Drains the spool to the cloud, in a thread of its own."""

    def start(self, spool: Spool) -> None:
        """Begin; `spool.sealed` tells of new batches."""
        ...

    def stop(self, deadline_s: float) -> None:
        """End within the deadline; what is not acknowledged stays in the spool."""
        ...

    def last_error(self) -> tuple[str, float]:
        """The last failure in words and its unix seconds; empty and 0 when all is well."""
        ...
