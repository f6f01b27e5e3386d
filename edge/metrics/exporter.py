"""Collectors, one for each room, and the text of what they find; and the file that node_exporter's textfile collector reads."""

import contextlib
import logging
import os
import threading
from pathlib import Path

from edge.clock import Clock
from edge.durable import FILE_MODE, TEMPORARY, why, write_all
from edge.metrics.exposition import Collector, Sheet

log = logging.getLogger(__name__)

TEXTFILE_SECONDS = 15.0  # between writes


class Exporter:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._collectors: list[Collector] = []
        self._failed = False

    def register(self, collector: Collector) -> None:
        """Have a collector asked at each look; it may be asked by several threads at a time."""
        self._collectors.append(collector)

    def text(self, *, open_metrics: bool) -> bytes:
        """The agent as it is now; a collector that fails is left out."""
        sheet = Sheet()
        for collect in self._collectors:
            try:
                collect(sheet)
            except Exception:
                if not self._failed:
                    log.exception("some metrics cannot be collected; logged once")
                self._failed = True
        return sheet.text(open_metrics=open_metrics)


class TextFile:
    """Writes the metrics to a file, again and again, and removes it at the end: what is there is of an agent that runs.

    Each time a new file takes the old one's name, so that a reader sees one or the other whole. Nothing is synced: after a power
    cut nobody asks for what the metrics were before it.
    """

    def __init__(self, exporter: Exporter, path: str, clock: Clock) -> None:
        self._exporter = exporter
        self._path = Path(path)
        self._clock = clock
        self._stop = threading.Event()
        self._fault = ""
        self._thread = threading.Thread(target=self._run, name="metrics file", daemon=True)

    def start(self) -> None:
        """Begin; the first file is written at once."""
        self._thread.start()

    def end(self) -> None:
        """Begin no further write."""
        self._stop.set()

    def stop(self, seconds: float) -> None:
        """End, and remove the file; a write that a disk holds up for so long is left behind."""
        self.end()
        self._thread.join(seconds)
        if not self._thread.is_alive():
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._write()
            self._clock.wait(self._stop, TEXTFILE_SECONDS)

    def _write(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}{TEMPORARY}")  # not *.prom: nobody reads it
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
            try:
                write_all(fd, self._exporter.text(open_metrics=False))
            finally:
                os.close(fd)
            temporary.replace(self._path)
            fault = ""
        except OSError as error:
            fault = f"the metrics cannot be written to {self._path}: {why(error)}"
        if fault and fault != self._fault:
            log.warning("%s", fault)
        elif self._fault and not fault:
            log.info("the metrics are written again")
        self._fault = fault
