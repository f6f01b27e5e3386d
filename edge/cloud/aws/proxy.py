"""Which proxy leads to a host, as the environment says: HTTPS_PROXY and NO_PROXY. Pure.

There is no standard; this is what curl and Go do: https://everything.curl.dev/usingcurl/proxies/env.html
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

EXPECTED = "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
_PORTS = range(1, 65536)


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy that opens connections by CONNECT. `authorization` is a header's value, empty for none."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @property
    def authority(self) -> str:
        """HOST:PORT, without credentials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def proxy_of(host: str, port: int, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy through which https://host:port is reached; None: directly, as this machine itself always is.

    Raises:
        ValueError: naming the variable that is not understood; its value may have a password and is not told.
    """
    name, text = _variable("https_proxy", environment)
    if not text or is_loopback(host) or _is_exempt(host, port, _variable("no_proxy", environment)[1]):
        return None
    try:
        return _parse(text)
    except ValueError:
        raise ValueError(f"{name} in the agent's environment is not {EXPECTED}") from None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _variable(name: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """The lower-case name wins where both are set."""
    for word in (name, name.upper()):
        if word in environment:
            return word, environment[word].strip()
    return name.upper(), ""


def _parse(text: str) -> Proxy:
    url = urlsplit(text if "://" in text else f"http://{text}")
    host, port = url.hostname or "", 80 if url.port is None else url.port
    if url.scheme != "http" or not host or port not in _PORTS or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError
    if not host.isascii() or not host.isprintable() or " " in host:
        raise ValueError
    authorization = ""
    if url.username is not None:
        pair = f"{unquote(url.username, errors='strict')}:{unquote(url.password or '', errors='strict')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Proxy(host, port, authorization)


def _is_exempt(host: str, port: int, exempt: str) -> bool:
    """Whether NO_PROXY names a host: `*`, a name or the end of one, an address or a network, each perhaps with a port."""
    return any(
        _matches(host.lower().rstrip("."), port, word.strip().lower()) for word in exempt.split(",") if word.strip()
    )


def _matches(host: str, port: int, word: str) -> bool:
    if word == "*":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        name, _, number = word.partition(":")
        name = name.removeprefix("*").strip(".")
        return (not number or number == str(port)) and bool(name) and (host == name or host.endswith("." + name))
    network = word
    if word.startswith("["):  # [::1]:443
        network, _, number = word[1:].partition("]")
        if number not in ("", f":{port}"):
            return False
    elif word.count(":") == 1:
        network, _, number = word.partition(":")
        if number != str(port):
            return False
    try:
        return address in ip_network(network, strict=False)
    except ValueError:
        return False
