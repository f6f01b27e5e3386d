"""What a word for a socket means (X-10)."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from edge import address
from edge.errors import SocketAddressError


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("/run/a.sock", "/run/a.sock"),
        ("/run/cam#1/a", "/run/cam#1/a"),
        ("/run/per%20cent/a", "/run/per%20cent/a"),
        ("unix:/run/a", "/run/a"),
        ("unix:///run/a", "/run/a"),
        ("unix:/run/cam%231", "/run/cam#1"),
        ("unix-abstract:edge", "\0edge"),
        ("unix-abstract:a%20b", "\0a b"),
    ],
)
def test_a_word_is_a_path_or_a_name_as_grpc_has_it(word: str, meant: str) -> None:
    assert address.read(word) == meant


def test_a_relative_path_is_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert address.read("a.sock") == address.read("unix:a.sock") == str(tmp_path / "a.sock")


@pytest.mark.parametrize("word", ["unix:", "unix://host/a", "unix:///a?b", "unix:/a#b", "unix:/a%zz", "unix-abstract:"])
def test_what_has_grpc_s_form_and_is_no_name(word: str) -> None:
    with pytest.raises(SocketAddressError, match="socket 'unix"):
        address.read(word)


@pytest.mark.parametrize(
    "name", ["cam#1", "quest?ion", "per%20cent", "a b", "größe", "\udcff", "100%", "unix:x", "a+b&c=d;e:f"]
)
def test_grpc_s_server_and_client_find_any_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = str(folder / "s")
    pool = ThreadPoolExecutor(1)
    server = grpc.server(pool)
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    server.add_insecure_port(address.target(path))
    server.start()
    try:
        assert os.path.lexists(path)
        with grpc.insecure_channel(address.target(path)) as channel:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    finally:
        server.stop(None).wait()
        pool.shutdown()


def test_an_abstract_name_is_what_the_kernel_has(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(address.read(f"unix-abstract:{tmp_path}"))
        assert held.getsockname() == b"\0" + os.fsencode(tmp_path)
    assert address.display(f"\0{tmp_path}") == f"unix-abstract:{tmp_path}"
    assert address.display("/a\x1b") == r"/a\x1b"
