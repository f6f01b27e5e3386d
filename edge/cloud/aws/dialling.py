"""Opening a connection to a peer: TCP, a proxy's CONNECT where there is one, TLS."""

import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge.clock import Clock
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.faults import TransportError, faults
from edge.cloud.aws.proxy import Proxy, proxy_of
from edge.cloud.retry import Fault

MAX_CONNECT_BYTES = 1 << 14  # of a proxy's answer to CONNECT, up to the empty line
_REFUSED_STATUS = range(400, 500)  # only a person can change what the proxy lets through


@dataclass(frozen=True)
class Peer:
    """Whom to talk to; `tls` None for plain HTTP. `proxy` is for TLS alone."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    proxy: Proxy | None = None

    @classmethod
    def of(cls, url: str, tls: ssl.SSLContext | None, environment: Mapping[str, str] = os.environ) -> "Peer":
        """The peer that serves a URL, through the proxy that the environment names; `tls` is for https:// alone.

        Raises:
            ValueError: in words, where the URL has no host or the proxy's variable is not understood.
        """
        parts = urlsplit(url)
        secure, host = parts.scheme == "https", parts.hostname or ""
        port = parts.port or (443 if secure else 80)
        if not host:
            raise ValueError("the URL has no host")
        return cls(host, port, tls if secure else None, proxy_of(host, port, environment) if secure else None)

    @property
    def authority(self) -> str:
        """The Host header."""
        return self._name if self.port == (443 if self.tls else 80) else f"{self._name}:{self.port}"

    @property
    def address(self) -> str:
        """HOST:PORT, the port always."""
        return f"{self._name}:{self.port}"

    @property
    def _name(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def dial(peer: Peer, clock: Clock, patience: Patience, opened: Callable[[socket.socket], None]) -> socket.socket:
    """A connected socket, whose handshakes are done. `opened` gets the socket beneath before they begin.

    Raises:
        TransportError: there is none.
    """
    ends = clock.monotonic() + 2 * patience.connect_seconds  # of all handshakes
    proxy = peer.proxy
    try:
        sock = _connect((proxy.host, proxy.port) if proxy else (peer.host, peer.port), patience)
    except TransportError as error:
        if proxy is None:
            raise
        raise TransportError(error.fault, f"the proxy {proxy.authority}: {error.detail}") from None
    try:
        opened(sock)
        if proxy is not None:
            with faults(connecting=True):
                _tunnel(sock, peer, proxy, clock, ends)
        if peer.tls is not None:
            with faults(connecting=True):
                sock.settimeout(patience.connect_seconds)
                sock = secure = peer.tls.wrap_socket(sock, server_hostname=peer.host, do_handshake_on_connect=False)
                opened(secure)
                secure.do_handshake()
        return sock
    except BaseException:
        sock.close()
        raise


def _connect(address: tuple[str, int], patience: Patience) -> socket.socket:
    with faults(connecting=True):
        sock = socket.create_connection(address, patience.connect_seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _tunnel(sock: socket.socket, peer: Peer, proxy: Proxy, clock: Clock, ends: float) -> None:
    """Ask the proxy for a connection: RFC 9110, 9.3.6."""
    lines = [f"CONNECT {peer.address} HTTP/1.1", f"Host: {peer.address}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    sock.sendall("\r\n".join((*lines, "", "")).encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        left = ends - clock.monotonic()
        if left <= 0 or len(answer) > MAX_CONNECT_BYTES:
            raise TransportError(Fault.PROXY_FAILS, f"{proxy.authority}: its answer to CONNECT does not end")
        sock.settimeout(left)
        try:
            piece = sock.recv(1)  # not a byte of what comes after the answer
        except TimeoutError:
            raise TransportError(Fault.PROXY_FAILS, f"{proxy.authority} does not answer CONNECT") from None
        if not piece:
            raise TransportError(Fault.PROXY_FAILS, f"{proxy.authority} ends the connection at CONNECT")
        answer += piece
    line = answer.partition(b"\r\n")[0].decode("latin-1")
    version, _, said = line.partition(" ")
    status = said[:3]
    if not version.startswith("HTTP/1.") or not status.isascii() or not status.isdigit():
        raise TransportError(Fault.PROXY_FAILS, f"{proxy.authority} does not speak HTTP")
    if int(status) // 100 == 2:
        return
    words = f"{proxy.authority} answers CONNECT {peer.address} with {said[:80]}"
    if status == "407":
        words += (
            "; it does not accept" if proxy.authorization else "; it asks for"
        ) + " user and password in HTTPS_PROXY"
    raise TransportError(Fault.PROXY_REFUSES if int(status) in _REFUSED_STATUS else Fault.PROXY_FAILS, words)
