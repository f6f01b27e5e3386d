"""The metrics' listener under attack: calls are served, and a scraper is [Q-2]."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adversary.conftest import Stand, pause, start_stand
from tests.system.scrape import samples, scrape, value

HEAD = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, signer: Any, package_of: Any) -> Iterator[Stand]:
    """A stand whose agent tells metrics."""
    folder = tmp_path_factory.mktemp("observed")
    made = start_stand(folder, signer.roots, package_of("add_one"), edge_metrics_listen=str(folder / "m.sock"))
    yield made
    made.close()
    assert made.agent.stop() == 0, made.agent.log


def place(stand: Stand) -> str:
    return str(stand.agent.folder / "m.sock")


def connected(stand: Stand) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(place(stand))
    made.settimeout(10)
    return made


def is_told(stand: Stand) -> bool:
    return value(samples(scrape(place(stand))), "edge_agent_ready") == 1


def open_files(stand: Stand) -> int:
    return sum(1 for _ in Path(f"/proc/{stand.agent.pid}/fd").iterdir())


def test_heads_that_never_end(observed: Stand) -> None:
    """Many connections bring a byte now and then."""
    before = open_files(observed)
    with observed.attack() as going_on, contextlib.ExitStack() as opened:
        peers = [opened.enter_context(connected(observed)) for _ in range(200)]
        while going_on():
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.sendall(b"x")
            assert is_told(observed)
            assert open_files(observed) < before + 64
            pause(0.05)


def test_heads_and_bodies_without_end(observed: Stand) -> None:
    with observed.attack() as going_on:
        while going_on():
            for words in (b"A" * 65536, HEAD + b"X: " + b"y" * 65536, b"POST /metrics HTTP/1.1\r\n\r\n" + bytes(65536)):
                with connected(observed) as peer, contextlib.suppress(OSError):
                    while True:
                        peer.sendall(words)
        assert is_told(observed)


def test_answers_that_are_not_read(observed: Stand) -> None:
    with observed.attack() as going_on, contextlib.ExitStack() as opened:
        while going_on():
            for _ in range(50):
                peer = opened.enter_context(connected(observed))
                with contextlib.suppress(OSError):
                    peer.sendall(HEAD + b"\r\n")
            assert is_told(observed)
            opened.pop_all().close()


def test_a_flood_of_scrapes(observed: Stand) -> None:
    with observed.attack() as going_on:
        while going_on():
            for _ in range(20):
                with connected(observed) as peer, contextlib.suppress(OSError):
                    peer.sendall(HEAD + b"\r\n")
                    while peer.recv(65536):
                        pass
        assert is_told(observed)


def test_bytes_of_other_protocols(observed: Stand) -> None:
    with observed.attack() as going_on:
        while going_on():
            for words in (
                b"\x16\x03\x01",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                bytes(range(256)) * 8,
                b"\n\n",
                b" \r\n\r\n",
            ):
                with connected(observed) as peer, contextlib.suppress(OSError):
                    peer.sendall(words)
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(65536):
                        pass
        assert is_told(observed)
    assert "listener failed" not in observed.agent.log
