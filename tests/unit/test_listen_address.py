"""Where an agent may listen on TCP (edge_listen) [X-13]."""

import pytest

from tests.unit.test_config import faults, parse


@pytest.mark.parametrize(
    "where",
    [
        "127.0.0.1:65536",
        "300.0.0.1:80",
        "[::1::]:80",
        "127.0.0.2:80",
        "[fe80::1]:80",
        "[::1]:99999",
        "127.0.0.1:0",
        "127.0.0.1:080",
        "0.0.0.0:80",
        "::1:80",
    ],
)
def test_places_that_are_not_listened_on(where: str) -> None:
    assert "edge_listen" in faults(edge_listen=where)[0]


@pytest.mark.parametrize("where", ["127.0.0.1:1", "127.0.0.1:65535", "[::1]:60000", "127.0.0.1:9999"])
def test_places_that_are_listened_on(where: str) -> None:
    assert parse(edge_listen=where).config.edge_listen == where
