"""One HTTP/1.1 exchange at a time over a kept connection: what went wrong is a `Fault`, redirects are not followed.

No proxy is used, whatever the environment says.
"""

import contextlib
import errno
import functools
import http.client
import io
import logging
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.clock import Clock
from edge.cloud.retry import Fault
from edge.text import printable

log = logging.getLogger(__name__)

IDLE_SECONDS = 15.0  # a connection that rested longer is not trusted
MAX_ANSWER_BYTES = 1 << 16  # of a store's answer; it is read whole
MAX_WIRE_BYTES = 4 * MAX_ANSWER_BYTES  # of an answer in all: interim answers, headers, body

# Where distributions keep their CAs in one file, for where OpenSSL finds none by its own paths.
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_CA_LINKS = "*.[0-9]"  # OpenSSL reads no other files of a folder
_VERIFY_FAULTS = {9: Fault.TLS_NOT_YET_VALID, 10: Fault.TLS_EXPIRED, 62: Fault.TLS_HOST_NAME, 64: Fault.TLS_HOST_NAME}


_INTERIM = b"HTTP/1.1 1"  # 100 Continue, which nobody asked for


@dataclass(frozen=True)
class Patience:
    """How long a peer may take, in seconds: to be reached, without a byte going or coming, and for an answer in all.

    A peer that takes a body slowly has `stall_seconds` for each chunk of it.
    """

    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    answer_seconds: float = 60.0


class TransportError(Exception):
    """There was no whole answer."""

    def __init__(self, fault: Fault, detail: str = "") -> None:
        super().__init__(f"{fault.value}: {detail}")
        self.fault = fault
        self.detail = printable(detail)


