"""Metrics of a running agent, read as a scraper does."""

import http.client
import re
import socket
from typing import Any

OPEN_METRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
_SAMPLE = re.compile(r'^(\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)$')
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)
        self.sock.settimeout(self.timeout)


def scrape(where: str, **headers: str) -> str:
    """The text at a Unix socket or HOST:PORT."""
    connection: Any = _OverUnix(where) if where.startswith("/") else http.client.HTTPConnection(where, timeout=60)
    try:
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        return str(answer.read().decode())
    finally:
        connection.close()


def samples(text: str) -> Samples:
    """Every sample of a text; each may be there once."""
    found: Samples = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = _SAMPLE.match(line)
        assert match, line
        key = match[1], frozenset(_LABEL.findall(match[2] or ""))
        assert key not in found, line
        found[key] = float(match[3])
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    """The sum of the samples of a name with these labels, whatever others they have; 0 where there are none."""
    return sum(number for (one, its), number in found.items() if one == name and labels.items() <= dict(its).items())
