"""What the service manager is told (sd_notify): ready, status, stopping, and that the watchdog's evidence holds.

Without NOTIFY_SOCKET, outside systemd, every message goes nowhere and nothing else changes.
"""

import os
from collections.abc import Mapping

import sdnotify

MAX_STATUS_CHARACTERS = 500  # of the status line that `systemctl status` shows


class Notifier:
    """Messages to the service manager; safe to use from any thread."""

    def __init__(self) -> None:
        """Connect as the environment says: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID (sd_notify(3), sd_watchdog_enabled(3))."""
        self.supervised = bool(os.environ.get("NOTIFY_SOCKET"))
        self.watchdog_seconds = watchdog_seconds(os.environ)
        self._systemd = sdnotify.SystemdNotifier() if self.supervised else None
        if self._systemd is not None and self._systemd.socket is not None:
            self._systemd.socket.setblocking(False)  # one that does not read must not hold up serving, or the stop
        self._last_status = ""

    def ready(self) -> None:
        """The socket answers; units that wait for the agent may start."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for a person, shown by `systemctl status`; sent when it differs from the last one."""
        line = " ".join(text.split())[:MAX_STATUS_CHARACTERS]
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    def stopping(self) -> None:
        """The agent takes no new calls and is about to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The evidence holds: wait another watchdog interval."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Let the socket go; later messages go nowhere."""
        systemd, self._systemd = self._systemd, None
        if systemd is not None and systemd.socket is not None:
            systemd.socket.close()

    def _send(self, message: str) -> None:
        if self._systemd is not None:
            # sdnotify encodes as Latin-1 and drops what does not fit; systemd expects UTF-8.
            self._systemd.notify(message.encode("utf-8", "replace").decode("latin-1"))


def watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """The service manager's watchdog interval in seconds; None: it does not watch this process."""
    try:
        seconds = int(environment["WATCHDOG_USEC"]) / 1e6
        watched = int(environment.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except (KeyError, ValueError):
        return None
    return seconds if watched and seconds > 0 else None