@dataclass(frozen=True)
class Reply:
    """A whole answer. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Peer:
    """Whom to talk to; `tls` None for plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def public_trust(extra_ca_file: str = "") -> ssl.SSLContext:
    """A client context that trusts the system's CAs (SSL_CERT_FILE, SSL_CERT_DIR) and those in `extra_ca_file`.

    Raises:
        OSError: the extra file cannot be read, or has no certificate (ssl.SSLError); what a variable names is not there.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not _finds_own_cas():
        for path in _CA_FILES:
            if Path(path).exists():
                context.load_verify_locations(path)
                break
    if extra_ca_file:
        context.load_verify_locations(extra_ca_file)
    return context


def _finds_own_cas() -> bool:
    """Whether OpenSSL finds CAs by its own paths. Where a site names others, nothing is added to them.

    Raises:
        FileNotFoundError: what the site names is not there; OpenSSL would go on without any CA.
    """
    paths = ssl.get_default_verify_paths()  # None: not there
    file, folders = (os.environ.get(name) for name in (paths.openssl_cafile_env, paths.openssl_capath_env))
    if file is not None and not Path(file).exists():
        raise FileNotFoundError(errno.ENOENT, f"{paths.openssl_cafile_env} names {file}, which is not there")
    if folders is not None and not any(Path(folder).exists() for folder in folders.split(os.pathsep)):
        raise FileNotFoundError(errno.ENOENT, f"{paths.openssl_capath_env} names {folders}, which is not there")
    if paths.cafile is not None or file is not None or folders is not None:
        return True
    return paths.capath is not None and any(Path(paths.capath).glob(_CA_LINKS))


class Transport:
    """A connection to one peer, opened when needed. One thread exchanges; `abort` may come from another."""

    def __init__(self, peer: Peer, clock: Clock, patience: Patience) -> None:
        self.peer = peer
        self._clock = clock
        self._patience = patience
        self._connection: http.client.HTTPConnection | None = None
        self._used_at = 0.0
        self._lock = threading.Lock()

    def exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: Iterator[bytes] | None = None
    ) -> Reply:
        """Send a request and read the answer.

        Raises:
            TransportError: there was no whole answer.
            StaleConnectionError: as TransportError, on a connection that had rested: no byte of an answer came.
            Exception: what reading the body raised.
        """
        if self._connection is not None and self._clock.monotonic() - self._used_at > IDLE_SECONDS:
            self.close()
        kept = self._connection is not None
        connection = self._connection or self._connect()
        done = False
        try:
            reply, keep = self._exchange(connection, method, path, headers, body)
            done = keep
            return reply
        except TransportError as error:
            if kept and error.fault is Fault.RESET:
                raise StaleConnectionError(error.fault, error.detail) from error
            raise
        finally:
            self._used_at = self._clock.monotonic()
            if not done:
                self.close()

    def _connect(self) -> http.client.HTTPConnection:
        peer, seconds = self.peer, self._patience.connect_seconds
        connection: http.client.HTTPConnection
        if peer.tls is None:
            connection = http.client.HTTPConnection(peer.host, peer.port, timeout=seconds)
        else:
            connection = http.client.HTTPSConnection(peer.host, peer.port, timeout=seconds, context=peer.tls)
        connection.response_class = functools.partial(_Response, clock=self._clock, patience=self._patience)  # type: ignore[assignment]
        try:
            with _faults(connecting=True):
                connection.connect()
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._connection = connection
        return connection

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Iterator[bytes] | None,
    ) -> tuple[Reply, bool]:
        """The reply, and whether the connection can be used again."""
        whole = True
        with _faults():
            connection.sock.settimeout(self._patience.stall_seconds)  # reading the last answer shortened it
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
        try:
            with _faults():
                connection.endheaders()
            for chunk in body or ():
                if self._answered(connection):
                    whole = False
                    break
                with _faults():
                    connection.send(chunk)
        except TransportError as error:
            # Whoever refuses a request in the middle of its body says why before closing.
            if error.fault is not Fault.RESET:
                raise
            try:
                reply, _ = self._read(connection)
            except TransportError:
                raise error from None
            return reply, False
        reply, keep = self._read(connection)
        if not whole and reply.status < 300:
            raise TransportError(Fault.NOT_HTTP, "it answered before it had the request")
        return reply, keep and whole

    def _answered(self, connection: http.client.HTTPConnection) -> bool:
        """Whether an answer comes before the body is sent; under TLS readable bytes may be anything."""
        if self.peer.tls is not None or connection.sock is None:
            return False
        poll = select.poll()
        poll.register(connection.sock, select.POLLIN)
        if not poll.poll(0):
            return False
        with contextlib.suppress(OSError):
            return not connection.sock.recv(len(_INTERIM), socket.MSG_PEEK).startswith(_INTERIM)
        return True

    def _read(self, connection: http.client.HTTPConnection) -> tuple[Reply, bool]:
        with _faults():
            response = connection.getresponse()
            try:
                body = response.read(MAX_ANSWER_BYTES + 1)
                left = response.length
                keep = not response.will_close
            finally:
                response.close()
        if len(body) > MAX_ANSWER_BYTES:
            return Reply(response.status, _headers(response), body[:MAX_ANSWER_BYTES]), False
        if left:
            raise TransportError(Fault.TRUNCATED)
        return Reply(response.status, _headers(response), body), keep

    def abort(self) -> None:
        """End an exchange under way; it fails soon, with whatever fault."""
        with self._lock:
            sock = self._connection.sock if self._connection is not None else None
            if sock is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class StaleConnectionError(TransportError):
    """A kept connection was dead when it was used again: the same request on a new one is no second try."""


class _Lines:
    """A reader that remembers the last line it gave, so that headers that just end can be told from complete ones."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Bounded(io.RawIOBase):
    """What comes from a socket, bounded in bytes and in time as a whole: each single byte may come in time for ever."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, clock: Clock, patience: Patience) -> None:
        self._sock, self._raw, self._clock, self._patience = sock, raw, clock, patience
        self._ends = clock.monotonic() + patience.answer_seconds
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._bytes > MAX_WIRE_BYTES:
            raise TransportError(Fault.ENDLESS, f"{self._bytes} bytes of it came")
        left, stall = self._ends - self._clock.monotonic(), self._patience.stall_seconds
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(min(left, stall))
            count = self._raw.readinto(buffer)
        except TimeoutError:
            if left >= stall:
                raise
            raise TransportError(Fault.ENDLESS, f"{self._patience.answer_seconds:g} s have passed") from None
        self._bytes += count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, clock: Clock, patience: Patience, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._lines = _Lines(io.BufferedReader(_Bounded(sock, self.fp.detach(), clock, patience)))
        self.fp = self._lines  # type: ignore[assignment]

    def begin(self) -> None:
        super().begin()
        if self._lines.last not in (b"\r\n", b"\n"):
            self.close()
            raise TransportError(Fault.TRUNCATED)


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


@contextlib.contextmanager
def _faults(*, connecting: bool = False) -> Iterator[None]:
    """Name what goes wrong inside."""
    fault, detail = Fault.NOT_HTTP, ""
    try:
        yield
        return
    except TransportError:
        raise
    except ssl.SSLCertVerificationError as error:
        fault, detail = _VERIFY_FAULTS.get(error.verify_code, Fault.TLS_UNTRUSTED), error.verify_message
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        fault = Fault.RESET
    except ssl.SSLError as error:
        refused = "ALERT" in (error.reason or "") and ("CERT" in (error.reason or "") or "CA" in (error.reason or ""))
        fault, detail = (Fault.TLS_CLIENT if refused else Fault.TLS), error.reason or ""
    except socket.gaierror as error:
        fault, detail = Fault.NAME, error.strerror or ""
    except TimeoutError:
        fault, detail = (Fault.UNREACHABLE, "no answer to connecting") if connecting else (Fault.STALLED, "")
    except (http.client.RemoteDisconnected, ConnectionError, http.client.NotConnected) as error:
        if connecting and not isinstance(error, ConnectionResetError):
            fault, detail = Fault.UNREACHABLE, getattr(error, "strerror", "") or ""
        else:
            fault = Fault.RESET
    except (http.client.IncompleteRead, io.UnsupportedOperation):
        fault = Fault.TRUNCATED
    except (http.client.HTTPException, ValueError) as error:
        fault, detail = Fault.NOT_HTTP, type(error).__name__
    except OSError as error:
        fault, detail = Fault.UNREACHABLE if connecting else Fault.RESET, error.strerror or ""
    raise TransportError(fault, detail)
