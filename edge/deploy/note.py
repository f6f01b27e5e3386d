"""The note of models that applications loaded: in the runtime directory, so that a crash in this boot forgets none of them (M-7)."""

import json
import logging
import threading
from pathlib import Path

from edge import durable, strict_json
from edge.clock import Clock
from edge.strict_json import JsonFault
from edge.text import counted

log = logging.getLogger(__name__)

NOTE_FILE = "models.json"
MAX_NOTE_BYTES = 8 << 20  # of the file of loaded models in the runtime directory: their names and urls
CRASHES_SECONDS = 600.0  # a second crash within so long, and nothing is restored
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Note:
    """Names and urls; without a folder nothing is noted. Safe to use from any thread."""

    def __init__(self, folder: Path | None, clock: Clock) -> None:
        self._path = folder / NOTE_FILE if folder is not None else None
        self._clock = clock
        self._boot = _BOOT_ID.read_text().strip() if folder is not None else ""
        self._lock = threading.Lock()
        self._models: dict[str, str] = {}
        self._crashed: float | None = None

    def read(self) -> dict[str, str]:
        """Models to be restored: those of a run in this boot that did not end by itself, unless one shortly before did not either."""
        found = self._found()
        if found is None:
            return {}
        now = self._clock.monotonic()
        crashed, models = found
        self._crashed = now
        if models and crashed is not None and now - crashed < CRASHES_SECONDS:
            log.error(
                "%s that applications had loaded not restored: the agent crashed twice within %.0f s",
                counted(len(models), "model"),
                CRASHES_SECONDS,
            )
        else:
            self._models = models
        self._write()
        return dict(self._models)

    def _found(self) -> tuple[float | None, dict[str, str]] | None:
        """When the run before crashed, if it did, and its models; None where there is no note of this boot."""
        if self._path is None:
            return None
        try:
            with durable.reader(self._path) as file:
                value = strict_json.parse_object(file.read(MAX_NOTE_BYTES + 1), max_bytes=MAX_NOTE_BYTES)
            strict_json.check_keys(value, "", required=("boot", "crashed", "models"))
            models = strict_json.table(value["models"], "models")
            named = {name: strict_json.text(url, name) for name, url in models.items()}
        except FileNotFoundError:
            return None
        except (OSError, JsonFault) as fault:
            log.warning("the note of loaded models %s is of no use: %s", self._path, fault)
            return None
        if value["boot"] != self._boot:
            return None
        crashed = value["crashed"]
        return (float(crashed) if type(crashed) in (int, float) else None), named

    def put(self, name: str, url: str) -> None:
        """An application has loaded a model."""
        with self._lock:
            if self._path is not None and self._models.get(name) != url:
                self._models[name] = url
                self._write()

    def drop(self, name: str) -> None:
        """It is unloaded."""
        with self._lock:
            if self._models.pop(name, None) is not None:
                self._write()

    def close(self) -> None:
        """The agent ends cleanly: nothing is to be restored."""
        with self._lock:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            self._path = None

    def _write(self) -> None:
        if self._path is None:
            return
        value = {"boot": self._boot, "crashed": self._crashed, "models": self._models}
        try:
            durable.write_file(self._path, json.dumps(value).encode())
        except OSError as error:
            log.warning("the loaded models are not noted in %s: %s", self._path, durable.why(error))
