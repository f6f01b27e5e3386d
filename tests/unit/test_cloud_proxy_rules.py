"""Which proxy leads to a host: HTTPS_PROXY and NO_PROXY, as curl and Go read them."""

import pytest

from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.proxy import Proxy, proxy_of

HOST = "bucket.s3.eu-west-1.amazonaws.com"
AT = "http://proxy.plant:3128"


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        (AT, Proxy("proxy.plant", 3128)),
        (AT + "/", Proxy("proxy.plant", 3128)),
        ("proxy.plant:3128", Proxy("proxy.plant", 3128)),
        ("http://10.0.0.1", Proxy("10.0.0.1", 80)),
        ("http://[fd00::1]:8080", Proxy("fd00::1", 8080)),
        ("http://me:p%40ss%3Aword@proxy.plant:3128", Proxy("proxy.plant", 3128, "Basic bWU6cEBzczp3b3Jk")),
        ("http://me@proxy.plant:3128", Proxy("proxy.plant", 3128, "Basic bWU6")),
        ("  ", None),
    ],
)
def test_a_proxy(value: str, proxy: Proxy | None) -> None:
    assert proxy_of(HOST, 443, {"HTTPS_PROXY": value}) == proxy
    assert proxy_of(HOST, 443, {"HTTPS_PROXY": "nonsense:", "https_proxy": value}) == proxy


@pytest.mark.parametrize(
    "value",
    [
        "https://proxy.plant:3128",
        "socks5://proxy.plant:1080",
        "http://proxy.plant:0",
        "http://proxy.plant:99999",
        "http://proxy.plant:http",
        "http://:3128",
        "http://proxy.plant:3128/path",
        "http://me:secret-word@",
        "http://me:%ff@proxy.plant:3128",
        "http://pro xy:3128",
        "http://[::1:3128",
    ],
)
def test_what_is_no_proxy_is_told_without_its_password(value: str) -> None:
    with pytest.raises(ValueError, match="HTTPS_PROXY in the agent's environment is not http://") as caught:
        proxy_of(HOST, 443, {"HTTPS_PROXY": value})
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "exempt", "direct"),
    [
        (HOST, "", False),
        (HOST, "*", True),
        (HOST, "amazonaws.com", True),
        (HOST, ".amazonaws.com", True),
        (HOST, "*.amazonaws.com", True),
        (HOST, "aws.com", False),
        (HOST, "other.example, AMAZONAWS.COM", True),
        (HOST, "amazonaws.com:443", True),
        (HOST, "amazonaws.com:8443", False),
        (HOST, "10.0.0.0/8", False),
        (HOST, ",, ,", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "10.1.2.3:9000", False),
        ("10.1.2.3", "192.168.0.0/16,1.2.3", False),
        ("fd00::7", "fd00::/8", True),
        ("fd00::7", "[fd00::7]:443", True),
        ("fd00::7", "[fd00::7]:9000", False),
        ("localhost", "", True),
        ("127.0.0.9", "", True),
        ("::1", "", True),
    ],
)
def test_hosts_that_are_reached_directly(host: str, exempt: str, direct: bool) -> None:
    assert (proxy_of(host, 443, {"HTTPS_PROXY": AT, "no_proxy": exempt}) is None) is direct


def test_plain_http_needs_no_proxy() -> None:
    """Such stores are on the device or beside it."""
    environment = {"http_proxy": AT, "HTTPS_PROXY": AT, "ALL_PROXY": AT}
    assert Peer.of("http://minio.plant:9000", None, environment).proxy is None
    assert Peer.of("https://minio.plant:9000", None, environment).proxy == Proxy("proxy.plant", 3128)


def test_a_proxy_is_shown_without_its_password() -> None:
    proxy = proxy_of(HOST, 443, {"HTTPS_PROXY": "http://me:secret-word@proxy.plant:3128"})
    assert proxy is not None and proxy.authority == "proxy.plant:3128"
    assert "Basic" not in repr(proxy)
